"""From a number to a word: verdicts hold their error, and rounding is no change."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats as sps

from tamperlens.base.stats import wilson
from tamperlens.studies.compare import readings, words
from tamperlens.studies.compare.readings import (
    BEHAVIOUR,
    CHANGED,
    INSIDE,
    LEFT_OUT,
    SAME,
    UNSURE,
    decided,
    left_out,
    of_draws,
    of_flags,
    of_values,
)


def only(reading):
    return decided([reading])[0]


def test_flags_turned_by_all_prompts_have_changed_and_few_prompts_cannot_tell():
    assert only(of_flags("r", BEHAVIOUR, [True] * 20, [False] * 20, margin=0.1)).verdict == CHANGED
    assert only(of_flags("r", BEHAVIOUR, [True] * 20, [True] * 20, margin=0.1)).verdict == UNSURE
    assert only(of_flags("r", BEHAVIOUR, [True] * 80, [True] * 80, margin=0.1)).verdict == SAME


def test_not_one_letter_in_many_answers_bounds_every_rate():
    found = of_flags("r", BEHAVIOUR, [True] * 20, [True] * 20, margin=0.1, same=100)
    assert found.effect.high == pytest.approx(wilson(0, 100).high)
    assert only(found).verdict == SAME


def test_the_bound_is_not_used_where_it_would_be_wider():
    loose = of_flags("r", BEHAVIOUR, [True] * 200, [True] * 200, margin=0.1, same=5)
    assert loose.effect == of_flags("r", BEHAVIOUR, [True] * 200, [True] * 200, margin=0.1).effect


def test_values_under_the_margin_are_no_change_however_significant():
    tiny = np.full(50, 1e-3) + np.linspace(-1e-5, 1e-5, 50)
    assert sps.ttest_1samp(tiny, 0).pvalue < 1e-50
    found = only(of_values("KL", INSIDE, tiny, margin=0.05, unit="nats"))
    assert found.verdict == SAME and found.p_holm == 1.0


def test_values_beyond_the_margin_are_changed_and_wide_ones_inconclusive():
    rng = np.random.default_rng(0)
    assert only(of_values("KL", INSIDE, rng.normal(1, 0.2, 30), margin=0.05, unit="")).verdict == CHANGED
    assert only(of_values("KL", INSIDE, rng.normal(0, 2, 10), margin=0.05, unit="")).verdict == UNSURE


def test_p_is_that_of_the_t_test_at_margin_zero():
    values = np.random.default_rng(1).normal(0.4, 1, 25)
    found = of_values("x", INSIDE, values, margin=0.0, unit="")
    assert found.p == pytest.approx(sps.ttest_1samp(values, 0).pvalue)
    low, high = sps.t.interval(0.95, 24, values.mean(), sps.sem(values))
    assert found.effect.interval == pytest.approx((low, high))


def test_false_alarms_at_the_margin_are_at_most_five_per_cent():
    rng = np.random.default_rng(2)
    hits = sum(
        of_values("x", INSIDE, rng.normal(0.1, 0.3, 20), margin=0.1, unit="").p < 0.05 for _ in range(400)
    )
    assert hits <= 400 * 0.05 + 2 * math.sqrt(400 * 0.05 * 0.95)


def test_draws_that_do_not_move_are_no_change():
    assert only(of_draws("direction", INSIDE, 0.0, np.zeros(200), 24, margin=0.1, unit="")).verdict == SAME
    moved = np.random.default_rng(3).normal(0.8, 0.05, 500)
    assert only(of_draws("direction", INSIDE, 0.8, moved, 24, margin=0.1, unit="")).verdict == CHANGED


def test_holm_runs_over_the_tests_alone():
    nothing = left_out("weights", readings.WEIGHTS, "")
    weights = dataclasses.replace(nothing, verdict=SAME)
    borderline = of_flags("r", BEHAVIOUR, [True] * 6 + [False] * 30, [False] * 36, margin=0.1)
    assert borderline.p == pytest.approx(2 * 0.5**6)
    alone = decided([borderline, weights, left_out("heads", INSIDE, "other shapes")])
    assert [one.verdict for one in alone] == [CHANGED, SAME, LEFT_OUT]
    both = decided([borderline, of_flags("s", BEHAVIOUR, [True] * 80, [True] * 80, margin=0.1)])
    assert both[0].p_holm == pytest.approx(2 * borderline.p) and both[0].verdict == UNSURE


def test_disagreement_is_said_and_not_averaged():
    moved = of_flags("refusal", BEHAVIOUR, [True] * 30, [False] * 30, margin=0.1)
    still = of_draws("direction", INSIDE, 0.0, np.zeros(100), 24, margin=0.1, unit="")
    said = words.disagreements(decided([moved, still]))
    assert any("Refusal changed and direction did not" in one for one in said)
    assert any("did not" in one and "no change" in one for one in said)
    assert words.disagreements(decided([still])) == []
    # A base that refuses nothing has no refusal direction to have kept: seen when one was safety-tuned.
    found = words.disagreements(decided([moved, dataclasses.replace(still, grounded=False)]))
    assert not any("Refusal changed and direction did not" in one for one in found)


def test_what_rounding_leaves_is_written_as_nothing() -> None:
    """1 − cosine of a model with itself was printed as +1.11e−16."""
    from tamperlens.studies.compare.readings import number

    assert number(2.0**-53, signed=True) == "0" and number(-(2.0**-53)) == "0"
    assert number(1e-11, signed=True) == "+1e−11" and number(float("nan")) == "–"
