"""Judges read answers, not thoughts: what every judge is asked, whatever the model wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.prompts import split_reply

UNFINISHED = Verdict("unfinished", 0.0, ("the text ends inside the thought",))
"""Of a text without an answer: neither refusal nor compliance."""

Call = TypeVar("Call", bound=Callable[..., list[Verdict]])


def ask(judge: Judge, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
    """One verdict per text, by what its answer says; "unfinished" where it ends inside the thought.

    Args:
        judge: any judge; it sees answers only (`prompts.split_reply`).
        prompts: what was asked.
        texts: what the model wrote, thoughts included.
    """
    return _read(judge, prompts, texts)


def reads_answers(call: Call) -> Call:
    """For a judge's `__call__`: thoughts are taken off before it looks, as `ask` does."""

    @functools.wraps(call)
    def read(self: Any, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        return _read(functools.partial(call, self), prompts, answers)

    return cast(Call, read)


def _read(
    judge: Callable[[Sequence[str], Sequence[str]], list[Verdict]],
    prompts: Sequence[str],
    texts: Sequence[str],
) -> list[Verdict]:
    if isinstance(prompts, str) or isinstance(texts, str):
        raise InputError("a judge reads lists of prompts and answers; put the one text into a list")
    replies = [split_reply(text) for text in texts]
    if len(prompts) != len(texts) or all(reply.finished and not reply.thought for reply in replies):
        return judge(prompts, [reply.answer for reply in replies])
    rows = [row for row, reply in enumerate(replies) if reply.finished]
    found = judge([prompts[row] for row in rows], [replies[row].answer for row in rows]) if rows else []
    verdicts = [UNFINISHED] * len(replies)
    for row, verdict in zip(rows, found, strict=True):
        verdicts[row] = verdict
    return verdicts
