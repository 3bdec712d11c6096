"""The expression evaluator's step counter, its weights and its operators, each with its bounds."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Any

STEPS, SIZE, BITS = 10_000, 2_000, 2_048


class ExpressionError(Exception):
    """A text that the evaluator cannot read, will not evaluate, or that fails. Never leaves the graders."""


class Lazy:
    """A generator, map, filter, zip or enumerate: something to consume once, not a value."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items


class Machine:
    """Counts steps and weighs values, so that nothing grows without bound."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def tick(self, cost: int = 1) -> None:
        """Use up steps."""
        self.left -= cost
        if self.left < 0:
            raise ExpressionError("takes too many steps")

    def weigh(self, value: Any) -> Any:
        """Give the value back if it is small enough; containers count with everything inside them."""
        if isinstance(value, (list, tuple, set, dict, str)):
            self.tick(_weight(value))
        elif isinstance(value, int) and value.bit_length() > BITS:
            raise ExpressionError("a number too large")
        elif isinstance(value, complex):
            raise ExpressionError("a complex number")
        return value

    def iterate(self, value: Any) -> Iterator[Any]:
        """Items of a container or iterator, one step each."""
        if isinstance(value, Lazy):
            source: Any = value.items
        elif isinstance(value, (list, tuple, set, dict, str, range)):
            source = iter(value)
        else:
            raise ExpressionError(f"a {type(value).__name__} cannot be iterated")
        for item in source:
            self.tick()
            yield item

    def gathered(self, items: Iterator[Any]) -> list[Any]:
        """All items, or an error when there are too many."""
        made = []
        for item in items:
            made.append(item)
            if len(made) > SIZE:
                raise ExpressionError("a container too large")
        return made

    def listed(self, value: Any) -> list[Any]:
        """The items of a value as a list."""
        return self.gathered(self.iterate(value))

    def text(self, value: Any) -> str:
        """The value, which must be a string."""
        if not isinstance(value, str):
            raise ExpressionError(f"a {type(value).__name__} where text is wanted")
        return value


def _weight(value: Any) -> int:
    """Items in a value with everything inside; stops as soon as it is too heavy (values may share parts)."""
    total, stack = 0, [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            total += len(one)
            stack.extend(one.keys())
            stack.extend(one.values())
        elif isinstance(one, (list, tuple, set)):
            total += len(one)
            stack.extend(one)
        elif isinstance(one, Lazy) or callable(one):
            raise ExpressionError("a function or iterator inside a value")
        if total > SIZE:
            raise ExpressionError("a value too large")
    return total


# ---- operators --------------------------------------------------------------------------------------------

Binary = Callable[[Machine, Any, Any], Any]
_NUMBER = (bool, int, float)


def check_numbers(a: Any, b: Any) -> None:
    """Refuse arithmetic on anything but numbers."""
    if not (isinstance(a, _NUMBER) and isinstance(b, _NUMBER)):
        raise ExpressionError(f"arithmetic on {type(a).__name__} and {type(b).__name__}")


def _whole(a: Any, b: Any) -> None:
    if not (isinstance(a, int) and isinstance(b, int)):
        raise ExpressionError(f"bits of {type(a).__name__} and {type(b).__name__}")


def add(machine: Machine, a: Any, b: Any) -> Any:
    """`a + b` of numbers, or of two texts, lists or tuples."""
    if type(a) is type(b) and isinstance(a, (str, list, tuple)):
        if len(a) + len(b) > SIZE:
            raise ExpressionError("a value too large")
        return a + b
    check_numbers(a, b)
    return a + b


def _subtract(machine: Machine, a: Any, b: Any) -> Any:
    if isinstance(a, set) and isinstance(b, set):
        return a - b
    check_numbers(a, b)
    return a - b


def _multiply(machine: Machine, a: Any, b: Any) -> Any:
    for many, times in ((a, b), (b, a)):
        if isinstance(many, (str, list, tuple)) and isinstance(times, int):
            if len(many) * max(times, 0) > SIZE:
                raise ExpressionError("a value too large")
            return many * times
    check_numbers(a, b)
    return a * b


def power(machine: Machine, a: Any, b: Any) -> Any:
    """`a ** b`, if the result fits."""
    check_numbers(a, b)
    if (
        isinstance(a, int)
        and isinstance(b, int)
        and b > 0
        and max(a.bit_length(), 1) * b > BITS
        and abs(a) > 1
    ):
        raise ExpressionError("a number too large")
    if isinstance(a, int) and isinstance(b, int) and b < 0 and a.bit_length() * -b > BITS:
        raise ExpressionError("a number too small")
    return a**b


def _shift_left(machine: Machine, a: Any, b: Any) -> Any:
    _whole(a, b)
    if b > BITS:
        raise ExpressionError("a number too large")
    return a << b


def _plain(function: Callable[[Any, Any], Any], check: Callable[[Any, Any], None]) -> Binary:
    def apply(machine: Machine, a: Any, b: Any) -> Any:
        check(a, b)
        return function(a, b)

    return apply


def _bits(function: Callable[[Any, Any], Any]) -> Binary:
    def apply(machine: Machine, a: Any, b: Any) -> Any:
        if not (isinstance(a, set) and isinstance(b, set)):
            _whole(a, b)
        return function(a, b)

    return apply


BINARY: dict[type[ast.operator], Binary] = {
    ast.Add: add,
    ast.Sub: _subtract,
    ast.Mult: _multiply,
    ast.Pow: power,
    ast.Div: _plain(operator.truediv, check_numbers),
    ast.FloorDiv: _plain(operator.floordiv, check_numbers),
    ast.Mod: _plain(operator.mod, check_numbers),
    ast.LShift: _shift_left,
    ast.RShift: _plain(operator.rshift, _whole),
    ast.BitAnd: _bits(operator.and_),
    ast.BitOr: _bits(operator.or_),
    ast.BitXor: _bits(operator.xor),
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}


def _inside(machine: Machine, a: Any, b: Any) -> bool:
    if isinstance(b, (list, tuple, set, dict, str)) or (isinstance(b, range) and isinstance(a, int)):
        machine.tick(len(b) if not isinstance(b, range) else 1)
        return a in b
    return any(a == item for item in machine.iterate(b))


def _same_object(a: Any, b: Any) -> bool:
    if not any(one is None or isinstance(one, bool) for one in (a, b)):
        raise ExpressionError("'is' between values other than None, True and False")
    return a is b


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Machine, Any, Any], bool]:
    def apply(machine: Machine, a: Any, b: Any) -> bool:
        machine.weigh(a)
        return bool(function(a, b))

    return apply


COMPARE: dict[type[ast.cmpop], Callable[[Machine, Any, Any], bool]] = {
    ast.Eq: _comparison(operator.eq),
    ast.NotEq: _comparison(operator.ne),
    ast.Lt: _comparison(operator.lt),
    ast.LtE: _comparison(operator.le),
    ast.Gt: _comparison(operator.gt),
    ast.GtE: _comparison(operator.ge),
    ast.In: _inside,
    ast.NotIn: lambda machine, a, b: not _inside(machine, a, b),
    ast.Is: lambda machine, a, b: _same_object(a, b),
    ast.IsNot: lambda machine, a, b: not _same_object(a, b),
}
