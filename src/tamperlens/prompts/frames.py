"""Prompts that are in memory already, in any of the shapes that people hold them in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tamperlens.base.errors import InputError
from tamperlens.base.lazy import pd
from tamperlens.prompts.conversations import is_conversation
from tamperlens.prompts.hub import table_of
from tamperlens.prompts.promptset import Example, PromptSet
from tamperlens.prompts.tables import Table, cell, from_values, is_header


@runtime_checkable
class ArrowTable(Protocol):
    """A table of pyarrow, which is no iterable."""

    def to_pylist(self) -> Any:
        """Rows as dictionaries."""


# Frames, mappings and data sets are iterable too; `as_prompts` reads them by their rows.
PromptsLike = PromptSet | Iterable[object] | Path | ArrowTable
MOST_ROWS = 5_000_000
REMEDY = (
    "give a list of texts, a PromptSet, a table (pandas, datasets, a dict of columns), "
    "or prompts.read(FILE) for a file"
)


def table_in_memory(data: object, name: str, *, split: str | None, wanted: tuple[str | None, ...]) -> Table:
    """Rows of a pandas frame or series, a mapping of columns, a `datasets.Dataset`, or a list of rows.

    Raises:
        InputError: something else, or rows of several kinds; the message says what to write.
    """
    if hasattr(data, "select_columns"):
        if not hasattr(data, "__len__"):
            raise InputError(f"{name} is a streamed data set; give list(data.take(n)) or load it whole")
        return table_of(name, data, split, wanted)
    if isinstance(data, Mapping) and data and all(hasattr(one, "column_names") for one in data.values()):
        return table_of(name, data, split, wanted)  # a DatasetDict
    if split is not None:
        raise InputError(f"{name} has no splits; leave split= out")
    for rows in ("to_pylist", "to_dicts"):  # pyarrow, polars
        if hasattr(data, "columns") and hasattr(data, rows):
            data = getattr(data, rows)()
    if isinstance(data, pd.DataFrame):
        columns = [str(column) for column in data.columns]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise InputError(f"{name}: column {twice[0]!r} appears twice; rename one of them")
        cells = [data.iloc[:, place].tolist() for place in range(len(columns))]
        return _of_rows(
            name, columns, [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
        )
    if isinstance(data, Mapping):
        return _of_columns(name, data)
    return _of_items(name, items_of(name, data))


def _of_columns(name: str, data: Mapping[Any, Any]) -> Table:
    columns = {str(key): value for key, value in data.items()}
    if columns and all(
        not isinstance(one, (str, bytes)) and hasattr(one, "__len__") for one in columns.values()
    ):
        lengths = {key: len(value) for key, value in columns.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {n}" for key, n in lengths.items())
            raise InputError(f"the columns of {name} differ in length ({shown}); give one cell per row")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return _of_rows(name, list(columns), rows)
    raise InputError(
        f"{name} is a dict that is no table (keys: {', '.join(columns)[:120]}); give a dict of column to "
        "list of cells, or put one row into a list"
    )


def items_of(what: str, data: object) -> list[Any]:
    """The rows of anything that can be gone through and ends."""
    if isinstance(data, (set, frozenset)):
        raise InputError(f"{what} is a set, which has no order; give sorted(prompts) or a list")
    if isinstance(data, pd.Series):
        return [cell(value) for value in data.tolist()]
    if getattr(data, "ndim", None) == 1 and hasattr(data, "tolist"):
        return list(data.tolist())
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable) or hasattr(data, "ndim"):
        raise InputError(f"{what} is a {type(data).__name__}; {REMEDY}")
    if hasattr(data, "readlines"):
        raise InputError(f"{what} is an open file; give prompts.read(FILE), which knows its columns")
    items = list(itertools.islice(data, MOST_ROWS + 1))
    if len(items) > MOST_ROWS:
        raise InputError(f"{what} gives more than {MOST_ROWS:,} rows; take the ones that you need")
    return items


def _of_items(name: str, items: list[Any]) -> Table:
    where = [f"row {i}" for i in range(1, len(items) + 1)]
    if items and all(isinstance(one, Example) for one in items):
        items = [{k: v for k, v in vars(one).items() if v is not None} for one in items]
    if items and all(_is_pair(one) for one in items):
        if is_header(items[0]):
            raise InputError(f"{name} begins with the names of its columns; give prompts.read(FILE)")
        items = [{"prompt": one[0], "response": one[1]} for one in items]
    for place, one in zip(where, items, strict=True):
        if not isinstance(one, (str, Mapping)) and not is_conversation(one):
            raise InputError(f"{name}, {place} is a {type(one).__name__}, not text; {REMEDY}")
    return from_values(name, items, where, None)


def _is_pair(one: object) -> bool:
    return isinstance(one, (tuple, list)) and len(one) == 2 and not is_conversation(one)


def _of_rows(name: str, columns: list[str], rows: list[dict[str, Any]]) -> Table:
    if not rows:
        raise InputError(f"{name} has no rows; give at least one prompt")
    return Table(name, columns, rows, [f"row {i}" for i in range(1, len(rows) + 1)])


def is_table(data: object) -> bool:
    """Whether this is a pandas frame, a mapping, or a table of datasets, pyarrow or polars."""
    return (
        isinstance(data, (Mapping, pd.DataFrame))
        or hasattr(data, "column_names")
        or hasattr(data, "to_dicts")
    )
