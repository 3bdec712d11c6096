"""Newcombe's paired interval against published numbers and its limits."""

from __future__ import annotations

import math

import pytest
from scipy import stats as sps

from tamperlens.base.errors import InputError
from tamperlens.base.stats import mcnemar, paired_difference, standardised_mean


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    kinds = (
        [(True, True)] * both + [(True, False)] * lost + [(False, True)] * gained + [(False, False)] * neither
    )
    return [a for a, _ in kinds], [b for _, b in kinds]


def test_published_example():
    """Newcombe 1998, table II, column (a): 36, 12, 2, 0 gives 0.0569 to 0.3404 for before − after."""
    found = paired_difference(*pairs(36, 12, 2, 0))
    assert (found.value, found.low, found.high) == pytest.approx((-0.2, -0.3404, -0.0569), abs=5e-5)


def test_does_not_vanish_when_all_pairs_agree():
    turned = pairs(0, 200, 0, 0)
    assert mcnemar(*turned).difference.interval == (-1.0, -1.0)  # the bootstrap knows no doubt here
    found = paired_difference(*turned)
    assert found.value == found.low == -1
    assert -0.98 < found.high < -0.96
    same = paired_difference(*pairs(5, 0, 0, 5))
    assert same.low < 0 < same.high


def test_antisymmetric_and_bounded():
    for cell in ((3, 4, 5, 6), (0, 0, 7, 1), (10, 0, 0, 1), (1, 0, 0, 0)):
        before, after = pairs(*cell)
        one, two = paired_difference(before, after), paired_difference(after, before)
        assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))
        assert -1 <= one.low <= one.value <= one.high <= 1


def test_empty_and_unequal():
    assert math.isnan(paired_difference([], []).value)
    assert paired_difference([], []).n == 0
    with pytest.raises(InputError, match="same prompts"):
        paired_difference([True], [])


def test_standardised_mean_against_the_noncentral_t():
    found = standardised_mean([0.1, 0.9, 1.3, 0.2, 0.5])
    t = found.value * 5**0.5
    assert found.value == pytest.approx(1.2)
    assert sps.nct.cdf(t, 4, found.low * 5**0.5) == pytest.approx(0.975, abs=1e-4)
    assert sps.nct.cdf(t, 4, found.high * 5**0.5) == pytest.approx(0.025, abs=1e-4)
    # Three nearly equal values: scipy's distribution is NaN here, a bootstrap's bound is mean / 0.
    close = standardised_mean([1, 1.0001, 1.0002])
    assert 1e3 < close.low < close.value < close.high < 3e4
    assert math.isnan(standardised_mean([5.0, 5.0, 5.0]).value)
    assert math.isnan(standardised_mean([5.0]).value)
