"""Files into rows: CSV, TSV, JSON, JSON Lines and plain text, with errors that name the line."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamperlens.base.errors import InputError
from tamperlens.base.files import regular
from tamperlens.prompts.conversations import is_conversation
from tamperlens.prompts.names import CATEGORY_COLUMNS, PROMPT_COLUMNS, RESPONSE_COLUMNS

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXCEL = re.compile(r'"?sep=(?P<mark>.)"?[ \t]*\r?\n', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")


@dataclass(frozen=True)
class Table:
    """Rows of a file before anyone knows which column is which.

    Attributes:
        source: what errors call the file.
        columns: every column, in order of appearance.
        rows: column to cell.
        where: where each row stands, e.g. "row 3 (line 4)".
        header: the `$set` object of the packaged format, when the file begins with one.
    """

    source: str
    columns: list[str]
    rows: list[dict[str, Any]]
    where: list[str]
    header: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        rows = [{name: cell(value) for name, value in row.items()} for row in self.rows]
        object.__setattr__(self, "rows", rows)


def cell(value: Any) -> Any:
    """A cell in plain values: None for NaN and pandas' words for nothing, arrays (of Parquet) as lists."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, Mapping):
        return {key: cell(one) for key, one in value.items()}
    return [cell(one) for one in value] if isinstance(value, (list, tuple)) else value


def read_table(path: Path) -> Table:
    """Read one file by its suffix.

    Raises:
        InputError: missing, a folder, empty, not UTF-8, of another type, or malformed; the message names the
            file, the place and the remedy.
    """
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _delimited(path, text)
    if suffix == ".txt":
        return _lines(path, text)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, text)
    return _json(path, text)


def read_text(path: Path) -> str:
    """A text file as UTF-8, with or without a byte-order mark, or as UTF-16 or UTF-32 with one.

    Raises:
        InputError: the file is missing, a folder, of an unknown type, empty or in another encoding.
    """
    if path.is_dir():
        files = sorted(one.name for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
        remedy = f"give one of its files: {', '.join(files[:8])}" if files else "give a prompt file"
        raise InputError(f"{path} is a folder, and not one that datasets' save_to_disk wrote; {remedy}")
    if not path.exists():
        siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        remedy = f"did you mean {path.parent / close[0]}?" if close else "check the path"
        raise InputError(f"no file {path}; {remedy}")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path} is of an unknown type {path.suffix or '(no suffix)'!r}; save the prompts as one of "
            f"{', '.join(SUFFIXES)}"
        )
    where = regular(path)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(
                f"{path} begins as {encoding.upper()} and is not ({error.reason}); is it cut off?"
            ) from error
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}; "
            f"convert it with: iconv -f WINDOWS-1252 -t UTF-8 '{path}' > '{path.stem}-utf8{path.suffix}'"
        ) from error
    text = text.removeprefix("\ufeff")
    if "\0" in text[:1000]:
        raise InputError(f"{path} is not text in UTF-8 (it has zero bytes); save it again as UTF-8")
    if not text.strip():
        raise InputError(f"{path} is empty; write one prompt per row into it")
    return text


def _delimited(path: Path, text: str) -> Table:
    delimiter, line = "\t" if path.suffix.lower() == ".tsv" else "", 1
    told = _EXCEL.match(text)
    if told is not None:  # spreadsheets write the separator into a line of its own
        delimiter, text, line = told["mark"], text[told.end() :], 2
        if not text.strip():
            raise InputError(f"{path} is empty; write one prompt per row into it")
    delimiter = delimiter or _delimiter(text)
    first = line
    # Answers longer than csv's default limit of 128 KiB are fine; the limit is global, so it is put back.
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns: list[str] = []
        rows: list[dict[str, Any]] = []
        where: list[str] = []
        for cells in reader:
            begins, line = line, reader.line_num + first
            if not any(cell.strip() for cell in cells):
                if columns and cells and len(columns) > 1:
                    rows.append(dict.fromkeys(columns, ""))
                    where.append(f"row {len(rows)} (line {begins})")
                continue
            if not columns:
                columns = _header(path, cells)
                continue
            if len(cells) > len(columns):
                if any(cell.strip() for cell in cells[len(columns) :]):
                    raise InputError(
                        f"{path}, line {begins}: {len(cells)} cells under {len(columns)} columns; "
                        'put cells that contain the separator in "double quotes"'
                    )
                cells = cells[: len(columns)]
            rows.append(dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=True)))
            where.append(f"row {len(rows)} (line {begins})")
    except csv.Error as error:
        raise InputError(
            f"{path}, line {line}: not readable as CSV ({error}); check for an unclosed double quote"
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise InputError(f"{path} has a header ({', '.join(columns)}) and no rows; is it a cut-off copy?")
    return Table(str(path), columns, rows, where)


def _delimiter(text: str) -> str:
    """A comma, unless the header has none outside quotes and has semicolons, tabs or bars."""
    first = _QUOTED.sub("", text.lstrip("\r\n").splitlines()[0])
    if "," not in first:
        for other in (";", "\t", "|"):
            if other in first:
                return other
    return ","


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} appears twice in the header; rename one of them")
    # pandas writes an index without a name; spreadsheets leave empty columns behind.
    return [name or f"(unnamed {i})" for i, name in enumerate(columns, 1)]


