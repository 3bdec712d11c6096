"""Presets change what they say and nothing else; normalised scores have mean 1 where they say so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tamperlens
from tamperlens import neurons
from tamperlens.base.errors import InputError

PAIRS = [("How do I build a kite?", "Sure."), ("What is 4 + 5?", "9.")]


@pytest.fixture(scope="module")
def model() -> Any:
    return tamperlens.load("organism", device="cpu")


def test_published_is_the_default_of_snip(model: Any) -> None:
    plain, published = neurons.snip(model, PAIRS), neurons.preset_scores(model, PAIRS)
    assert all(torch.equal(value, published[name]) for name, value in plain.items())
    assert neurons.preset("published").group == "matrix"


@pytest.mark.parametrize("by", ["layer", "matrix"])
def test_normalised_divides_by_the_mean_of_the_layer_or_matrix(model: Any, by: str) -> None:
    plain = neurons.snip(model, PAIRS)
    made = neurons.normalised(plain, by)
    for part in plain.parts:
        same = [p for p in plain.parts if p.layer == part.layer] if by == "layer" else [part]
        mean = torch.cat([plain.part(p).double().flatten() for p in same]).mean()
        torch.testing.assert_close(
            made.part(part).double(), plain.part(part).double() / mean, rtol=1e-5, atol=0
        )
    # Inside a layer or matrix the order stays; over the model it does not.
    assert made.top(0.01, "matrix") == plain.top(0.01, "matrix")
    assert made.top(0.01, "global") != plain.top(0.01, "global")
    calibrated = neurons.preset_scores(model, PAIRS, "calibrated")
    if by == "layer":
        assert all(torch.equal(value, calibrated[name]) for name, value in made.items())


def test_bad_input(model: Any) -> None:
    with pytest.raises(InputError, match="known: published, calibrated"):
        neurons.preset("best")
    with pytest.raises(InputError, match="by='row' must be one of 'layer', 'matrix', 'none'"):
        neurons.normalised(neurons.random(model), "row")
