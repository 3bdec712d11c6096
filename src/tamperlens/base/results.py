"""What every measure returns: a frozen dataclass that saves, loads and turns into a tidy frame."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from tamperlens.base.encoding import DecodeError, decode, encode
from tamperlens.base.errors import InputError
from tamperlens.base.files import (
    PathLike,
    read_json,
    read_tensors,
    regular,
    sha256_bytes,
    write_json,
    write_tensors,
)
from tamperlens.base.lazy import pd
from tamperlens.base.nouns import Noun

R = TypeVar("R", bound="Result")
FORMAT = 2
"""Of result files: 2 keeps every bit and every dtype; 1 kept tables to 15 decimal places."""


class Result(Noun):
    """Mixin for frozen dataclasses whose fields are numbers, text, containers, tensors, frames or Results.

    `save` writes one file: safetensors with a JSON header when any field holds tensors, JSON otherwise.
    `load` refuses a file of another class. Nothing is pickled.
    """

    def save(self, path: PathLike) -> Path:
        """Write this result to one file, atomically, and return its path.

        Raises:
            InputError: a field holds what files do not keep; the message names it.
        """
        tensors: dict[str, torch.Tensor] = {}
        body = encode(self, type(self), "", tensors)
        try:  # what cannot be read back is refused while the result is still there
            decode(body, type(self), "", tensors)
        except DecodeError as error:
            raise InputError(f"this {type(self).__name__} cannot be saved: {error}") from error
        document = {"kind": type(self).__name__, "format": FORMAT, "version": _version(), "body": body}
        document["sha256"] = _seal(body)
        if tensors:
            return write_tensors(path, tensors, document)
        return write_json(path, document)

    @classmethod
    def load(cls: type[R], path: PathLike) -> R:
        """Read a result that `save` wrote; every number is the one that was saved, to the bit.

        Raises:
            InputError: the file is missing, damaged, of another version, or holds a result of another kind;
                the message names the file and the field.
        """
        tensors: dict[str, torch.Tensor] = {}
        if _starts_like_json(regular(path)):
            document = read_json(path)
        else:
            tensors, document = read_tensors(path)
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind != cls.__name__:
            raise InputError(f"{path} holds a {kind or 'file of another program'}, not a {cls.__name__}")
        written = document.get("format", 0 if "sha256" in document else 1)
        if type(written) is not int or not 1 <= written <= FORMAT:
            raise InputError(
                f"{path} has format {written!r}, this version reads 1 to {FORMAT}; "
                "read it with the tamperlens that wrote it, or save it again with this one"
            )
        try:
            if "body" not in document:
                raise DecodeError("body", "is missing")
            made = typing.cast(R, decode(document["body"], cls, "", tensors))
            if document.get("sha256", seal := _seal(document["body"])) != seal:
                raise DecodeError("body", "was changed after it was saved")
            return made
        except (DecodeError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}; delete it and save the result again") from error

    def to_frame(self) -> pd.DataFrame:
        """The result's table, the first where it has several; else one row with the scalar fields."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]
        for value in fields.values():
            if isinstance(value, pd.DataFrame):
                return value
        return scalars(fields)


def scalars(fields: Mapping[str, object]) -> pd.DataFrame:
    """One row with those that are text, numbers or None."""
    plain = (str, int, float, bool, type(None))
    return pd.DataFrame([{name: value for name, value in fields.items() if isinstance(value, plain)}])


def _seal(body: Any) -> str:
    """Hash of what a file says besides its tensors; floats come back to the bit."""
    return sha256_bytes(json.dumps(body, sort_keys=True).encode())


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tamperlens")
    except PackageNotFoundError:
        return "unknown"


def _starts_like_json(path: PathLike) -> bool:
    try:
        with Path(path).open("rb") as handle:
            return handle.read(1) == b"{"
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
