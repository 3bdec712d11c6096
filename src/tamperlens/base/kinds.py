"""Whether a value is what a type hint says, in words that a user can act on."""

from __future__ import annotations

import collections.abc
import math
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tamperlens.base.nouns import clip

WIDEST = 2**63 - 1
"""Whole numbers beyond 64 bits overflow in every library below."""


class Misfit(Exception):
    """A value that does not fit; the text says what it must be, `depth` how far in it was found."""

    def __init__(self, wanted: str, depth: int = 0) -> None:
        super().__init__(wanted)
        self.depth = depth


class Range(typing.NamedTuple):
    """Which numbers may stand under a name."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high in (math.inf, WIDEST):
            return f"above {self.low:g}" if self.open_low else f"from {self.low:g} on"
        if self.open_low and self.open_high:
            return f"between {self.low:g} and {self.high:g}"
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        return f"{low} {'and below' if self.open_high else 'to'} {_number(self.high)}"


def fit(value: Any, hint: Any, within: Range | None = None, *, finite: bool = True) -> Any:
    """The value, numbers of numpy as Python's own.

    Args:
        value: anything.
        hint: a type hint; parts of it that cannot be checked hold for everything.
        within: range of the numbers in it.
        finite: whether NaN and infinite numbers are refused.

    Raises:
        Misfit: it is of another kind, or a number out of range.
    """
    if isinstance(value, (np.number, np.bool_)):
        value = value.item()
    faults, choices = [], _choices(hint)
    path = any((typing.get_origin(one) or one) is os.PathLike for one in choices)
    if path and isinstance(value, (str, os.PathLike)) and "\0" in str(value):
        raise Misfit("a path without NUL characters", 1)
    if any(getattr(one, "__name__", "") == "_Buffer" for one in choices):  # numpy's ArrayLike
        right = isinstance(value, (int, float, np.ndarray)) or _is_listed(value)
        return _want(right and not isinstance(value, bool), "numbers", value)
    for choice in choices:
        try:
            return _fit(value, choice, within, finite)
        except Misfit as error:
            faults.append(error)
    deepest = max(fault.depth for fault in faults)
    words = dict.fromkeys(str(fault) for fault in faults if fault.depth == deepest)
    raise Misfit(" or ".join(words), deepest)


def _fit(value: Any, hint: Any, within: Range | None, finite: bool) -> Any:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any or hint is object or isinstance(hint, (typing.TypeVar, str)):
        return value
    if hint is None or hint is type(None):
        return _want(value is None, "None", value)
    if origin is typing.Literal:
        known = ", ".join(map(repr, inner))
        return _want(
            any(type(value) is type(one) and value == one for one in inner), f"one of {known}", value
        )
    if hint in (int, float):
        return _number_fit(value, hint, within, finite)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        right = isinstance(value, (tuple, list)) and len(value) == len(inner)
        _want(right, f"{len(inner)} values", value)
        fitted = [_inside(one, kind, within, finite) for one, kind in zip(value, inner, strict=True)]
        return type(value)(fitted) if type(value) in (list, tuple) else value
    if origin in (Sequence, list, tuple, collections.abc.Collection):
        return _sequence(value, inner[0] if inner else Any, within)
    if origin is Iterable:
        right = not isinstance(value, (str, bytes)) and isinstance(value, Iterable)
        _want(right or (inner or (object,))[0] is object, "a list", value)
        return value
    if origin in (Mapping, dict):
        _want(isinstance(value, Mapping), "a mapping of names", value)
        for one in value.values():
            _inside(one, inner[1] if len(inner) == 2 else Any, None, False)
        return value
    if origin is collections.abc.Callable:
        return _want(callable(value), "a function", value)
    return _want(_is(value, origin), _name(origin), value)


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type):
        return True
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return all(hasattr(value, name) for name in getattr(kind, "__protocol_attrs__", ()))
    try:
        return isinstance(value, kind)
    except TypeError:
        return True


def _number_fit(value: Any, hint: Any, within: Range | None, finite: bool) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    right = whole or (hint is float and isinstance(value, float))
    what = "a whole number" if hint is int else "a number"
    if within is not None:
        what += f" {within}"
    _want(right, what, value)
    if whole and abs(value) > WIDEST:
        raise Misfit(f"{what} of at most 64 bits", 1)
    if isinstance(value, float) and not math.isfinite(value):
        if finite:
            raise Misfit(f"a finite number{'' if within is None else f' {within}'}", 1)
        return value
    if within is not None and not within.holds(value):
        raise Misfit(what, 1)
    return value


def _pandas(*names: str) -> tuple[type, ...]:
    """Its types, when anything has imported it: without it, no value is one of them."""
    there = sys.modules.get("pandas")
    return tuple(getattr(there, name) for name in names) if there else ()


def _sequence(value: Any, inner: Any, within: Range | None) -> Any:
    _want(_is_listed(value), f"a list of {_plural(inner)}", value)
    if isinstance(value, (np.ndarray, torch.Tensor, *_pandas("Series", "Index"))):
        return value  # data, which what computes with it looks at
    if type(value) in (list, tuple):
        for one in value:
            _inside(one, inner, within, within is not None)
    return value


def _is_listed(value: Any) -> bool:
    wrong = isinstance(value, (str, bytes, Mapping, *_pandas("DataFrame")))
    return not wrong and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _inside(value: Any, hint: Any, within: Range | None, finite: bool) -> Any:
    try:
        return fit(value, hint, within, finite=finite)
    except Misfit as error:
        raise Misfit(str(error), error.depth + 1) from None


def _want(right: bool, wanted: str, value: Any) -> Any:
    if not right:
        raise Misfit(wanted)
    return value


def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is typing.Annotated:
        return _choices(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for one in typing.get_args(hint) for choice in _choices(one))
    return (hint,)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


_WORDS = {"str": "text", "bool": "True or False", "DataFrame": "a table (DataFrame)", "PathLike": "a path"}


def _name(kind: Any) -> str:
    name = getattr(kind, "__name__", str(kind))
    return _WORDS.get(name, f"{'an' if name[:1] in 'AEIO' else 'a'} {name}")


def _plural(hint: Any) -> str:
    names = {int: "whole numbers", float: "numbers", str: "texts", bool: "True and False", Any: "values"}
    found = [names.get(one, getattr(one, "__name__", "values")) for one in _choices(hint)]
    return " or ".join(dict.fromkeys(found))


def told(value: object) -> str:
    """A wrong value in a few characters."""
    if isinstance(value, (str, int, float, type(None))):
        if isinstance(value, int) and abs(value) > WIDEST:
            return f"a number of {value.bit_length()} bits"
        return clip(repr(value), 60)
    if isinstance(value, (list, tuple)) and len(value) <= 4:
        return clip(repr(value), 60)
    return _name(type(value))
