"""Values as JSON and tensors, and back to the bit; `results` writes files with it.

Text, whole numbers, finite floats, booleans and None are JSON's own (Python writes the shortest digits that
give a float back). Everything else is an object with one key that begins with "$". Reading follows the type
hints of the dataclass, so that a list becomes the tuple that the field is declared to be, and a value of
another kind is an error that names the field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tamperlens.base.errors import InputError, TamperlensError
from tamperlens.base.frames import frame_from_json, frame_to_json
from tamperlens.base.lazy import pd

JSON = typing.Any  # what json reads and writes; checked as it is read
ANY = typing.Any


class DecodeError(Exception):
    """A value that does not fit its field; `where` is the path to it, innermost name last."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where, self.problem = where, problem


def encode(value: object, hint: object, where: str, tensors: dict[str, torch.Tensor]) -> JSON:
    """JSON of a value; tensors are put into `tensors` and named in it.

    Raises:
        InputError: a kind of value that files do not hold.
    """
    plain = _plain(value)
    if plain is not _NONE:
        return plain
    if isinstance(value, (torch.Tensor, np.ndarray)):
        key, mark = where or "value", "$tensor"
        while key in tensors:
            key += "'"
        if isinstance(value, np.ndarray):
            mark, value = "$array", _as_tensor(value, where)
        tensors[key] = value
        return {mark: key}
    if isinstance(value, pd.DataFrame):
        return {"$frame": frame_to_json(value, lambda item, at: encode(item, ANY, at, tensors), where)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if not any(_is_class(choice, type(value)) for choice in _choices(hint)):
            name = _article(type(value).__name__)
            raise InputError(f"{where or 'the result'} holds {name}, which its type does not name")
        hints = hints_of(type(value))
        fields = {
            one.name: encode(getattr(value, one.name), hints[one.name], _join(where, one.name), tensors)
            for one in dataclasses.fields(value)
            if one.init
        }
        several = sum(dataclasses.is_dataclass(typing.get_origin(c) or c) for c in _choices(hint)) > 1
        return {"$class": type(value).__name__, **fields} if several else fields
    if isinstance(value, Mapping):
        inner = _arguments(hint, Mapping, 2)[1]
        pairs = [(key, encode(item, inner, _join(where, key), tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") and _is_utf8(key) for key, _ in pairs):
            return dict(pairs)
        return {"$dict": [[encode(key, ANY, where, tensors), item] for key, item in pairs]}
    if isinstance(value, (list, tuple, set, frozenset)):
        return _encode_items(value, hint, where, tensors)
    raise InputError(
        f"{where or 'the result'} holds {_article(type(value).__name__)}, which a result file does not keep"
    )


_NONE = object()


def _plain(value: object) -> JSON:
    """JSON of a scalar, or `_NONE` for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _is_utf8(value):
            return str(value)
        return {"$text": value.encode("utf-16-be", "surrogatepass").hex()}
    if isinstance(value, int):
        return int(value) if value.bit_length() < 8192 else {"$int": hex(value)}  # Python reads 4,300 digits
    if isinstance(value, float):
        if math.isnan(value):
            bits = struct.pack(">d", value).hex()
            return {"$float": "nan" if bits == "7ff8000000000000" else bits}
        return {"$float": repr(float(value))} if math.isinf(value) else float(value)
    if value is pd.NA or value is pd.NaT:
        return {"$missing": "NA" if value is pd.NA else "NaT"}
    if isinstance(value, Path):
        return {"$path": str(value)}
    return _NONE


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _as_tensor(array: np.ndarray, where: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except TypeError as error:
        raise InputError(
            f"{where} is an array of {array.dtype}, which a result file does not keep"
        ) from error


def _encode_items(value: typing.Any, hint: object, where: str, tensors: dict[str, torch.Tensor]) -> JSON:
    kind = next(one for one in (list, tuple, set, frozenset) if isinstance(value, one))
    known = _container(hint, kind)
    inner = _inner(hint, kind, len(value))
    items = sorted(value, key=repr) if kind in (set, frozenset) else value
    made = [
        encode(item, one, f"{where}[{i}]", tensors)
        for i, (item, one) in enumerate(zip(items, inner, strict=True))
    ]
    # A list in a field of tuples comes back as what the field is declared to be.
    return made if known or kind is list else {f"${kind.__name__}": made}


# ---- types ----------------------------------------------------------------------------------------------


@functools.cache
def hints_of(cls: type) -> Mapping[str, object]:
    """Type of every field of a dataclass; `Any` where a name in it cannot be found."""
    try:
        return dict(typing.get_type_hints(cls))
    except NameError:
        return {field.name: ANY for field in dataclasses.fields(cls)}


def _choices(hint: object) -> tuple[object, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for one in typing.get_args(hint) for choice in _choices(one))
    return (hint,)


def _is_class(hint: object, cls: type) -> bool:
    return (typing.get_origin(hint) or hint) is cls


_KINDS: dict[type, tuple[object, ...]] = {
    list: (list, Sequence),
    tuple: (tuple,),
    set: (set,),
    frozenset: (frozenset,),
    Mapping: (dict, Mapping),  # type: ignore[type-abstract]
}


def _container(hint: object, kind: type) -> object | None:
    """The choice of a hint that is this kind of container, or None."""
    for one in _choices(hint):
        if (typing.get_origin(one) or one) in _KINDS[kind]:
            return one
    return None


def _arguments(hint: object, kind: type, count: int) -> tuple[object, ...]:
    found = typing.get_args(_container(hint, kind))
    return found if len(found) == count else (ANY,) * count


def _inner(hint: object, kind: type, n: int) -> tuple[object, ...]:
    """Type of each of n items."""
    found = typing.get_args(_container(hint, kind))
    if kind is tuple and found and found[-1] is not Ellipsis:
        return found if len(found) == n else (ANY,) * n
    return (found[0] if found else ANY,) * n


def _join(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


# ---- reading --------------------------------------------------------------------------------------------


def decode(value: JSON, hint: object, where: str, tensors: Mapping[str, torch.Tensor]) -> typing.Any:
    """The value that `encode` wrote, held to its type.

    Raises:
        DecodeError: the value is not of that type.
    """
    problems = []
    for choice in _choices(hint):
        try:
            return _decode_as(value, choice, where, tensors)
        except DecodeError as error:
            problems.append(error)
    # Of several types the one that got furthest in says most.
    raise max(problems, key=lambda error: len(error.where))


def _decode_as(value: JSON, hint: object, where: str, tensors: Mapping[str, torch.Tensor]) -> typing.Any:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
        found = _decode_marked(*next(iter(value.items())), hint, where, tensors)
        if found is not _NONE:
            return _fits(found, hint, where)
    kind = typing.get_origin(hint) or hint
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_class(value, kind, where, tensors)
    if isinstance(value, list) and (hint in (ANY, object) or kind in (list, tuple, set, frozenset, Sequence)):
        into = kind if kind in (tuple, set, frozenset) else list
        arguments = typing.get_args(hint)
        if into is tuple and arguments and arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise DecodeError(where, f"has {len(value)} items, not {len(arguments)}")
        inner = _inner(hint, into, len(value))
        return into(
            decode(item, one, f"{where}[{i}]", tensors)
            for i, (item, one) in enumerate(zip(value, inner, strict=True))
        )
    if isinstance(value, dict) and (hint in (ANY, object) or kind in (dict, Mapping)):
        key_hint, inner_hint = _arguments(hint, Mapping, 2)
        return {
            _fits(key, key_hint, where): decode(item, inner_hint, _join(where, key), tensors)
            for key, item in value.items()
        }
    return _fits(value, hint, where)


def _decode_marked(
    mark: str, value: JSON, hint: object, where: str, tensors: Mapping[str, torch.Tensor]
) -> typing.Any:
    try:
        if mark in ("$tensor", "$array"):
            return tensors[value] if mark == "$tensor" else tensors[value].numpy()
        if mark == "$float":
            if value == "nan":
                return math.nan  # the one that results are made with: they compare equal to what was saved
            return struct.unpack(">d", bytes.fromhex(value))[0] if len(value) == 16 else float(value)
        if mark == "$int":
            return int(value, 16)
        if mark == "$text":
            return bytes.fromhex(value).decode("utf-16-be", "surrogatepass")
        if mark == "$missing":
            return {"NA": pd.NA, "NaT": pd.NaT}[value]
        if mark == "$path":
            return Path(value)
        if mark == "$frame":
            return frame_from_json(value, lambda item, at: decode(item, ANY, at, tensors), where)
        if mark == "$dict":
            keys, inner = _arguments(hint, Mapping, 2)
            return {
                decode(key, keys, where, tensors): decode(item, inner, where, tensors) for key, item in value
            }
        kinds: dict[str, type] = {"$list": list, "$tuple": tuple, "$set": set, "$frozenset": frozenset}
        if mark in kinds:
            inners = _inner(hint, kinds[mark], len(value))
            return kinds[mark](
                decode(item, one, f"{where}[{i}]", tensors)
                for i, (item, one) in enumerate(zip(value, inners, strict=True))
            )
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise DecodeError(where, f"has a damaged {mark}") from error
    return _NONE


def _decode_class(value: JSON, kind: type, where: str, tensors: Mapping[str, torch.Tensor]) -> typing.Any:
    if not isinstance(value, dict):
        raise DecodeError(where, f"is {_name(value)}, not {_article(kind.__name__)}")
    written = value.get("$class", kind.__name__)
    if written != kind.__name__:
        raise DecodeError(where, f"is {_article(str(written))}, not {_article(kind.__name__)}")
    hints = hints_of(kind)
    fields = {one.name: one for one in dataclasses.fields(kind) if one.init}
    # Fields that were renamed are read under their old names.
    value = {getattr(kind, "RENAMED", {}).get(name, name): item for name, item in value.items()}
    for name in value:
        if name not in fields and name != "$class":
            raise DecodeError(_join(where, name), f"is no field of {kind.__name__}")
    found = {}
    for name, one in fields.items():
        if name in value:
            found[name] = decode(value[name], hints[name], _join(where, name), tensors)
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise DecodeError(_join(where, name), "is missing")
    try:
        return kind(**found)
    except (
        TamperlensError,
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise DecodeError(where, f"is no {kind.__name__}: {error}") from error


def _fits(value: typing.Any, hint: object, where: str) -> typing.Any:
    """The value, if it is of the type that is hinted at."""
    if hint in (ANY, object) or hint is object:
        return value
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        known = typing.get_args(hint)
        if any(value == one and type(value) is type(one) for one in known):
            return value
        raise DecodeError(where, f"is {value!r}, not one of {', '.join(map(repr, known))}")
    kind = origin or hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(kind, type):
        if isinstance(value, kind) and not (isinstance(value, bool) and kind in (int, float)):
            return value
        raise DecodeError(where, f"is {_name(value)}, not {_article(kind.__name__)}")
    return value


def _name(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    names = {
        "dict": "an object",
        "str": "text",
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
    }
    return names.get(type(value).__name__, _article(type(value).__name__))


def _article(name: str) -> str:
    name = {"str": "text", "NoneType": "empty", "dict": "object"}.get(name, name)
    return name if name in ("text", "empty") else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
