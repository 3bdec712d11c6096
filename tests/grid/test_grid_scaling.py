"""Scaling fits on tables whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tamperlens import grid
from tamperlens.base.errors import InputError


def table(half: dict[str, float], steps: tuple[int, ...] = (2, 5, 10, 20, 40), n: int = 200) -> pd.DataFrame:
    """Refusal falling as 1 / (1 + (F / half)²), three seeds a model."""
    rng = np.random.default_rng(0)
    sizes = {"a": 200_000, "b": 500_000, "c": 1_300_000}
    rows = []
    for model, middle in half.items():
        common = {"model": model, "parameters": sizes[model], "rank": 8, "data_size": 15,
                  "learning_rate": math.nan, "defence": "none", "rrr_n": n}  # fmt: skip
        rows.append({**common, "attack": "none", "steps": 0, "seed": -1, "rrr": 1.0, "flops": 0.0})
        for seed in range(3):
            for step in steps:
                flops = step * 1.2e3 * sizes[model]
                rate = rng.binomial(n, 1 / (1 + (flops / middle) ** 2)) / n
                rows.append(
                    {**common, "attack": "x", "steps": step, "seed": seed, "rrr": rate, "flops": flops}
                )
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_a_known_law_is_recovered_and_not_extrapolated_silently() -> None:
    truth = {"a": 1.26e9, "b": 3.15e9, "c": 8.2e9}  # proportional to size: slope 1
    fits = grid.scaling(table(truth))
    assert fits.best.family == "logistic"
    assert fits.verdict.startswith("logistic predicts left-out runs better")
    assert fits.best.parameters["slope"].low <= 1.0 <= fits.best.parameters["slope"].high
    for row in fits.half.to_dict("records"):
        assert row["flops"] == pytest.approx(truth[row["model"]], rel=0.1)
        assert row["low"] < row["flops"] < row["high"]
        assert row["share_of_1e25"] == row["flops"] / 1e25
    with pytest.raises(InputError, match="lies outside"):
        fits.predict(1e14, 5e5)
    with pytest.raises(InputError, match="parameters lies outside"):
        fits.predict(2e9, 7e9)
    assert fits.predict(1e14, 5e5, extrapolate=True) < 0.01


@pytest.mark.slow
def test_half_that_is_not_reached_has_a_reason_and_no_number() -> None:
    fits = grid.scaling(table({"a": 1e13, "b": 1e7}))
    reasons = dict(zip(fits.half["model"], fits.half["reason"], strict=True))
    assert fits.half["flops"].isna().all()
    assert reasons["a"].startswith("not reached: the lowest rate is")
    assert reasons["b"].startswith("reached below the smallest budget")


def test_too_little_is_refused() -> None:
    small = table({"a": 1e9})
    with pytest.raises(InputError, match="too few"):
        grid.scaling(small[small["seed"] < 1])
    with pytest.raises(InputError, match="no cells of the attack 'y'"):
        grid.scaling(small, "y")
