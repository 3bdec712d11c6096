"""Type checks of tests: beartype on every function, and jaxtyping's shapes where a hint has arrays."""

import contextlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping
from beartype.roar import BeartypeDecorHintException
from jaxtyping import TypeCheckError, _decorator

# jaxtyping's own option cannot pass a configuration to the checker of more than one package: a `float`
# argument takes an int (the numeric tower), and both checkers raise the same error.
CONFIG = beartype.BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError)
beartype.beartype = beartype.beartype(conf=CONFIG)  # type: ignore[assignment]

COMPARING = {("tamperlens.base.kinds", "_is")}
"""Functions that ask isinstance() of any hint: sizes are those of one question, not of who called."""
with_shapes = _decorator.jaxtyped


def jaxtyped(fn: Any = _decorator._sentinel, *, typechecker: Any = _decorator._sentinel) -> Any:
    """jaxtyping's decorator; functions without arrays are handed to the type checker alone.

    What jaxtyping adds to beartype are the sizes that arrays share, and it binds every call's arguments for
    them: two fifths of the processor time of the tests, most of it in functions that have no arrays.
    """
    if inspect.isfunction(fn) and isinstance(typechecker, Callable) and not has_arrays(fn):
        written = dict(fn.__annotations__)  # beartype puts what they mean in place of them
        with contextlib.suppress(
            BeartypeDecorHintException
        ):  # a hint that beartype takes from jaxtyping only
            checked = typechecker(fn)
            fn.__annotations__ = checked.__annotations__ = written
            return checked
        fn.__annotations__ = written
    return with_shapes(fn, typechecker=typechecker)


def has_arrays(fn: Any) -> bool:
    """Whether a hint of a function is, or may be, one of jaxtyping's, or it compares values with hints."""
    if (fn.__module__, fn.__qualname__) in COMPARING:
        return True
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except Exception:  # jaxtyping reads hints one by one and passes over those that have no meaning here
        return True
    return any(map(is_of_arrays, hints.values()))


def is_of_arrays(hint: Any) -> bool:
    """Whether jaxtyping made a hint or a part of it."""
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return type(hint).__module__.startswith("jaxtyping") or any(map(is_of_arrays, parts))


_decorator.jaxtyped = jaxtyped
jaxtyping.jaxtyped = jaxtyped
