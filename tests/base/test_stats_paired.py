"""Newcombe's paired interval against published numbers and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats as sps

from tamperlens import stats
from tamperlens.base.errors import InputError
from tamperlens.base.stats import mcnemar, paired_difference, rate, standardised_mean


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
    found = paired_difference(*turned)
    assert mcnemar(*turned).difference == found  # a bootstrap knows no doubt here: [−1, −1]
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
    for test in (paired_difference, mcnemar):
        with pytest.raises(InputError, match="same prompts"):
            test([True], [])


WRONG = [[None], ["yes"], [0.5], [math.nan], [2], [[True]], None, 3, "10", {1: 2}]


@pytest.mark.parametrize("values", WRONG, ids=repr)
def test_outcomes_that_are_not_yes_or_no_are_refused(values):
    if isinstance(values, dict):
        values = {"a": True}
    for call in (
        lambda: rate(values),
        lambda: mcnemar(values, values),
        lambda: paired_difference(values, values),
    ):
        with pytest.raises((InputError, TypeCheckError)):
            call()


@pytest.mark.parametrize(
    "values", [[math.nan, 1.0], [math.inf, 1.0], ["a", "b"], [None, 1.0], [[1.0, 2.0]], [1j, 2.0]]
)
def test_arrays_that_are_not_numbers_are_refused(values):
    calls = [
        lambda: stats.bootstrap(values), lambda: stats.standardised_mean(np.array(values)),
        lambda: stats.clustered(values, ["a"] * len(values)), lambda: stats.holm(values),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((InputError, TypeCheckError)):
            call()


def test_settings_out_of_range_are_refused():
    for call in (
        lambda: stats.bootstrap([1.0], draws=0), lambda: stats.bootstrap([1.0], confidence=1.0),
        lambda: stats.wilson(1, 2, math.nan), lambda: stats.wilson(3, 2), lambda: stats.wilson(-1, 2),
        lambda: stats.wilson(0.5, 2), lambda: stats.holm([0.5, 1.5]), lambda: stats.cohen_kappa(-1, 0, 0, 2),
        lambda: stats.paired_minimum_detectable_difference(10, 0.5, power=1.0),
        lambda: stats.minimum_detectable_difference(10, 2.0),
    ):  # fmt: skip
        with pytest.raises((InputError, TypeCheckError)):
            call()


def test_wilson_is_that_of_its_formula():
    for n in (1, 7, 200):
        for k in range(0, n + 1, max(1, n // 7)):
            found, z, p = stats.wilson(k, n), sps.norm.ppf(0.975), k / n
            # Wilson 1927: the p' for which |p − p'| = z √(p'(1 − p')/n)
            for end in found.interval:
                assert abs(p - end) == pytest.approx(z * math.sqrt(max(end * (1 - end), 0) / n), abs=1e-9)


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


@pytest.mark.parametrize(("n", "draws"), [(1, 2), (7, 49), (64, 120)])
def test_the_bootstrap_of_a_median_is_that_of_any_function(n: int, draws: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    whole = stats.bootstrap(values, np.median, draws=draws)
    assert whole == stats.bootstrap(values, lambda drawn: float(np.median(drawn)), draws=draws)
