"""The prompt sets that come with the package."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from tamperlens.base.errors import InputError
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import Table, read_table


def packaged_names() -> list[str]:
    """Names that `packaged` knows, sorted."""
    return sorted(one.name.removesuffix(".jsonl") for one in _folder().iterdir() if one.suffix == ".jsonl")


def packaged(name: str, split: str | None = None) -> PromptSet:
    """A packaged prompt set.

    `english-harmful`, `english-harmless` and `english-lookalike` are plain English for real models; the
    others are in the embedded organism's language.

    Args:
        name: one of `packaged_names()`.
        split: "train", "validation" or "test" where the set has splits; every row when left out.

    Raises:
        InputError: no such set or split; the message lists those that exist.

    Examples:
        >>> from tamperlens import prompts
        >>> len(prompts.packaged('harmful', split='test'))
        201
    """
    return _read(name, split)


def packaged_splits(name: str) -> list[str]:
    """Names of a packaged set's splits, in order of appearance; empty when it has none."""
    rows = _table(name).rows
    return list(dict.fromkeys(str(row["split"]) for row in rows if "split" in row))


@functools.cache  # sets never change, and one study asks for the same ones again and again
def _read(name: str, split: str | None) -> PromptSet:
    return packaged_format(_table(name), name=name, split=split)


@functools.cache
def _table(name: str) -> Table:
    if name not in packaged_names():
        raise InputError(f"no packaged prompt set named {name!r}; there are {', '.join(packaged_names())}")
    return read_table(_folder() / f"{name}.jsonl")


def _folder() -> Path:
    # Wheels are installed as files, so the resource is a real path; a zipped import is not supported.
    return Path(str(resources.files("tamperlens.prompts").joinpath("data")))


def packaged_format(table: Table, *, name: str | None, split: str | None) -> PromptSet:
    """A table with a `$set` header: its columns are named by the format, nothing is guessed.

    Raises:
        InputError: no such split, a row without a prompt, or a column that only some rows have.
    """
    header = table.header or {}
    title = name or str(header.get("name", "unnamed"))
    rows, where = table.rows, table.where
    if split is not None:
        known = sorted({str(row["split"]) for row in rows if "split" in row})
        if split not in known:
            raise InputError(
                f"prompt set {title!r} has no split {split!r}; it has {', '.join(known) or 'no splits'}"
            )
        chosen = [i for i, row in enumerate(rows) if row.get("split") == split]
        rows, where = [rows[i] for i in chosen], [where[i] for i in chosen]
        title = f"{title}/{split}"

    def column(key: str) -> tuple[str, ...] | None:
        # An empty response or answer is data; an empty prompt is a mistake.
        present = [isinstance(row.get(key), str) and (row[key] != "" or key != "prompt") for row in rows]
        if not any(present) and key != "prompt":
            return None
        if not all(present):
            raise InputError(
                f"{table.source}, {where[present.index(False)]} has no {key!r}; every row needs one"
            )
        return tuple(row[key] for row in rows)

    contexts = tuple(tuple((str(r), str(t)) for r, t in row.get("context") or ()) for row in rows)
    return PromptSet(
        prompts=column("prompt") or (),
        responses=column("response"),
        answers=column("answer"),
        categories=column("category"),
        name=title,
        licence=str(header.get("licence", "unknown")),
        source=str(header.get("source", table.source)),
        contexts=contexts if any(contexts) else None,
        labels=column("label"),
    )
