"""The boundary: what callers hand to public functions is held to the signatures before anything is done.

`guard(globals(), __all__)` at the end of a subpackage wraps every public function and every public method of
its classes. A value of another kind, a number that is not finite, beyond 64 bits or out of the range that its
name stands for (`RANGES`) is one `InputError` that names the function and the argument. `hold_fields` does
the same for a dataclass of settings. Subpackages add rules over several arguments with `rule`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tamperlens.base.errors import InputError
from tamperlens.base.kinds import WIDEST, Misfit, Range, fit, told

C = TypeVar("C", bound=Callable[..., Any])
Rule = Callable[[str, Mapping[str, Any]], None]

_ANY, _COUNT, _SHARE = Range(-WIDEST, WIDEST), Range(1, WIDEST), Range(0, 1)
_POSITIVE, _INNER = Range(0, math.inf, open_low=True), Range(0, 1, True, True)
_SEED, _PLACE = Range(0, 2**32 - 1), Range(-(2**31), 2**31)
RANGES: dict[str, Range] = {
    **dict.fromkeys(("seed", "seeds"), _SEED),
    **dict.fromkeys(
        (
            "batch_size", "accumulation", "bins", "draws", "n_draws", "n_samples", "limit", "suite_limit",
            "max_length", "log_every", "save_every", "rank", "workers", "steps", "data_sizes", "questions",
            "max_prompts", "splits", "thinking_budget", "n_mixtures", "k",
            "n_train", "n_val", "batch",
        ),
        _COUNT,
    ),
    "max_new_tokens": Range(0, 2**16),
    "n_tokens": Range(1, 2**16),
    "ranks": Range(0, 2**16),
    **dict.fromkeys(("position", "positions", "query", "layer", "layers"), _PLACE),
    **dict.fromkeys(("max_zero_share", "retain", "held_out", "discordant", "language_coverage"), _SHARE),
    **dict.fromkeys(("confidence", "power", "fpr", "share"), _INNER),
    **dict.fromkeys(("memory", "epochs"), _POSITIVE),
    **dict.fromkeys(("temperature", "ridge", "gpus", "weight_decay", "max_grad_norm"), Range(0, math.inf)),
    **dict.fromkeys(("learning_rate", "learning_rates"), Range(0, 10, True, True)),
    "dropout": Range(0, 1, open_high=True),
}  # fmt: skip
"""What a number may be by the name of its argument; other whole numbers are not negative."""
_WHOLE = Range(0, WIDEST)
_UNDEFINED = ("value",)
"""Measured numbers, which may be NaN."""
_RULES: list[Rule] = []
_GUARDED = "__guarded__"


def rule(check: Rule) -> Rule:
    """Add a check of the arguments of all public functions, called with the function's name and them."""
    _RULES.append(check)
    return check


def guard(namespace: dict[str, Any], names: Sequence[str]) -> None:
    """Put the boundary around the public functions, and the public methods of classes, of a subpackage.

    `dir()` of it then shows what is public and nothing else.
    """
    namespace["__dir__"] = lambda: sorted(names)
    behind: dict[Any, Any] = {}  # one function under two names stays one
    for name in names:
        thing = namespace.get(name)
        if not str(getattr(thing, "__module__", "")).startswith("tamperlens"):
            continue
        if inspect.isfunction(thing):
            namespace[name] = behind.setdefault(thing, guarded(thing))
        elif inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
            _guard_methods(thing)


def _guard_methods(kind: type) -> None:
    if _GUARDED in vars(kind):
        return
    setattr(kind, _GUARDED, True)
    for name, method in list(vars(kind).items()):
        made = name == "__init__" and not dataclasses.is_dataclass(kind)
        if name.startswith("_") and not made:
            continue
        if inspect.isfunction(method):
            setattr(kind, name, guarded(method, finite=False))
        elif isinstance(method, (classmethod, staticmethod)) and inspect.isfunction(method.__func__):
            setattr(kind, name, type(method)(guarded(method.__func__, finite=False)))


def guarded(function: C, *, finite: bool = True) -> C:
    """The function behind the boundary.

    Args:
        function: a function or method.
        finite: refuse NaN and infinity also in numbers whose name has no range; methods of results take them.
    """
    if hasattr(function, _GUARDED):
        return function
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")

    several = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

    @functools.cache
    def hints() -> dict[str, Any]:
        try:
            return typing.get_type_hints(inspect.unwrap(function))
        except (NameError, TypeError):  # a name that only type checkers know
            return {}

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says best what is missing or too much
        for key, value in bound.arguments.items():
            parameter = signature.parameters[key]
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or key not in hints():
                continue
            if value is not parameter.default:
                default = parameter.default
                all_ = isinstance(default, float) and not math.isfinite(default)
                need = not all_ and (key in RANGES or (finite and key not in _UNDEFINED))
                bound.arguments[key] = held(value, hints()[key], key, f"{name}: ", finite=need)
        flat = dict(bound.arguments)
        for key in several:
            flat.update(flat.pop(key, {}))
        for check in _RULES:
            check(name, flat)
        return function(*bound.args, **bound.kwargs)

    setattr(called, _GUARDED, True)
    return typing.cast(C, called)


def held(value: Any, hint: Any, name: str, where: str = "", *, finite: bool = True) -> Any:
    """The value, held to its hint and to the range of its name.

    Raises:
        InputError: it does not fit; the message says what it must be.
    """
    try:
        return fit(value, hint, RANGES.get(name, _WHOLE if _is_whole(hint) else None), finite=finite)
    except Misfit as error:
        raise InputError(f"{where}{name}={told(value)} must be {error}") from None


def _is_whole(hint: Any) -> bool:
    return hint is int or (int in typing.get_args(hint) and float not in typing.get_args(hint))


def hold_fields(settings: Any, where: str = "", **ranges: Range) -> None:
    """Hold every field of a dataclass of settings to its type and range; call it in `__post_init__`.

    Args:
        settings: the instance.
        where: what to put before the field's name in errors.
        ranges: of fields whose name stands for something else here.

    Raises:
        InputError: a field does not fit.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for name, new in fields_of(settings.__class__, values, where, **ranges).items():
        if new is not values[name]:
            object.__setattr__(settings, name, new)


def fields_of(kind: type, values: Mapping[str, Any], where: str = "", **ranges: Range) -> dict[str, Any]:
    """Values as the fields of a dataclass take them, before one is made of them; see `hold_fields`."""
    kinds, fitted = _hints(kind), {}
    for name, value in values.items():
        within = ranges.get(name, RANGES.get(name, _WHOLE if _is_whole(kinds[name]) else None))
        try:
            fitted[name] = fit(value, kinds[name], within)
        except Misfit as error:
            raise InputError(f"{where}{name}={told(value)} must be {error}") from None
    return fitted


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def known_names(kind: type, given: Mapping[str, Any], where: str) -> None:
    """Refuse settings that a dataclass does not have, with the nearest one that it has.

    Raises:
        InputError: an unknown name.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"{where}: no setting {str(name)[:60]!r}; {hint}")
