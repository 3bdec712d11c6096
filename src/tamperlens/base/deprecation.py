"""Old names keep working for one release and say what the new one is."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def warn(old: str, new: str) -> None:
    """Warn whoever used `old` that it goes with the next release and what to write instead."""
    frame, level = sys._getframe(1), 2
    # This module's own frames, and those of type checkers around them, are not where the name was written.
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    words = f"{old} is deprecated and will be removed in the next release; use {new}"
    warnings.warn(words, DeprecationWarning, stacklevel=level)


def _is_between(file: str) -> bool:
    return file == __file__ or file.startswith("<") or f"{os.sep}jaxtyping{os.sep}" in file


def deprecated(old: str, new: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of a function, method or property getter that is kept under an old name.

    Args:
        old: what the user wrote, e.g. "DriftVerdict.report()".
        new: what to write instead, e.g. "summary()".
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> T:
            warn(old, new)
            return function(*args, **kwargs)

        return warned

    return wrap


def renamed_arguments(
    **names: str | tuple[str, Callable[[Any], object]],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator: arguments that were renamed are still taken by their old name.

    Args:
        **names: old name to new name, or to (new name, what makes the new value of the old one).

    Raises:
        TypeError: (when called) both names are given.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> T:
            for old, how in names.items():
                if old in kwargs:
                    new, convert = (how, None) if isinstance(how, str) else how
                    if new in kwargs:
                        raise TypeError(f"{name}() got {new}= and its old name {old}=")
                    made = "" if convert is None else f"{convert.__name__}(…)"
                    warn(f"{name}({old}=…)", f"{new}={made}")
                    value = kwargs.pop(old)
                    kwargs[new] = value if convert is None else convert(value)
            return function(*args, **kwargs)

        return warned

    return wrap


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A module's `__getattr__` for names that have gone elsewhere.

    Args:
        module: the module's own name (`__name__`).
        names: old name to "package.module" (the name itself is looked up there) or "package.module:name".

    Examples:
        `__getattr__ = moved(__name__, {"old": "tamperlens.rates:new"})`
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        where, _, there = names[name].partition(":")
        warn(f"{module}.{name}", f"{where}.{there or name}")
        return getattr(importlib.import_module(where), there or name)

    return find
