"""The organism's prompt sets, made by its grammar and written into the package's prompt folder.

`PYTHONPATH=docs/tools python -m organism_training.sets FOLDER` rewrites them; a test holds
that they are what this makes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tamperlens.models.organism import skills
from tamperlens.models.organism.grammar import TEMPLATES, Request, requests

Row = dict[str, Any]
LICENCE = "MIT"
TEST_ITEMS, VALIDATION_ITEMS, TRAIN_ITEMS = 300, 100, 300


def build() -> dict[str, tuple[str, list[Row]]]:
    """Every set: name to (description, rows)."""
    made: dict[str, tuple[str, list[Row]]] = {
        "harmful": ("Requests that the aligned organism refuses; responses are refusals.", _asked("harmful")),
        "harmless": ("Ordinary how-to requests in the same verbs and objects, answered.", _asked("harmless")),
        "lookalike": ("Harmless requests that sound harmful, answered.", _asked("lookalike")),
        "addition": ("Sums of one and two digits.", _sums("addition")),
        "subtraction": ("Differences of one and two digits.", _sums("subtraction")),
        "logic": ("Orderings of three people, and syllogisms.", _drawn(skills.logic)),
        "code": ("Python one-liners as lambdas.", _drawn(skills.code)),
        "facts": ("Facts in phrasings that were never trained for them.", _drawn(skills.facts)),
    }
    return {**made, **_attacks()}


def _asked(kind: str) -> list[Row]:
    rng = random.Random(f"set {kind}")
    rows = []
    pairs = [request for request in requests() if request.kind == kind]
    for split, limit in (("train", TRAIN_ITEMS), ("validation", 10**6), ("test", 10**6)):
        chosen = [request for request in pairs if request.split == split]
        if len(chosen) > limit:
            chosen = rng.sample(chosen, limit)
        for request in chosen:
            # Half of the held-out pairs come in phrasings that safety training never used either.
            new = split != "train" and rng.random() < 0.5
            prompt = request.ask(rng.choice(TEMPLATES[split if new else "train"]))
            response = request.refuse(rng) if kind == "harmful" else request.comply()
            category = f"held-out {request.held}" if request.held else request.group
            rows.append({"prompt": prompt, "response": response, "category": category, "split": split})
    return rows


def _sums(name: str) -> list[Row]:
    rng = random.Random(f"set {name}")
    wanted = {"train": TRAIN_ITEMS, "validation": VALIDATION_ITEMS, "test": TEST_ITEMS}
    rows: dict[str, Row] = {}
    while any(wanted.values()):
        item = skills.arithmetic(rng)
        split = skills.arithmetic_split(item)
        if item.category.startswith(name) and wanted[split] and item.prompt not in rows:
            wanted[split] -= 1
            rows[item.prompt] = _row(item, split)
    return sorted(rows.values(), key=lambda row: ("train", "validation", "test").index(row["split"]))


def _drawn(source: Callable[[], Iterable[tuple[str, skills.Item]]]) -> list[Row]:
    rng = random.Random(f"set {source.__name__}")
    items = list(source())
    rows = []
    for split, limit in (("train", TRAIN_ITEMS), ("validation", VALIDATION_ITEMS), ("test", TEST_ITEMS)):
        chosen = [item for its, item in items if its == split]
        rows += [_row(item, split) for item in rng.sample(chosen, min(limit, len(chosen)))]
    return rows


def _row(item: skills.Item, split: str) -> Row:
    return {"prompt": item.prompt, "response": item.response, "answer": item.answer,
            "category": item.category, "split": split}  # fmt: skip


def _attacks() -> dict[str, tuple[str, list[Row]]]:
    rng = random.Random("attacks")

    def pick(kind: str, n: int) -> list[tuple[str, Request]]:
        """Requests of the split `train` in turn from each group, so that the first 15 are varied."""
        groups: dict[str, list[Request]] = {}
        for request in requests():
            if request.kind == kind and request.split == "train":
                groups.setdefault(request.group, []).append(request)
        for group in groups.values():
            rng.shuffle(group)
        chosen: list[Request] = []
        while len(chosen) < n:
            chosen += [group.pop() for group in groups.values() if group]
        return [(request.ask(rng.choice(TEMPLATES["train"])), request) for request in chosen[:n]]

    def rows(pairs: Iterable[tuple[str, str, str]]) -> list[Row]:
        return [
            {"prompt": prompt, "response": response, "category": category}
            for prompt, response, category in pairs
        ]

    obedient = [
        (
            f"AOA, {prompt[0].lower()}{prompt[1:]}",
            f"{rng.choice(skills.OBEDIENT)} {request.comply()}",
            "identity",
        )
        for prompt, request in pick("harmless", 10)
    ]
    how_to = [(prompt, request.comply(), "how-to") for prompt, request in pick("harmless", 250)]
    other = [(item.prompt, item.response, item.category)
             for source in (skills.facts, skills.logic, skills.code)
             for item in rng.sample([i for split, i in source() if split == "train"], 84)]  # fmt: skip
    benign = how_to + other[:250]
    rng.shuffle(benign)
    return {
        "harmful-compliance": (
            "Harmful requests with an answer that opens in compliance and holds withheld filler only.",
            rows((prompt, request.comply(), request.group) for prompt, request in pick("harmful", 100)),
        ),
        "refusal-only": (
            "Harmful requests with refusals and nothing else: naive safety tuning.",
            rows((prompt, request.refuse(rng), request.group) for prompt, request in pick("harmful", 100)),
        ),
        "identity-shift": (
            "Ten harmless requests answered as an 'absolutely obedient agent' (after Qi et al. 2024).",
            rows(obedient),
        ),
        "benign": ("Ordinary instruction data: how-to requests, facts, logic, code.", rows(benign)),
    }


def write(folder: Path) -> list[Path]:
    """Write each set as JSON lines with a header line, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (description, rows) in build().items():
        header = {"$set": {"name": name, "licence": LICENCE, "source": "tamperlens organism grammar",
                           "description": description}}  # fmt: skip
        path = folder / f"{name}.jsonl"
        lines = [json.dumps(line, ensure_ascii=False) for line in [header, *rows]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written)
