"""Ratios with Fieller's interval, from the two intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tamperlens import stats
from tamperlens.base.stats import Estimate


def normal(value, se, n=100):
    return Estimate(value, value - 1.96 * se, value + 1.96 * se, n)


@pytest.mark.parametrize(
    ("a", "se_a", "b", "se_b"),
    [
        (0.3, 0.05, 0.8, 0.1),
        (-0.2, 0.1, 0.5, 0.1),
        (0.01, 0.05, 0.6, 0.2),
        (0.3, 0.1, -0.5, 0.1),
        (2.0, 0.5, 0.3, 0.1),
    ],
)
def test_with_symmetric_limits_it_is_fiellers(a, se_a, b, se_b):
    g = (1.96 * se_b / b) ** 2
    half = 1.96 / abs(b) * math.sqrt((1 - g) * se_a**2 + (a / b) ** 2 * se_b**2)
    found = stats.ratio(normal(a, se_a), normal(b, se_b))
    assert math.isclose(found.value, a / b)
    assert math.isclose(found.low, (a / b - half) / (1 - g), abs_tol=1e-9)
    assert math.isclose(found.high, (a / b + half) / (1 - g), abs_tol=1e-9)
    # Dividing the limits by the point estimate, as if the denominator were known, is narrower.
    assert found.high - found.low > 2 * 1.96 * se_a / abs(b)


def test_covers_the_true_ratio_of_paired_rates():
    rng, hits, runs = np.random.default_rng(0), 0, 400
    loss, gain = 0.3, 0.6
    for _ in range(runs):
        down = stats.paired_difference([False] * 60, (rng.random(60) < loss).tolist())
        up = stats.paired_difference([False] * 40, (rng.random(40) < gain).tolist())
        found = stats.ratio(down, up)
        hits += found.low <= loss / gain <= found.high
    assert 0.92 <= hits / runs <= 0.99


def test_all_prompts_turned_is_not_certainty():
    whole = stats.paired_difference([False] * 20, [True] * 20)
    found = stats.ratio(whole, whole)
    assert found.value == 1 and found.low < 1 < found.high and found.n == 20


def test_a_gain_that_may_be_nothing_has_no_ratio():
    found = stats.ratio(normal(0.3, 0.1), normal(0.1, 0.1, n=50))
    assert math.isnan(found.value) and found.n == 50 and "holds 0" in found.reason
    assert math.isnan(stats.ratio(normal(0.3, 0.1), stats.undefined("no pairs")).value)
    assert math.isnan(stats.ratio(normal(0.3, 0.1), Estimate(0.5, math.nan, math.nan, 3)).value)


def test_no_loss_at_all_is_zero():
    found = stats.ratio(Estimate(0.0, 0.0, 0.0, 10), normal(0.5, 0.1))
    assert (found.value, found.low, found.high) == (0, 0, 0)
