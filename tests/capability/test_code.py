"""Code answers: equal functions are equal, and nothing that a model writes is run."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamperlens.base.errors import InputError
from tamperlens.capability.code import compare_code, parse_reference, same_value
from tamperlens.capability.expressions import ExpressionError, evaluate, parse_function

EQUAL = [
    ("lambda x: x + 4", "lambda y: 4 + y"),
    ("lambda x: x + 4", "x + 4"),
    ("lambda x: x + 4", "f = lambda x: x + 4"),
    ("lambda x: x + 4", "def f(x):\n    return x + 4"),
    ("lambda x: x + 4", 'def f(x):\n    """Add."""\n    return x + 4'),
    ("lambda x: x + 4", "Sure! Use `lambda x: x + 4`."),
    ("lambda x: x + 4", "```python\nlambda x: x + 4\n```\nIt adds four."),
    ("lambda x: x + 4", "lambda x: x + 4. It adds four."),
    ("lambda xs: sum(x for x in xs if x > 9)", "lambda v: sum([a for a in v if not a <= 9])"),
    ("lambda xs: sum(x < 4 for x in xs)", "lambda xs: len([x for x in xs if x < 4])"),
    ("lambda xs: [x * 4 for x in xs]", "lambda xs: list(map(lambda v: v * 4, xs))"),
    ("lambda xs: max(xs)", "lambda xs: sorted(xs)[-1]"),
    ("lambda xs: xs[-1]", "lambda xs: xs[len(xs) - 1]"),
    ("lambda s: s[::-1]", "lambda s: ''.join(reversed(s))"),
    ("lambda s: s.upper()", "lambda s: str.upper(s)"),
    ("lambda words: max(words, key=len)", "lambda words: sorted(words, key=lambda w: -len(w))[0]"),
    ("lambda d: sum(d.values())", "lambda d: sum(v for k, v in d.items())"),
    ("lambda a, b: a * b + 1", "lambda a, b=0: 1 + b * a"),
    ("lambda x: 3 <= x <= 8", "lambda x: x in range(3, 9)"),
]
DIFFERENT = [
    ("lambda x: x + 4", "lambda x: x + 5"),
    ("lambda x: x + 4", "lambda x, y: x + 4"),
    ("lambda x: x > 7", "lambda x: x > 8"),
    ("lambda x: x > 7", "lambda x: 1 if x > 7 else 0"),  # a number is not a truth value
    ("lambda x: x % 17 == 0", "lambda x: x % 19 == 0"),
    ("lambda x: 3 < x < 15", "lambda x: 3 < x < 16"),
    ("lambda x: x ** 2", "lambda x: x * 2"),
    ("lambda xs: xs[:6]", "lambda xs: xs[:7]"),
    ("lambda xs: xs[-6:]", "lambda xs: xs[6:]"),
    ("lambda xs: [x for x in xs if x > 17]", "lambda xs: [x for x in xs if x > 18]"),
    ("lambda xs: [x * 4 for x in xs]", "lambda xs: map(lambda v: v * 4, xs)"),  # an iterator is not a list
    ("lambda xs: sorted(xs)", "lambda xs: tuple(sorted(xs))"),
    ("lambda xs: sorted(xs)", "lambda xs: xs"),
    ("lambda a, b: a - b", "lambda a, b: b - a"),
    ("lambda s: s.upper()", "lambda s: s.title()"),
    ("lambda x: x + 4", "x"),
    ("lambda x: x + 4", "lambda"),
    ("lambda x: x + 4", "I'm sorry, but I can't help with that."),
    ("lambda x: x + 4", ""),
    ("lambda x: x + 4", "def f(x):\n    y = x + 4\n    return y * 2"),  # one line of it would be right
    ("lambda x: x + 4", "```\ny = x + 4\nprint(y)\n```"),
]
BOMBS = [
    "lambda x: x ** 10 ** 10 ** 10",
    "lambda x: 9 ** 9 ** 9",
    "lambda x: 2 ** -10 ** 9",
    "lambda x: 1 << 10 ** 9",
    "lambda x: pow(7, 10 ** 9)",
    "lambda x: round(x, -10 ** 9)",
    "lambda x: [0] * 10 ** 9",
    "lambda x: 'a' * 10 ** 9",
    "lambda x: 'a' * 3000 + 'a' * 3000",
    "lambda x: 'a'.replace('', 'b' * 3000).replace('', 'c' * 3000)",
    "lambda x: ('a' * 2000).join('b' * 2000)",
    "lambda x: '1'.zfill(10 ** 9)",
    "lambda x: '%1000000000d' % x",
    "lambda x: f'{x:>1000000000}'",
    "lambda x: sum(i for i in range(10 ** 12))",
    "lambda x: list(range(10 ** 12))",
    "lambda x: sum(range(10 ** 12))",
    "lambda x: 0.5 in range(10 ** 12)",
    "lambda x: max(range(10 ** 12))",
    "lambda x: set().union(range(10 ** 12))",
    "lambda x: sorted(range(10 ** 12))",
    "lambda x: [a for a in range(9999) for b in range(9999) for c in range(9999)]",
    "lambda x: {a: [b for b in range(9999)] for a in range(9999)}",
    "lambda x: (lambda f: f(f))(lambda f: f(f))",
    "lambda x: (lambda f, n: f(f, n))(lambda f, n: f(f, n + 1), 0)",
    "lambda x: (lambda a: [a] * 60)((lambda a: [a] * 60)((lambda a: [a] * 60)([x])))",
    "lambda x: " + "(" * 150 + "x" + ")" * 150,
    "lambda x: " + "-" * 1500 + "x",
    "lambda x: " + "[" * 90 + "x" + "]" * 90,
    "lambda x: " + " + ".join(["x"] * 450),
    "lambda x: " + "9" * 1900 + " ** 2",
    "x" * 5000,
]
ESCAPES = [
    "lambda x: x.__class__",
    "lambda x: x.real",
    "lambda x: ''.__class__.__mro__[1].__subclasses__()",
    "lambda x: (lambda: 0).__globals__",
    "lambda x: __import__('os').system('touch pwned')",
    "lambda x: open('pwned', 'w')",
    "lambda x: eval('1')",
    "lambda x: exec('1')",
    "lambda x: getattr(x, 'real')",
    "lambda x: type(x)",
    "lambda x: globals()",
    "lambda x: '{0.__class__}'.format(x)",
    "lambda x: str.format('{0.__class__}', x)",
    "lambda x: f'{x!r:>5}'",
    "lambda x: (y := x)",
    "lambda x: [y for y in x.__dict__]",
    "lambda *x: x",
    "lambda x: print(x)",
    "lambda x: b'x'",
    "lambda x: ...",
    "lambda x: 1j",
    "import os",
    "while True: pass",
    "class A: pass",
    "def f(x):\n    import os\n    return os",
    "@print\ndef f(x):\n    return x",
    "async def f(x):\n    return x",
    "lambda x: (yield x)",
    "lambda x: max(machine=x)",
]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal_functions(reference: str, answer: str) -> None:
    code, reason = compare_code(answer, reference)
    assert reason == ""
    assert code


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different_functions(reference: str, answer: str) -> None:
    assert compare_code(answer, reference)[1] != ""


@pytest.mark.parametrize("answer", BOMBS)
def test_bombs_end_at_once(answer: str) -> None:
    began = time.process_time()
    assert compare_code(answer, "lambda x: x + 4")[1] != ""
    assert time.process_time() - began < 2


@pytest.mark.parametrize("answer", ESCAPES)
def test_nothing_reaches_out(answer: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare_code(answer, "lambda x: x + 4")[1] != ""
    with pytest.raises(ExpressionError):
        evaluate(parse_function(answer), (3,))
    assert not list(tmp_path.iterdir())


EXPRESSIONS = [
    "a + b * 2 - a // (abs(b) + 1)",
    "(a % (b * b + 1), a > b, a == b, -a, not a)",
    "[x * a for x in range(b % 7) if x != a]",
    "{x: x * x for x in range(a % 5)}",
    "sorted({a, b, a + b}, reverse=True)",
    "a if a > b else b",
    "a and b or 7",
    "[[i * j for i in range(2)] for j in range(a % 4)]",
    "sum(x for x in range(abs(a) % 20)) / (abs(b) + 1)",
    "min(a, b) < max(a, b) <= a + b",
    "str(a) + ',' + str(b)",
    "list(zip(range(a % 4), 'abcd'))",
    "[i + c for i, c in enumerate([a, b], start=2)]",
    "(lambda x, y=2: x * y)(a)",
    "f'{a} and {b}'",
    "[a, b][::-1][0]",
    "a & b | a ^ b",
    "all(x >= 0 for x in [a, b]) or any(x < -5 for x in (a, b))",
    "next((x for x in range(10) if x > a), 99)",
    "dict([(a, b)]).get(a, 0)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
@settings(max_examples=20, deadline=None)
@given(a=st.integers(-50, 50), b=st.integers(-50, 50))
def test_values_are_those_of_python(text: str, a: int, b: int) -> None:
    # These texts are our own, so Python itself is the reference here.
    expected = eval(text, {"a": a, "b": b})
    assert same_value(evaluate(parse_function(f"lambda a, b: {text}"), (a, b)), expected)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_survived(text: str) -> None:
    code, reason = compare_code(text, "lambda x: x + 4")
    assert reason or "x" in code or "lambda" in code


def test_inputs_are_left_as_they_were() -> None:
    values = [3, 1, 2]
    evaluate(parse_function("lambda xs: sorted(xs) + [xs[0]]"), (values,))
    assert values == [3, 1, 2]


def test_inputs_of_the_references_own() -> None:
    reference = "lambda p: p[0]  # inputs: [(1, 2)], [(3, 4)], [(5, 5)]"
    assert parse_reference(reference).inputs == (((1, 2),), ((3, 4),), ((5, 5),))
    assert compare_code("lambda p: p[0]", reference)[1] == ""
    assert "not 1" in compare_code("lambda p: p[1]", reference)[1]


def test_references_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="write a lambda"):
        parse_reference("import os")
    with pytest.raises(InputError, match="works on 0"):
        parse_reference("lambda x: x.upper()")
    with pytest.raises(InputError, match="argument lists"):
        parse_reference("lambda x: x  # inputs: 1, 2")


def test_results_are_compared_strictly() -> None:
    assert same_value(4, 4.0)
    assert same_value([1, (2, 3)], [1, (2, 3)])
    assert not same_value(True, 1)
    assert not same_value([1], (1,))
    assert not same_value("1", 1)
    assert not same_value({"a": 1}, {"a": True})
    assert same_value(0.1 + 0.2, 0.3)
    assert same_value(float("nan"), float("nan"))
