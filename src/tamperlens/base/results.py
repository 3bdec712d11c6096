"""What every measure returns: a frozen dataclass that saves, loads and turns into a tidy frame."""

from __future__ import annotations

import dataclasses
import io
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, read_json, read_tensors, write_json, write_tensors

R = TypeVar("R", bound="Result")


class Result:
    """Mixin for frozen dataclasses whose fields are numbers, text, containers, tensors, frames or Results.

    `save` writes one file: safetensors with a JSON header when any field holds tensors, JSON otherwise.
    `load` refuses a file of another class. Nothing is pickled.
    """

    def save(self, path: PathLike) -> Path:
        """Write this result to one file, atomically, and return its path."""
        tensors: dict[str, torch.Tensor] = {}
        body = _encode(self, "", tensors)
        document = {"kind": type(self).__name__, "version": _version(), "body": body}
        if tensors:
            return write_tensors(path, tensors, document)
        return write_json(path, document)

    @classmethod
    def load(cls: type[R], path: PathLike) -> R:
        """Read a result that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or holds a result of another kind.
        """
        tensors: dict[str, torch.Tensor] = {}
        if _starts_like_json(path):
            document = read_json(path)
        else:
            tensors, document = read_tensors(path)
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind != cls.__name__:
            raise InputError(f"{path} holds a {kind or 'file of another program'}, not a {cls.__name__}")
        decoded = _decode(cls, document["body"], tensors)
        if not isinstance(decoded, cls):
            raise InputError(f"{path} is damaged: its body is not a {cls.__name__}")
        return decoded

    def to_frame(self) -> pd.DataFrame:
        """One row with the scalar fields; results that hold many rows override this."""
        row: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, (str, int, float, bool)) or value is None:
                row[field.name] = value
        return pd.DataFrame([row])


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
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _encode(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key = where or "value"
        tensors[key] = value
        return {"$tensor": key}
    if isinstance(value, pd.DataFrame):
        return {"$frame": json.loads(value.to_json(orient="table", index=False, double_precision=15))}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _encode(getattr(value, field.name), f"{where}/{field.name}".lstrip("/"), tensors)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): _encode(item, f"{where}/{key}".lstrip("/"), tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{where}/{i}".lstrip("/"), tensors) for i, item in enumerate(value)]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return {"$float": repr(value)}
    return value


def _decode(kind: Any, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$float" in value:
            return float(value["$float"])
        if "$frame" in value:
            return pd.read_json(io.StringIO(json.dumps(value["$frame"])), orient="table")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        choices = [choice for choice in arguments if choice is not type(None)]
        return None if value is None else _decode(choices[0], value, tensors)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        fields = {f.name for f in dataclasses.fields(kind)}
        return kind(**{k: _decode(hints.get(k, Any), v, tensors) for k, v in value.items() if k in fields})
    if isinstance(value, list):
        inner = arguments[0] if arguments else Any
        if origin is tuple or kind is tuple:
            kinds = arguments if arguments and arguments[-1] is not Ellipsis else [inner] * len(value)
            if len(kinds) != len(value):
                kinds = [Any] * len(value)
            return tuple(_decode(k, item, tensors) for k, item in zip(kinds, value, strict=True))
        return [_decode(inner, item, tensors) for item in value]
    if isinstance(value, dict):
        inner = arguments[1] if len(arguments) == 2 else Any
        return {key: _decode(inner, item, tensors) for key, item in value.items()}
    return value
