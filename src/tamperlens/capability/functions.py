"""Functions and methods that the expression evaluator has, each with its bounds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from tamperlens.capability.operations import SIZE, ExpressionError, Lazy, Machine, add, check_numbers, power


def _total(machine: Machine, items: Any, start: Any = 0) -> Any:
    result = start
    for item in machine.iterate(items):
        result = machine.weigh(add(machine, result, item))
    return result


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    def apply(machine: Machine, *values: Any, key: Any = None, **default: Any) -> Any:
        if default.keys() - {"default"}:
            raise ExpressionError(f"no argument {next(iter(default))!r}")
        items = machine.listed(values[0]) if len(values) == 1 else list(values)
        return pick(items, key=key, **default)

    return apply


def _sorted(machine: Machine, items: Any, *, key: Any = None, reverse: bool = False) -> list[Any]:
    values = machine.listed(items)
    machine.tick(len(values) * max(len(values).bit_length(), 1))
    return sorted(values, key=key, reverse=reverse)


def _range(machine: Machine, *bounds: Any) -> range:
    if not all(isinstance(bound, int) for bound in bounds):
        raise ExpressionError("range of something that is no integer")
    return range(*bounds)


def _reversed(machine: Machine, items: Any) -> Lazy:
    if isinstance(items, range):
        return Lazy(iter(items[::-1]))
    if not isinstance(items, (list, tuple, str)):
        raise ExpressionError(f"a {type(items).__name__} cannot be reversed")
    return Lazy(iter(items[::-1]))


def _round(machine: Machine, value: Any, digits: Any = None) -> Any:
    check_numbers(value, 0)
    if digits is None:
        return round(value)
    if not isinstance(digits, int) or abs(digits) > 100:
        raise ExpressionError("round to so many digits")
    return round(value, digits)


def _pow(machine: Machine, a: Any, b: Any, modulus: Any = None) -> Any:
    if modulus is None:
        return power(machine, a, b)
    if not all(isinstance(one, int) for one in (a, b, modulus)):
        raise ExpressionError("pow with a modulus of something that is no integer")
    return pow(a, b, modulus)


def _str(machine: Machine, value: Any = "") -> str:
    if isinstance(value, Lazy) or callable(value):
        raise ExpressionError("text of a function or iterator")
    machine.weigh(value)
    return str(value)


def _int(machine: Machine, value: Any = 0, base: int = 10) -> int:
    if isinstance(value, str):
        if len(value) > 600:
            raise ExpressionError("a number too large")
        return int(value, base)
    check_numbers(value, 0)
    return int(value)


def _float(machine: Machine, value: Any = 0.0) -> float:
    if not isinstance(value, (bool, int, float, str)):
        raise ExpressionError(f"float of a {type(value).__name__}")
    return float(value)


def _filter(machine: Machine, function: Any, items: Any) -> Lazy:
    keep = bool if function is None else function
    return Lazy(item for item in machine.iterate(items) if keep(item))


def _next(machine: Machine, items: Any, *default: Any) -> Any:
    if not isinstance(items, Lazy):
        raise ExpressionError("next of something that is no iterator")
    return next(items.items, *default) if default else _first(items)


def _first(items: Lazy) -> Any:
    for item in items.items:
        return item
    raise ExpressionError("next of an empty iterator")


def _number(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(machine: Machine, *values: Any) -> Any:
        for value in values:
            check_numbers(value, 0)
        return function(*values)

    return apply


def _length(machine: Machine, value: Any) -> int:
    if not isinstance(value, (str, list, tuple, set, dict, range)):
        raise ExpressionError(f"a {type(value).__name__} has no length")
    return len(value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": _number(abs),
    "all": lambda machine, items: all(machine.iterate(items)),
    "any": lambda machine, items: any(machine.iterate(items)),
    "bin": lambda machine, value: bin(operator.index(value)),
    "bool": lambda machine, value=False: bool(value),
    "chr": lambda machine, value: chr(value),
    "dict": lambda machine, items=(): (
        dict(machine.listed(items)) if not isinstance(items, dict) else dict(items)
    ),
    "divmod": _number(divmod),
    "enumerate": lambda machine, items, start=0: Lazy(enumerate(machine.iterate(items), start)),
    "filter": _filter,
    "float": _float,
    "hex": lambda machine, value: hex(operator.index(value)),
    "int": _int,
    "len": _length,
    "list": lambda machine, items=(): machine.listed(items),
    "map": lambda machine, function, *items: Lazy(
        function(*row) for row in zip(*(machine.iterate(one) for one in items), strict=False)
    ),
    "max": _extreme(max),
    "min": _extreme(min),
    "next": _next,
    "ord": lambda machine, value: ord(value),
    "pow": _pow,
    "range": _range,
    "reversed": _reversed,
    "round": _round,
    "set": lambda machine, items=(): set(machine.listed(items)),
    "sorted": _sorted,
    "str": _str,
    "sum": _total,
    "tuple": lambda machine, items=(): tuple(machine.listed(items)),
    "zip": lambda machine, *items: Lazy(iter(zip(*(machine.iterate(one) for one in items), strict=False))),
}


# ---- methods ----------------------------------------------------------------------------------------------

_AS_THEY_ARE = [
    "lower",
    "upper",
    "title",
    "capitalize",
    "swapcase",
    "casefold",
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "endswith",
    "count",
    "find",
    "rfind",
    "index",
    "isdigit",
    "isalpha",
    "isalnum",
    "isupper",
    "islower",
    "isspace",
    "isnumeric",
    "isdecimal",
    "partition",
    "removeprefix",
    "removesuffix",
]


def _method(kind: type, name: str) -> Callable[..., Any]:
    function = getattr(kind, name)

    def apply(machine: Machine, value: Any, *arguments: Any, **named: Any) -> Any:
        if named:
            raise ExpressionError(f"named arguments of {name}")
        for argument in arguments:
            if isinstance(argument, range):  # would be walked in C, out of reach of the step counter
                raise ExpressionError(f"a range as argument of {name}")
            machine.weigh(argument)
        return function(value, *arguments)

    return apply


def _join(machine: Machine, separator: str, items: Any) -> str:
    parts = [machine.text(one) for one in machine.listed(items)]
    if sum(map(len, parts)) + len(separator) * len(parts) > SIZE:
        raise ExpressionError("a value too large")
    return separator.join(parts)


def _replace(machine: Machine, value: str, old: str, new: str, count: int = -1) -> str:
    found = value.count(machine.text(old))
    if len(value) + found * len(machine.text(new)) > SIZE:
        raise ExpressionError("a value too large")
    return value.replace(old, new, count)


def _zfill(machine: Machine, value: str, width: int) -> str:
    if width > SIZE:
        raise ExpressionError("a value too large")
    return value.zfill(width)


def _view(name: str) -> Callable[..., Any]:
    def apply(machine: Machine, value: dict[Any, Any]) -> Lazy:
        return Lazy(iter(list(getattr(value, name)())))

    return apply


METHODS: dict[tuple[type, str], Callable[..., Any]] = {
    **{(str, name): _method(str, name) for name in _AS_THEY_ARE},
    (str, "join"): _join,
    (str, "replace"): _replace,
    (str, "zfill"): _zfill,
    **{(list, name): _method(list, name) for name in ("count", "index", "copy")},
    **{(tuple, name): _method(tuple, name) for name in ("count", "index")},
    **{(dict, name): _view(name) for name in ("keys", "values", "items")},
    (dict, "get"): _method(dict, "get"),
    **{(set, name): _method(set, name) for name in ("union", "intersection", "difference", "issubset")},
}
STRING_METHODS = frozenset(name for kind, name in METHODS if kind is str)
