"""Files that are read back have a schema: one error with file, field and remedy instead of a traceback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tamperlens.base.errors import InputError, TamperlensError
from tamperlens.base.files import PathLike, read_csv, read_json
from tamperlens.base.lazy import pd

M = TypeVar("M", bound=BaseModel)


class Schema(BaseModel):
    """What a file must hold. Kinds are strict (text is no number); names that it does not list are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


REMADE = "delete it, it will be made again"


def read_document(
    path: PathLike, schema: type[M], *, remedy: str = REMADE, error: type[TamperlensError] = InputError
) -> dict[str, Any]:
    """A JSON file of named entries, held to a schema; entries beyond it are kept.

    Raises:
        InputError: (or `error`) it is missing, no JSON, or does not fit.
    """
    value = read_json(path)
    checked(schema, value, path, remedy=remedy, error=error)
    return dict(value)


def read_table(
    path: PathLike, numbers: Sequence[str], words: Sequence[str] = (), **options: Any
) -> pd.DataFrame:
    """A CSV file of ours with these columns; further ones are kept, options go to `read_csv`.

    Raises:
        InputError: it is missing, no table, lacks a column, or holds text where numbers belong.
    """
    frame = read_csv(path, **options)
    missing = [name for name in (*words, *numbers) if name not in frame]
    if missing:
        raise InputError(f"{path} has another shape: the column {missing[0]!r} is missing; {REMADE}")
    for name in numbers:
        if len(frame) and not pd.api.types.is_numeric_dtype(frame[name]):
            raise InputError(f"{path} has another shape: the column {name!r} holds text; {REMADE}")
    return frame


def checked(
    schema: type[M],
    value: object,
    path: PathLike,
    *,
    remedy: str,
    error: type[TamperlensError] = InputError,
) -> M:
    """`value`, which was read from `path`, held to a schema.

    Args:
        schema: a pydantic model.
        value: what the file holds, as JSON reads it.
        path: the file, for the message.
        remedy: what the reader of the message can do, e.g. "delete it, it will be remade".
        error: class of the error.

    Raises:
        InputError: (or `error`) the value does not fit; the message names file, field and remedy.
    """
    try:
        return schema.model_validate_json(json.dumps(value))  # in JSON's terms a list is a tuple too
    except ValidationError as problem:
        found = problem.errors(include_url=False, include_context=False, include_input=False)
        field = ".".join(str(part) for part in found[0]["loc"])
        words = f"{field}: {found[0]['msg'].lower()}" if field else "it is not a table of named entries"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise error(f"{path} has another shape: {words}{more}; {remedy}") from None
