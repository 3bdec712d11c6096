"""Text that leaves for other programs: table cells, terminals, file names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tamperlens.base.lazy import pd

# What a spreadsheet takes for a formula, and the mark itself.
_FORMULA = ("=", "+", "-", "@", "\t", "'")
# C0 but tab and line feed (a lone carriage return ends a row for some readers), delete, C1, marks that turn
# the direction of writing, halves of characters.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_NAME = re.compile(r"[^\w.\-]+")


def neutral(value: Any) -> Any:
    """A cell that no spreadsheet runs and no terminal obeys; `plain` gives the value back.

    Text that begins like a formula gets an apostrophe before it. Text with control characters is written as
    a JSON string behind one. Everything else is as it was.
    """
    if not isinstance(value, str):
        return value
    if _CONTROL.search(value):
        return "'" + json.dumps(value)
    return f"'{value}" if value.startswith(_FORMULA) else value


def plain(value: Any) -> Any:
    """What `neutral` was given."""
    if not isinstance(value, str) or not value.startswith("'"):
        return value
    if value.startswith("'\""):
        try:
            return json.loads(value[1:])
        except ValueError:
            return value
    return value[1:]


def each_cell(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """A frame with `change` applied to its text cells and column names."""
    columns = dict(enumerate(_changed(column, change) for _, column in frame.items()))
    out = pd.DataFrame(columns, index=frame.index)
    out.columns = pd.Index([change(name) for name in frame.columns])
    return out


def _changed(column: pd.Series, change: Callable[[Any], Any]) -> pd.Series:
    text = str(column.dtype).startswith("str")
    if not text and column.dtype != object:
        return column
    made = pd.Series([change(value) for value in column], index=column.index, dtype=object)
    try:
        return made.astype(column.dtype) if text else made
    except UnicodeEncodeError:  # halves of characters, which Arrow's strings cannot hold
        return made


def visible(text: str) -> str:
    """Text whose control and direction-changing characters show as code points, so that they cannot act."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def file_name(text: str, most: int = 120) -> str:
    """Text as the name of one file: letters, digits, dots, dashes; never a path, never hidden."""
    return _NAME.sub("-", text).strip("-.")[:most].rstrip("-.") or "unnamed"
