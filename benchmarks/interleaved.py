"""Two contestants taking turns in one process, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def ratio(over: Callable[[], Any], under: Callable[[], Any], repetitions: int) -> tuple[float, float, float]:
    """(median of over / under, median seconds of each), the two taking turns."""
    over(), under()
    pairs = rounds(over, under, repetitions, time.perf_counter)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return statistics.median(a / b for a, b in pairs), medians[0], medians[1]


def spread(
    over: Callable[[], Any], under: Callable[[], Any], repetitions: int
) -> tuple[list[float], float, float]:
    """(ratios over / under from low to high, median seconds of each), in processor time.

    Processor time does not count what other programs of a shared machine take; it is wall time where the
    machine is idle and torch has one thread.
    """
    pairs = rounds(over, under, repetitions, time.process_time)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return sorted(a / b for a, b in pairs), medians[0], medians[1]


def rounds(
    over: Callable[[], Any], under: Callable[[], Any], repetitions: int, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Seconds of (over, under) in each round; who goes first changes from round to round."""
    pairs = []
    for turn in range(repetitions):
        seconds = {}
        for name, run in (("o", over), ("u", under))[:: 1 if turn % 2 else -1]:
            start = clock()
            run()
            seconds[name] = clock() - start
        pairs.append((seconds["o"], seconds["u"]))
    return pairs


def words(ratios: list[float]) -> str:
    """Median and range of ratios."""
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}], {len(ratios)} rounds"
