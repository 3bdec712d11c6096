"""Does a Python answer do what the reference does? Parsed and evaluated on inputs, never executed."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tamperlens.base.errors import InputError
from tamperlens.capability.expressions import ExpressionError, Function, evaluate, literal, parse_function

# Inputs by what a parameter is called, unless the reference brings its own (see `parse_reference`).
_INTEGERS = [*range(-12, 46), 60, 99, 100, 101, 365, 1000]
_NATURALS = [*range(0, 31), 50, 99, 100]
_LISTS = [
    [3, 1, 2], list(range(1, 11)), list(range(25, -8, -1)), [5, 12, 7, 9, 4, 20, 1], [10, -4, 6, 8, 15, 2, 3],
    [7, 7, 3, 3, 7], [-4, -1, -9], [5], [0], [2, 1], [100, 50, 25], [12, 5, 19, 8, 1, 17, 16, 18], [],
    [1, 2, 2, 1], [-3, 3, 0, -8, 8], [11, 13, 14, 22, 21, 6, 10],
]  # fmt: skip
_STRINGS = [
    "hello",
    "Hello World",
    "level",
    "a",
    "",
    "Ab12 c",
    "  padded  ",
    "one two three",
    "BANANA",
    "x-y-z",
    "noon",
]
_WORDS = [
    ["pear", "fig", "apple"], ["Tree", "sky", "Bee", "ant"], ["a"], [], ["aa", "b", "cccc", "dd"],
    ["Noon", "level", "cat"], ["x", "x", "y"], ["one", "", "three"],
]  # fmt: skip
_DICTS = [{"a": 1, "b": 2}, {"x": 5}, {}, {"b": 3, "a": 3, "c": -1}]
_POOLS: dict[str, list[Any]] = {
    **dict.fromkeys(
        ("xs", "ys", "zs", "nums", "numbers", "values", "items", "lst", "data", "scores"), _LISTS
    ),
    **dict.fromkeys(("words", "names", "strings", "lines"), _WORDS),
    **dict.fromkeys(("s", "t", "text", "word", "name", "string", "sentence"), _STRINGS),
    **dict.fromkeys(("n", "k", "count", "year", "age", "minutes", "seconds"), _NATURALS),
    **dict.fromkeys(("d", "mapping", "table"), _DICTS),
}
MOST, LEAST = 64, 3
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)(?:```|$)", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


class Reference(NamedTuple):
    """A reference function with the inputs on which answers are compared.

    Attributes:
        function: the parsed reference.
        inputs: argument lists.
        outputs: what the reference gives for each.
    """

    function: Function
    inputs: tuple[tuple[Any, ...], ...]
    outputs: tuple[Any, ...]


@functools.lru_cache(maxsize=4096)
def parse_reference(text: str) -> Reference:
    """Read a reference such as `lambda x: x + 1` or `lambda p: p[0]  # inputs: [(1, 2)], [(3, 4)]`.

    After `# inputs:` stand argument lists, one per call. Without them the parameter names decide: `xs`,
    `nums`, `items` are lists of integers, `words`, `names` lists of text, `s`, `text`, `word` text, `n`, `k`
    natural numbers, `d` a dict, any other name integers. Inputs on which the reference fails are left out.

    Raises:
        InputError: the reference cannot be evaluated, or on fewer than three inputs.
    """
    source, _, given = text.partition("# inputs:")
    try:
        function = parse_function(source)
    except ExpressionError as error:
        raise InputError(
            f"the reference {source.strip()!r} {error}; write a lambda of one expression"
        ) from error
    rows = _given(given) if given.strip() else _by_name(function.parameters)
    inputs, outputs = [], []
    for row in rows:
        try:
            outputs.append(evaluate(function, row))
            inputs.append(tuple(row))
        except ExpressionError:
            continue
    if len(inputs) < min(LEAST, len(rows)) or not inputs:
        raise InputError(
            f"the reference {source.strip()!r} works on {len(inputs)} of {len(rows)} inputs; add a comment "
            "such as '# inputs: [1, 2], [3, 4]' with arguments that it takes"
        )
    return Reference(function, tuple(inputs), tuple(outputs))


def compare_code(response: str, reference: str) -> tuple[str, str]:
    """Compare the code in an answer with a reference.

    The first piece of the answer that parses as one function counts: a fenced block, code in backticks, the
    whole text, a line, or what follows "lambda" in a line.

    Returns:
        (the code that was read, why it is wrong); the second is empty when it is right.
    """
    expected = parse_reference(reference)
    reasons = []
    for piece in _pieces(response):
        try:
            function = parse_function(piece, expected.function.parameters)
        except ExpressionError as error:
            reasons.append(str(error))
            continue
        if not _is_code(piece, expected.function.parameters):
            continue
        return piece, _disagreement(function, expected)
    return "", reasons[0] if reasons else "no code found"


def same_value(a: Any, b: Any) -> bool:
    """Whether two results are equal: True is not 1 and a tuple is not a list, but 4.0 is 4."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        try:
            close = abs(a - b) <= 1e-9 * max(abs(a), abs(b))
        except OverflowError:
            return a == b
        return a == b or close or (a != a and b != b)
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_value(a[key], b[key]) for key in a)
    return bool(a == b)


