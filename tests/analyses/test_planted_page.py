"""How the page of planted truth sorts methods: by unseen organisms, against both baselines, corrected."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from tamperlens import planted

ANALYSES = Path(__file__).resolve().parents[2] / "analyses"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    sys.path.insert(0, str(ANALYSES))
    try:
        return importlib.import_module("_planted_page")
    finally:
        sys.path.remove(str(ANALYSES))


def table(
    methods: Mapping[str, tuple[float, float]], organisms: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Scores around each method's (precision, AUROC), with a scatter of .02 over organisms."""
    generator = np.random.default_rng(seed)
    rows = [
        {
            "organism": organism, "level": "weights", "method": name, "chance": 0.05,
            "precision": precision + 0.02 * generator.standard_normal(),
            "auroc": auroc + 0.02 * generator.standard_normal(),
        }
        for organism in organisms
        for name, (precision, auroc) in methods.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


BASELINES = {"largest |W|": (0.1, 0.60), "largest gradient": (0.1, 0.75), "random": (0.05, 0.5)}


def test_a_method_must_beat_both_baselines_on_unseen_organisms(page: ModuleType) -> None:
    methods = {
        "finds": (0.9, 0.95),
        "beats one": (0.1, 0.70),
        "beats both": (0.2, 0.9),
        "nothing": (0.05, 0.5),
    }
    unseen = [f"new {i}" for i in range(6)]
    found = page.trusted("weights", table({**BASELINES, **methods}, unseen))
    assert found == {
        "finds": "find it",
        "beats both": "beat the trivial baselines",
        "beats one": "are above chance only",
        "nothing": "are not shown above chance",
    }
    # What it does where it was chosen counts for nothing.
    lucky = table({**BASELINES, "tuned": (0.9, 0.95)}, page.CHOSEN_ON)
    poor = table({**BASELINES, "tuned": (0.05, 0.5)}, unseen)
    assert "not shown above chance: tuned" in page.verdict("weights", pd.concat([lucky, poor]))
    assert page.verdict("weights", lucky).startswith("Not sorted: 0 organisms")


def test_few_of_many_worthless_methods_are_called_anything(page: ModuleType) -> None:
    """Simulated: 17 methods without worth on 9 organisms; any class above "not shown" is an error."""
    methods = {**BASELINES, **{f"method {i}": (0.05, 0.5) for i in range(17)}}
    wrong = 0
    for seed in range(60):
        found = page.trusted("weights", table(methods, [f"new {i}" for i in range(9)], seed))
        wrong += any(one != "are not shown above chance" for one in found.values())
    assert wrong <= 8  # two tests at 5 % each: about 5 in 60


def test_the_page_is_what_the_stored_results_say(page: ModuleType) -> None:
    stored = ANALYSES / "measured" / "planted_truth"
    names = ("verification", "scores", "causal", "attacks")
    tables = {name: pd.read_csv(stored / f"{name}.csv") for name in names}
    whole = planted.summary(tables["scores"]).assign(kind="all")
    by_kind = planted.summary(tables["scores"], ("level", "method", "kind"))
    made = page.page_of(tables, whole, by_kind).splitlines()
    kept = (stored / "page.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in made if not line.startswith("tamperlens ")] == [
        line for line in kept if not line.startswith("tamperlens ")
    ]
    shown = (ANALYSES.parent / "docs" / "planted-truth.md").read_text(encoding="utf-8")
    assert shown.rstrip().endswith("\n".join(kept[kept.index("## The organisms") :]).rstrip())
