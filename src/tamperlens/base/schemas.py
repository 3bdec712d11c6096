"""Files that are read back have a schema: one error with file, field and remedy instead of a traceback."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tamperlens.base.errors import InputError, TamperlensError
from tamperlens.base.files import PathLike

M = TypeVar("M", bound=BaseModel)


class Schema(BaseModel):
    """What a file must hold. Kinds are strict (text is no number); names that it does not list are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


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
