"""Rows of a data set in portions, so that a large file never lies in memory whole."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tamperlens.base.errors import InputError
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts, read

STREAMED = (".jsonl", ".ndjson")


def portions(data: PromptsLike | str, size: int) -> Iterator[tuple[int, PromptSet]]:
    """(number of the first row, its rows) of a file or of anything that `prompts.read` takes.

    JSON Lines and streamed `datasets` are read as they come; other sources whole.

    Raises:
        InputError: the source cannot be read, is empty, or has rows without responses.
    """
    start = 0
    for rows in _chunks(data, size):
        if rows.responses is None:
            raise InputError(
                f"{rows.name} has prompts and no responses, and a row's harm lies in what it answers; rename "
                "their column to 'response'"
            )
        hollow = [row for row, text in enumerate(rows.responses) if not text.strip()]
        if hollow:
            raise InputError(
                f"row {start + hollow[0] + 1} of {rows.name} has an empty response ({len(hollow)} of these "
                f"{len(rows)} rows); fill it, or leave such rows out"
            )
        # An error names the row of the portion, so the portion says which of the file's it holds.
        span = f"rows {start + 1} to {start + len(rows)} of {rows.name}"
        yield start, rows if not start else dataclasses.replace(rows, name=span)
        start += len(rows)
    if not start:
        raise InputError("the data set has no rows; there is nothing to screen")


def _chunks(data: PromptsLike | str, size: int) -> Iterator[PromptSet]:
    path = Path(data) if isinstance(data, (str, Path)) else None
    if path is not None and path.suffix.lower() in STREAMED and path.is_file():
        yield from _lines(path, size)
        return
    # A streamed `datasets` set has no length; `as_prompts` would ask for all of it.
    if path is None and hasattr(data, "select_columns") and not hasattr(data, "__len__"):
        rows: Iterable[Any] = data  # type: ignore[assignment]
        for part in _batched(rows, size):
            yield as_prompts(part, what="the streamed data set")
        return
    whole = read(data) if path is not None else as_prompts(data, what="data")  # type: ignore[arg-type]
    for start in range(0, len(whole), size):
        yield whole.subset(range(start, min(start + size, len(whole))))


def _lines(path: Path, size: int) -> Iterator[PromptSet]:
    """Portions of a JSON Lines file; its first line decides whether `read` must take it whole."""
    with path.open(encoding="utf-8-sig", errors="strict") as handle:
        first = handle.readline()
    if '"$set"' in first or not first.lstrip().startswith("{"):
        whole = read(path)
        for start in range(0, len(whole), size):
            yield whole.subset(range(start, min(start + size, len(whole))))
        return
    number = 0
    with path.open(encoding="utf-8-sig") as handle:
        for part in _batched(handle, size):
            rows = []
            for text in part:
                number += 1
                if not text.strip():
                    continue
                try:
                    rows.append(json.loads(text))
                except ValueError as error:
                    raise InputError(f"{path}, line {number}: no JSON ({error}); mend or delete it") from None
            if rows:
                yield read(rows, name=path.name, what=f"{path}, up to line {number}")


def _batched(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    every = iter(rows)
    while part := list(itertools.islice(every, size)):
        yield part
