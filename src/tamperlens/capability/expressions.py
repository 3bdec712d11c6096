"""A small evaluator for Python expressions, written on `ast` nodes: model text is read, never run.

Only the node types, operators, functions and methods listed here exist. Every step, every container and
every integer is bounded, so that `10 ** 10 ** 10`, `[0] * 10 ** 9` or a comprehension over a huge range ends
at once with an error instead of taking the machine. There is no attribute access: a method name is looked up
in a table by the type of its object.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tamperlens.base.errors import InputError
from tamperlens.capability.functions import FUNCTIONS, METHODS, STRING_METHODS
from tamperlens.capability.operations import BINARY, COMPARE, STEPS, UNARY, ExpressionError, Lazy, Machine

__all__ = ["ExpressionError", "Function", "evaluate", "parse_function"]

TEXT, NODES, DEPTH, CALLS = 2_000, 500, 60, 40
_FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, MemoryError)
# Every node type that can be evaluated; `_Evaluator` has one method for each, named after it.
_ALLOWED = (
    ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.Dict, ast.DictComp,
    ast.GeneratorExp, ast.IfExp, ast.JoinedStr, ast.Lambda, ast.List, ast.ListComp, ast.Name, ast.Set,
    ast.SetComp, ast.Subscript, ast.Tuple, ast.UnaryOp,
)  # fmt: skip


class Function(NamedTuple):
    """A parsed function of one expression; call it with `evaluate`.

    Attributes:
        parameters: names of its positional parameters.
        body: the expression that it returns.
        defaults: expressions for its last parameters.
        text: what was parsed.
    """

    parameters: tuple[str, ...]
    body: ast.expr
    defaults: tuple[ast.expr, ...] = ()
    text: str = ""


def parse_function(text: str, parameters: Sequence[str] = ()) -> Function:
    """Read a lambda, `name = lambda ...`, `def f(...): return ...`, or a bare expression of `parameters`.

    Raises:
        ExpressionError: not such a text, longer than 2,000 characters, nested too deeply, or it uses syntax
            that the evaluator does not have.
    """
    if len(text) > TEXT:
        raise ExpressionError(f"longer than {TEXT} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"does not parse as Python ({type(error).__name__})") from error
    _check_size(tree)
    body = [part for part in tree.body if not _is_docstring(part)]
    if len(body) != 1:
        raise ExpressionError(f"{len(body)} statements where one is wanted")
    only = body[0]
    if isinstance(only, ast.FunctionDef) and not only.decorator_list:
        inner = [part for part in only.body if not _is_docstring(part)]
        if len(inner) != 1 or not isinstance(inner[0], ast.Return) or inner[0].value is None:
            raise ExpressionError("a function whose body is more than one return")
        return Function(_parameters(only.args), inner[0].value, tuple(only.args.defaults), text)
    if isinstance(only, ast.Assign) and len(only.targets) == 1 and isinstance(only.targets[0], ast.Name):
        value: ast.expr = only.value
    elif isinstance(only, ast.Expr):
        value = only.value
    else:
        raise ExpressionError(f"a {type(only).__name__} statement where a function is wanted")
    if isinstance(value, ast.Lambda):
        return Function(_parameters(value.args), value.body, tuple(value.args.defaults), text)
    return Function(tuple(parameters), value, (), text)


def evaluate(function: Function, arguments: Sequence[Any], *, steps: int = STEPS) -> Any:
    """The value of a parsed function for these arguments.

    Args:
        function: from `parse_function`.
        arguments: numbers, strings, lists, tuples, dicts or sets; they are not changed.
        steps: evaluation steps allowed.

    Raises:
        ExpressionError: the expression fails, uses something that the evaluator does not have, or exceeds
            its bounds.
    """
    evaluator = _Evaluator(steps)
    try:
        closure = _Closure(evaluator, function.parameters, function.body, function.defaults, {})
        value = closure(*arguments)
        return evaluator.finished(value)
    except ExpressionError:
        raise
    except _FAILURES as error:
        raise ExpressionError(f"{type(error).__name__}: {error}") from error


def literal(text: str) -> Any:
    """The value of a constant expression such as `[1, 2], "a"`.

    Raises:
        InputError: it is not one.
    """
    try:
        return evaluate(parse_function(text), ())
    except ExpressionError as error:
        raise InputError(f"{text!r:.80} is not a constant expression: {error}") from error


def _check_size(tree: ast.AST) -> None:
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > NODES or depth > DEPTH:
            raise ExpressionError("too large or too deeply nested")
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _is_docstring(part: ast.stmt) -> bool:
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise ExpressionError("starred or keyword-only parameters")
    return tuple(one.arg for one in [*arguments.posonlyargs, *arguments.args])


class _Closure:
    """A lambda with the variables that it saw."""

    def __init__(
        self,
        evaluator: _Evaluator,
        parameters: tuple[str, ...],
        body: ast.expr,
        defaults: Sequence[ast.expr],
        scope: Mapping[str, Any],
    ) -> None:
        self.evaluator, self.parameters, self.body, self.scope = evaluator, parameters, body, scope
        self.defaults = [evaluator.visit(one, scope) for one in defaults]

    def __call__(self, *arguments: Any) -> Any:
        missing = len(self.parameters) - len(arguments)
        if missing < 0 or missing > len(self.defaults):
            raise ExpressionError(f"takes {len(self.parameters)} arguments, got {len(arguments)}")
        values = [*arguments, *(self.defaults[-missing:] if missing else ())]
        evaluator = self.evaluator
        evaluator.calls += 1
        if evaluator.calls > CALLS:
            raise ExpressionError("calls nested too deeply")
        try:
            bound = dict(zip(self.parameters, values, strict=True))
            return evaluator.visit(self.body, {**self.scope, **bound})
        finally:
            evaluator.calls -= 1


class _Evaluator(Machine):
    """Walks the tree; one method per node type, and nothing else exists."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.calls = 0

    def visit(self, node: ast.AST, scope: Mapping[str, Any]) -> Any:
        self.tick()
        if not isinstance(node, _ALLOWED):
            raise ExpressionError(f"{type(node).__name__} is not allowed")
        method: Callable[[ast.AST, Mapping[str, Any]], Any] = getattr(self, f"_{type(node).__name__.lower()}")
        return method(node, scope)

    def finished(self, value: Any) -> Any:
        """The value if it is plain data; functions and unfinished iterators are not."""
        if isinstance(value, Lazy) or callable(value):
            raise ExpressionError("gives a function or an iterator, not a value")
        self.weigh(value)
        return value

    # ---- values -----------------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant, scope: Mapping[str, Any]) -> Any:
        if node.value is not None and not isinstance(node.value, (bool, int, float, str)):
            raise ExpressionError(f"a {type(node.value).__name__} constant is not allowed")
        return self.weigh(node.value)

    def _name(self, node: ast.Name, scope: Mapping[str, Any]) -> Any:
        if node.id in scope:
            return scope[node.id]
        if node.id in FUNCTIONS:
            function = FUNCTIONS[node.id]
            return lambda *args, **named: function(self, *args, **named)
        raise ExpressionError(f"the name {node.id!r} is not defined here")

    def _list(self, node: ast.List, scope: Mapping[str, Any]) -> Any:
        return self.weigh(self._items(node.elts, scope))

    def _tuple(self, node: ast.Tuple, scope: Mapping[str, Any]) -> Any:
        return self.weigh(tuple(self._items(node.elts, scope)))

    def _set(self, node: ast.Set, scope: Mapping[str, Any]) -> Any:
        return self.weigh(set(self._items(node.elts, scope)))

    def _items(self, nodes: Sequence[ast.expr], scope: Mapping[str, Any]) -> list[Any]:
        values: list[Any] = []
        for one in nodes:
            if isinstance(one, ast.Starred):
                values.extend(self.listed(self.visit(one.value, scope)))
            else:
                values.append(self.visit(one, scope))
        return values

    def _dict(self, node: ast.Dict, scope: Mapping[str, Any]) -> Any:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise ExpressionError("** in a dict is not allowed")
            made[self.visit(key, scope)] = self.visit(value, scope)
        return self.weigh(made)

    def _joinedstr(self, node: ast.JoinedStr, scope: Mapping[str, Any]) -> str:
        parts = []
        for one in node.values:
            if isinstance(one, ast.FormattedValue):
                if one.format_spec is not None or one.conversion not in (-1, 115):
                    raise ExpressionError("a format specification is not allowed")
                parts.append(FUNCTIONS["str"](self, self.visit(one.value, scope)))
            else:
                parts.append(self.visit(one, scope))
        return str(self.weigh("".join(parts)))

    # ---- operators --------------------------------------------------------------------------------------

    def _binop(self, node: ast.BinOp, scope: Mapping[str, Any]) -> Any:
        operation = BINARY.get(type(node.op))
        if operation is None:
            raise ExpressionError(f"the operator {type(node.op).__name__} is not allowed")
        return self.weigh(operation(self, self.visit(node.left, scope), self.visit(node.right, scope)))

    def _unaryop(self, node: ast.UnaryOp, scope: Mapping[str, Any]) -> Any:
        value = self.visit(node.operand, scope)
        if not isinstance(node.op, ast.Not) and not isinstance(value, (bool, int, float)):
            raise ExpressionError("a sign before something that is no number")
        return UNARY[type(node.op)](value)

    def _boolop(self, node: ast.BoolOp, scope: Mapping[str, Any]) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for one in node.values:
            value = self.visit(one, scope)
            if bool(value) is stop:
                return value
        return value

    def _compare(self, node: ast.Compare, scope: Mapping[str, Any]) -> bool:
        left = self.visit(node.left, scope)
        for operator, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.visit(right_node, scope)
            if not COMPARE[type(operator)](self, left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp, scope: Mapping[str, Any]) -> Any:
        return self.visit(node.body if self.visit(node.test, scope) else node.orelse, scope)

    def _subscript(self, node: ast.Subscript, scope: Mapping[str, Any]) -> Any:
        value = self.visit(node.value, scope)
        if not isinstance(value, (str, list, tuple, dict, range)):
            raise ExpressionError(f"a {type(value).__name__} cannot be indexed")
        if isinstance(node.slice, ast.Slice):
            if isinstance(value, dict):
                raise ExpressionError("a dict cannot be sliced")
            bounds = [
                None if part is None else self.visit(part, scope)
                for part in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return self.weigh(value[slice(*bounds)])
        return value[self.visit(node.slice, scope)]

    # ---- functions --------------------------------------------------------------------------------------

    def _lambda(self, node: ast.Lambda, scope: Mapping[str, Any]) -> Any:
        return _Closure(self, _parameters(node.args), node.body, node.args.defaults, scope)

    def _call(self, node: ast.Call, scope: Mapping[str, Any]) -> Any:
        arguments = self._items(node.args, scope)
        named: dict[str, Any] = {}
        for one in node.keywords:
            if one.arg is None:
                raise ExpressionError("** in a call is not allowed")
            named[one.arg] = self.visit(one.value, scope)
        if isinstance(node.func, ast.Attribute) and not self._is_str_type(node.func.value, scope):
            value = self.visit(node.func.value, scope)
            method = METHODS.get((type(value), node.func.attr))
            if method is None:
                raise ExpressionError(f"no method {node.func.attr!r} for a {type(value).__name__}")
            return self.weigh(method(self, value, *arguments, **named))
        function = self.visit(node.func, scope)
        if not callable(function):
            raise ExpressionError(f"a {type(function).__name__} is not a function")
        return self.weigh(function(*arguments, **named))

    def _attribute(self, node: ast.Attribute, scope: Mapping[str, Any]) -> Any:
        """Only `str.upper` and its like, as a function to map or sort with."""
        if self._is_str_type(node.value, scope) and node.attr in STRING_METHODS:
            method = METHODS[(str, node.attr)]
            return lambda value, *rest: method(self, self.text(value), *rest)
        raise ExpressionError(f"the attribute {node.attr!r} is not allowed")

    def _is_str_type(self, node: ast.expr, scope: Mapping[str, Any]) -> bool:
        return isinstance(node, ast.Name) and node.id == "str" and "str" not in scope

    # ---- comprehensions ---------------------------------------------------------------------------------

    def _listcomp(self, node: ast.ListComp, scope: Mapping[str, Any]) -> Any:
        return self.weigh(self.gathered(self._loop(node.generators, node.elt, scope)))

    def _setcomp(self, node: ast.SetComp, scope: Mapping[str, Any]) -> Any:
        return self.weigh(set(self.gathered(self._loop(node.generators, node.elt, scope))))

    def _dictcomp(self, node: ast.DictComp, scope: Mapping[str, Any]) -> Any:
        pair = ast.Tuple([node.key, node.value], ast.Load())
        return self.weigh(dict(self.gathered(self._loop(node.generators, pair, scope))))

    def _generatorexp(self, node: ast.GeneratorExp, scope: Mapping[str, Any]) -> Any:
        return Lazy(self._loop(node.generators, node.elt, scope))

    def _loop(
        self, loops: Sequence[ast.comprehension], element: ast.expr, scope: Mapping[str, Any]
    ) -> Iterator[Any]:
        if not loops:
            yield self.visit(element, scope)
            return
        head = loops[0]
        if head.is_async:
            raise ExpressionError("async is not allowed")
        for value in self.iterate(self.visit(head.iter, scope)):
            inner = {**scope, **self._bind(head.target, value)}
            if all(self.visit(test, inner) for test in head.ifs):
                yield from self._loop(loops[1:], element, inner)

    def _bind(self, target: ast.expr, value: Any) -> dict[str, Any]:
        if isinstance(target, ast.Name):
            return {target.id: value}
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = self.listed(value)
            if len(parts) != len(target.elts):
                raise ExpressionError(f"cannot unpack {len(parts)} values into {len(target.elts)} names")
            bound: dict[str, Any] = {}
            for one, part in zip(target.elts, parts, strict=True):
                bound |= self._bind(one, part)
            return bound
        raise ExpressionError("a loop variable that is no name")
