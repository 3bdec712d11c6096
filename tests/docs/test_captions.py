"""The README says of its picture what was measured for it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_caption_of_the_picture_is_what_was_measured(page: str) -> None:
    """`python docs/tools/picture.py` writes both the picture and these numbers."""
    found = json.loads((ROOT / "docs" / "assets" / "attack.json").read_text(encoding="utf-8"))
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    caption = re.search(r"\*Fifteen harmful examples.*?\*", text)
    assert caption is not None
    assert f"{found['seeds']} seeds, {found['n']} prompts a set" in caption[0]
    assert f"answered by step {span(found['half'])} and" in caption[0]
    assert f"nine in ten by step {span(found['below_a_tenth'])}." in caption[0]
    assert f"turned measurably by step {span(found['cosine_changed'])}, with every" in caption[0]
    assert set(found["refused_then"]) == {1.0}
    assert f"put it at step {span(found['cosine_below_band'])}." in caption[0]
    ratio = re.search(r"safety-critical: ratio ([\d.]+) \[([\d.]+), ([\d.]+)\]", found["drift_says"])
    assert ratio is not None
    more, low, high = (round(100 * (float(one) - 1)) for one in ratio.groups())
    assert f"move {more} % [{low}, {high}] more" in caption[0]
    verdict = {"cannot tell": "inconclusive"}.get(found["drift"], found["drift"])
    assert caption[0].rstrip("*.").endswith(verdict)


@pytest.fixture(scope="module")
def picture() -> Any:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs" / "tools" / "picture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_numbers_of_the_picture_follow_from_its_stored_tables(picture: Any) -> None:
    found = json.loads((ROOT / "docs" / "assets" / "attack.json").read_text(encoding="utf-8"))
    rates, cosine = (pd.read_csv(picture.STORED / f"picture_{name}.csv") for name in ("rates", "cosine"))
    again = picture.numbers(rates, cosine)
    assert again == {name: found[name] for name in again}
    later = rates.assign(value=rates["value"].where(rates["step"] != 7, 0.9))  # one table, another number
    assert picture.numbers(later, cosine)["half"] == [8, 8, 8]


def test_the_real_models_of_the_picture_are_those_that_were_measured(picture: Any) -> None:
    """Three seeds each; the two intervals of the caption overlap, which is why it says inconclusive."""
    rates, order = picture.real()
    for model, preset, _ in picture.REAL:
        own = rates[(rates["model"] == model) & (rates["n"] == 24)]
        after = own[(own["attack"] == "harmful-compliance-15") & (own["preset"] == preset)]
        assert len(after) == 3 and len(own[own["attack"] == "before"]) == 1
    assert set(order.loc[list(picture.ORDER), "n_seeds"]) == {3}
    direction, refused = order.loc["direction cosine"], order.loc["refusal rate"]
    assert direction["high"] > refused["low"] and refused["high"] > direction["low"]
