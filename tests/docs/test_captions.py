"""The README says of its picture what was measured for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
