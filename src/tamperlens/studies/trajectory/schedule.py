"""At which steps to measure: every n-th, given ones, or log-spaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tamperlens.base.errors import InputError

LOG = "log"
Every = str | int | Sequence[int]


def is_due(every: Any, step: int, last: int | None = None) -> bool:
    """Whether a step is to be recorded; step 0 and the last step, where it is known, always are.

    Args:
        every: "log" (0, 1, 2, 4, 8, 16, …), n for every n-th step, or steps.
        step: number of optimizer steps made.
        last: the last step of the run, if known.

    Raises:
        InputError: `every` is none of these.
    """
    if step == 0 or step == last:
        return True
    if every == LOG:
        return step & (step - 1) == 0
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return step % every == 0
    if isinstance(every, (list, tuple)) and all(isinstance(one, int) and one >= 0 for one in every):
        return step in every
    raise InputError(f"every={every!r} must be 'log', a whole number of at least 1, or a list of steps")


def steps_until(every: Any, last: int) -> list[int]:
    """All steps that are recorded in a run of `last` steps."""
    return [step for step in range(last + 1) if is_due(every, step, last)]


def sampled_by_default(step: int, last: int | None = None) -> bool:
    """Generated answers are expensive: at 0, at 64, 256, 1024, … and at the last step."""
    return step in (0, last) or (step >= 64 and step & (step - 1) == 0 and step.bit_length() % 2 == 1)