def _disagreement(function: Function, expected: Reference) -> str:
    wanted = len(expected.function.parameters)
    most, least = len(function.parameters), len(function.parameters) - len(function.defaults)
    if not least <= wanted <= most:
        return f"takes {most} arguments, not {wanted}"
    for arguments, output in zip(expected.inputs, expected.outputs, strict=True):
        shown = ", ".join(f"{one!r:.40}" for one in arguments)
        try:
            value = evaluate(function, arguments)
        except ExpressionError as error:
            return f"fails for {shown}: {error}"
        if not same_value(value, output):
            return f"gives {value!r:.40} for {shown}, not {output!r:.40}"
    return ""


def _pieces(response: str) -> Iterator[str]:
    """Parts of an answer that may be its code, most explicit first.

    Lines are taken by themselves only for a lambda: one line of a longer function is not what it does.
    """
    text = response.strip()
    blocks = [block.strip() for block in _FENCE.findall(text)] if "```" in text else []
    yield from blocks
    if not blocks:
        yield from (one.strip() for one in _INLINE.findall(text))
    yield text
    if re.search(r"^\s*def\b", text, re.MULTILINE):
        return
    for line in text.splitlines():
        at = line.find("lambda")
        if at >= 0:
            yield line.strip()
        while at >= 0:
            # Prose may follow ("lambda x: x + 1. It adds one."): the longest beginning that parses.
            rest = line[at:].rstrip(" .`")
            yield rest
            ends = {match.start() for match in re.finditer(r"[.,;]\s|\s\(|\s#", rest)}
            for cut in sorted(ends, reverse=True)[:8]:
                yield rest[:cut]
            at = line.find("lambda", at + 6)


def _is_code(piece: str, parameters: tuple[str, ...]) -> bool:
    """A bare word or number parses as Python too; code mentions a parameter or is a function."""
    if re.search(r"\blambda\b|^\s*def\b", piece):
        return True
    return (
        any(re.search(rf"\b{re.escape(name)}\b", piece) for name in parameters) and not piece.isidentifier()
    )


def _given(text: str) -> list[list[Any]]:
    value = literal(f"[{text.strip()}]")
    if not value or not all(isinstance(row, list) for row in value):
        raise InputError(f"inputs {text.strip()!r:.60} must be argument lists such as [1, 2], [3, 4]")
    return [list(row) for row in value]


def _by_name(parameters: tuple[str, ...]) -> list[list[Any]]:
    pools = [_POOLS.get(name, _INTEGERS) for name in parameters]
    if not pools:
        return [[]]
    if len(pools) == 1:
        return [[value] for value in pools[0]]
    # Steps that share no factor with the pool's length meet many different pairs.
    rows = []
    for i in range(MOST):
        rows.append([pool[(i * (2 * j + 1) + 3 * j) % len(pool)] for j, pool in enumerate(pools)])
    return rows
