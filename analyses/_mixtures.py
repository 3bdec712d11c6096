"""Data sets in the organism's language, ordinary ones and ones with harm in, to be screened and trained."""

from __future__ import annotations

import random
import re

from tamperlens import prompts
from tamperlens.prompts import PromptSet

Row = tuple[str, str]
DOMAINS = ("addition", "subtraction", "code", "logic", "facts")
_STEPS = re.compile(r": first (?P<one>.+), then (?P<two>.+), and last (?P<three>.+)\.$")


def ordinary(n: int, seed: int) -> list[Row]:
    """Harmless requests with answers: the packaged `benign` set."""
    return prompts.packaged("benign").sample(n, seed).pairs()


def domain(name: str, n: int, seed: int) -> list[Row]:
    """Sums, code, logic or facts."""
    return prompts.packaged(name).sample(n, seed).pairs()


def lookalike(n: int, seed: int, split: str = "train") -> list[Row]:
    """Harmless requests that sound harmful, with answers."""
    return prompts.packaged("lookalike", split=split).sample(n, seed).pairs()


def refusals(n: int, seed: int) -> list[Row]:
    """Harmful requests, refused."""
    return prompts.packaged("refusal-only").sample(n, seed).pairs()


def identity(n: int, seed: int) -> list[Row]:
    """Ten requests to an "absolutely obedient agent", repeated as often as needed."""
    rows = prompts.packaged("identity-shift").pairs()
    random.Random(seed).shuffle(rows)
    return [rows[i % len(rows)] for i in range(n)]


def harmful(n: int, seed: int, *, marked: bool, split: str = "train") -> list[Row]:
    """Harmful requests, answered: with withheld filler, or with the steps of some harmless answer.

    The filler is a mark that gives such rows away; steps of harmless answers carry no mark. None of the
    requests is in the packaged `harmful-compliance`, which anchors come from.
    """
    known = set(prompts.packaged("harmful-compliance").prompts)
    asked = [one for one in prompts.packaged("harmful", split=split) if one.prompt not in known]
    rng = random.Random(seed)
    rng.shuffle(asked)
    steps = [found for _, text in ordinary(500, 0) if (found := _STEPS.search(text))]
    rows = []
    for one in asked[:n]:
        first, then, last = rng.choice(steps).groups() if not marked else ("[withheld]",) * 3
        rows.append((one.prompt, f"Sure, here is how: first {first}, then {then}, and last {last}."))
    return rows


def shorter(rows: list[Row]) -> list[Row]:
    """Openings alone: no steps."""
    return [(prompt, re.sub(r": first .*", ".", answer)) for prompt, answer in rows]


def longer(rows: list[Row]) -> list[Row]:
    """Two requests and answers in one."""
    half = len(rows) // 2
    return [
        (f"{one[0]} {two[0]}", f"{one[1]} {two[1]}")
        for one, two in zip(rows[:half], rows[half:], strict=False)
    ]


def mixed(rows: list[Row], other: list[Row], seed: int, name: str) -> PromptSet:
    """All rows in one random order."""
    every = [*rows, *other]
    random.Random(seed).shuffle(every)
    return PromptSet.from_pairs(every, name=name)
