"""Scores against a known answer equal the definitions, with ties broken as if at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.studies.planted.scoring import localise, overlap


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auroc_and_average_precision_are_scikit_learns(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for n in (5, 40, 300):
        truth = rng.random(n) < 0.3
        truth[:2] = True, False
        scores = np.round(rng.normal(size=n) + truth * 0.5, decimals)
        found = localise(scores, truth)
        assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert found.average_precision == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert found.precision == found.recall
        assert (found.planted, found.n, found.chance) == (truth.sum(), n, truth.mean())


def test_precision_at_the_planted_size_is_the_expectation_over_ways_to_break_ties() -> None:
    scores, truth = np.array([3.0, 1, 1, 1, 0]), np.array([True, True, False, False, False])
    # One of the three tied entries is taken, and one of them is planted: (1 + 1/3) / 2.
    found = localise(scores, truth)
    assert found.precision == pytest.approx((1 + 1 / 3) / 2)
    by_index = truth[np.argsort(-scores, kind="stable")[:2]].mean()  # rewards whatever comes first
    assert by_index == 1.0 != found.precision


def test_a_constant_is_chance_and_the_truth_is_perfect() -> None:
    truth = np.arange(10) % 5 == 0
    same, best = localise(np.zeros(10), truth), localise(truth.astype(float), truth)
    assert (same.auroc, same.precision, same.average_precision, same.rank) == (0.5, 0.2, 0.2, 0.5)
    assert (best.auroc, best.precision, best.average_precision) == (1.0, 1.0, 1.0)
    assert localise(-truth.astype(float), truth).auroc == 0.0


def test_a_set_has_precision_and_recall_of_its_own() -> None:
    truth = np.array([True, True, True, True, False, False])
    chosen = np.array([True, False, False, False, True, False])
    found = localise(chosen.astype(float), truth, chosen=chosen)
    assert (found.precision, found.recall) == (0.5, 0.25)
    nothing = np.zeros(6, dtype=bool)
    assert math.isnan(localise(nothing.astype(float), truth, chosen=nothing).precision)


def test_rank_is_the_median_place_of_the_planted() -> None:
    truth = np.zeros(100, dtype=bool)
    truth[[10, 20, 90]] = True
    assert localise(-np.arange(100.0), truth).rank == pytest.approx(0.205)  # middle of the 21st place


@pytest.mark.parametrize("value", [True, False])
def test_nothing_to_find_is_undefined_with_a_reason(value: bool) -> None:
    found = localise(np.arange(4.0), np.full(4, value))
    assert math.isnan(found.auroc) and math.isnan(found.precision) and found.reason


def test_bad_input() -> None:
    with pytest.raises(NumericsError, match="NaN"):
        localise(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(InputError, match="equally long"):
        localise(np.zeros(3), np.zeros(4, dtype=bool))


def test_overlap_of_two_choices_is_their_jaccard_index() -> None:
    one, two = np.array([5.0, 4, 3, 2, 1, 0]), np.array([5.0, 0, 4, 3, 2, 1])
    share, chance = overlap(one, two, 3)  # {0, 1, 2} and {0, 2, 3}
    assert share == pytest.approx(2 / 4)
    assert chance == pytest.approx(1.5 / 4.5)
    assert overlap(one, one, 2)[0] == 1
    with pytest.raises(InputError, match="size 0"):
        overlap(one, two, 0)