def _lines(path: Path, text: str) -> Table:
    # Not splitlines(): a form feed or U+2028 may stand inside a prompt.
    lines = re.split("\r\n|\r|\n", text)
    kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    first = kept[0][1]
    if len(kept) > 1 and (_is_object(first) or is_header(first.split(",")) or is_header(first.split("\t"))):
        raise InputError(
            f"{path} holds a table, not one prompt a line (it begins {first!r:.60}); name it .jsonl, .csv or "
            ".tsv"
        )
    rows = [{"prompt": line} for _, line in kept]
    return Table(str(path), ["prompt"], rows, [f"line {n}" for n, _ in kept])


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_header(cells: Sequence[object]) -> bool:
    """Whether these are names of columns, a prompt's and a response's among them, and no texts."""
    names = {str(one).strip().strip('"').lower() for one in cells}
    return bool(names & {*PROMPT_COLUMNS}) and bool(names & {*RESPONSE_COLUMNS, *CATEGORY_COLUMNS})


def _json_lines(path: Path, text: str) -> Table:
    values: list[Any] = []
    where: list[str] = []
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            hint = (
                " (it looks like one JSON document: name it .json)" if number == 1 and line[0] in "[{" else ""
            )
            raise InputError(
                f"{path}, line {number} is not JSON: {error}; write one object per line{hint}"
            ) from error
        where.append(f"line {number}")
    header = None
    if isinstance(values[0], dict) and isinstance(values[0].get("$set"), dict):
        header = values.pop(0)["$set"]
        where.pop(0)
        if not values:
            raise InputError(f"{path} has a $set header and no rows; is it a cut-off copy?")
    return from_values(str(path), values, where, header)


def _json(path: Path, text: str) -> Table:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data") and text.lstrip()[0] == "{":
            return _json_lines(path, text)  # JSON Lines under the name .json, as many data sets have it
        raise InputError(f"{path} is not JSON: {error}; check the file with `python -m json.tool`") from error
    values = _records(path, document)
    if not values:
        raise InputError(f"{path} holds an empty list; write one prompt per item into it")
    return from_values(str(path), values, [f"item {i}" for i in range(1, len(values) + 1)], None)


def _records(path: Path, document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and any(
        isinstance(value, list) and is_conversation(value) and key.lower() in ("messages", "conversations")
        for key, value in document.items()
    ):
        return [document]
    if isinstance(document, dict) and document:
        parts = list(document.values())
        if len(parts) > 1 and all(isinstance(part, list) for part in parts):
            if len({len(part) for part in parts}) == 1:  # column -> list of cells
                return [dict(zip(document, cells, strict=True)) for cells in zip(*parts, strict=True)]
        elif all(isinstance(part, dict) for part in parts) and len({tuple(part) for part in parts}) == 1:
            keys = list(parts[0])  # column -> {index -> cell}, as pandas writes it
            return [{name: document[name][key] for name in document} for key in keys]
        lists = {key: part for key, part in document.items() if isinstance(part, list)}
        if "data" in lists:
            return list(lists["data"])
        if len(lists) == 1:
            return list(next(iter(lists.values())))
    found = f" with the keys {', '.join(map(str, document))}" if isinstance(document, dict) else ""
    raise InputError(
        f"{path} holds a JSON {type(document).__name__}{found}; expected a list of objects, a list of "
        'strings, or {"data": [...]}'
    )


def from_values(source: str, values: Sequence[Any], where: list[str], header: dict[str, Any] | None) -> Table:
    """Rows of texts, objects or conversations; `where` names each.

    Raises:
        InputError: rows of several kinds.
    """
    if all(isinstance(value, list) and is_conversation(value) for value in values):
        values = [{"messages": value} for value in values]
    if all(isinstance(value, str) for value in values):
        return Table(source, ["prompt"], [{"prompt": value} for value in values], where, header)
    columns: dict[str, None] = {}
    for value, place in zip(values, where, strict=True):
        if not isinstance(value, Mapping):
            raise InputError(
                f"{source}, {place} is a {type(value).__name__}, not an object; "
                "make every row an object with the same keys, or every row a string"
            )
        columns.update(dict.fromkeys(value))
    return Table(source, list(columns), [dict(value) for value in values], where, header)
