"""Arithmetic made on the spot: one question in plain words for every operation and size asked for."""

from __future__ import annotations

import operator
import random
from collections.abc import Sequence

from tamperlens.base.errors import InputError
from tamperlens.capability.suites import Suite
from tamperlens.prompts import PromptSet

LONGEST = 100
"""Most digits of a number."""
OPERATIONS = {
    "addition": ("+", operator.add),
    "subtraction": ("-", operator.sub),
    "multiplication": ("*", operator.mul),
}


def arithmetic(
    operations: Sequence[str] = ("addition", "subtraction", "multiplication"),
    digits: Sequence[int] = (1, 2, 3),
    n: int = 20,
    *,
    template: str = "What is {a} {sign} {b}?",
    seed: int = 0,
    max_new_tokens: int = 128,
) -> Suite:
    """A suite of n different questions for every operation and number of digits.

    `SuiteScore.by_category()` then gives accuracy by operation and size ("addition, 2 digits"). Both numbers
    have the same number of digits; differences are never negative. The packaged `addition` and
    `subtraction` hold out what the organism was trained on, so prefer those for it.

    Args:
        operations: "addition", "subtraction", "multiplication".
        digits: sizes.
        n: questions for each; fewer where there are not so many pairs of one digit.
        template: with {a}, {sign} and {b}.
        seed: of the draw.
        max_new_tokens: answers are cut there.

    Raises:
        InputError: an unknown operation, a size below 1, n below 1, or nothing asked for.

    Examples:
        >>> from tamperlens import capability
        >>> len(capability.arithmetic(['addition'], digits=[1], n=5).items())
        5
    """
    unknown = [name for name in operations if name not in OPERATIONS]
    sizes = bool(digits) and 1 <= min(digits) <= max(digits) <= LONGEST
    if unknown or not operations or not sizes or n < 1:
        raise InputError(
            f"arithmetic needs operations among {', '.join(OPERATIONS)}, digits from 1 to {LONGEST} and "
            f"n of at least 1; got {list(operations)}, {list(digits)}, n={n}"
        )
    rng = random.Random(seed)
    prompts: list[str] = []
    answers: list[str] = []
    kinds: list[str] = []
    for name in operations:
        sign, apply = OPERATIONS[name]
        for size in digits:
            for a, b in _pairs(rng, size, n, ordered=name == "subtraction"):
                prompts.append(template.format(a=a, sign=sign, b=b))
                answers.append(str(apply(a, b)))
                kinds.append(f"{name}, {size} digit{'s' if size > 1 else ''}")
    data = PromptSet(
        tuple(prompts), None, tuple(answers), tuple(kinds), "arithmetic", "MIT", f"drawn with seed {seed}"
    )
    return Suite("arithmetic", data, "number", max_new_tokens)


def _pairs(rng: random.Random, size: int, n: int, *, ordered: bool) -> list[tuple[int, int]]:
    """Up to n different pairs of numbers with `size` digits, the larger first where `ordered`."""
    low, high = (10 ** (size - 1) if size > 1 else 0), 10**size - 1
    many = high - low + 1
    there_are = many * (many + 1) // 2 if ordered else many * many
    found: dict[tuple[int, int], None] = {}
    while len(found) < min(n, there_are):
        a, b = rng.randint(low, high), rng.randint(low, high)
        found[(max(a, b), min(a, b)) if ordered else (a, b)] = None
    return list(found)
