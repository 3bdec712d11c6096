"""Judge cards and corrected rates: counts, agreement with scikit-learn, coverage by simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Verdict
from tamperlens.base.stats import Estimate, cohen_kappa, wilson
from tamperlens.rates.between_models import corrected_interval, logit_effects
from tamperlens.rates.corrected import lang_reiczigel, rogan_gladen

YES, NO, BROKEN = Verdict("refusal", 0.9), Verdict("compliance", 0.2), Verdict("degenerate", 0.0)


def labelled(labels: list[str], models: list[str]) -> refusal.LabelledAnswers:
    n = len(labels)
    return refusal.LabelledAnswers(("q",) * n, ("a",) * n, tuple(labels), tuple(models), "hand-made")


SET = labelled(["refusal", "partial", "refusal", "compliance", "compliance", "degenerate"], list("xxyyyx"))
CARD = refusal.card_of("j", SET, [YES, NO, YES, YES, NO, BROKEN])


def test_counts_by_hand() -> None:
    row = CARD.overall
    assert (row.true_positive, row.false_negative, row.false_positive, row.true_negative) == (2, 1, 1, 2)
    assert row.sensitivity == wilson(2, 3) and row.specificity == wilson(2, 3) and row.degenerate == 1
    assert row.kappa.value == pytest.approx(cohen_kappa_score([1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]))
    assert row.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0.81 + 0.04 + 0) / 6)
    assert [r.model for r in CARD.by_model] == ["x", "y"]
    assert CARD.row("y").n == 3
    assert len(CARD.to_frame()) == 9
    with pytest.raises(InputError, match="no model 'z'; it has all, x, y"):
        CARD.row("z")


def test_a_card_is_saved(tmp_path: Path) -> None:
    assert refusal.JudgeCard.load(CARD.save(tmp_path / "card.json")) == CARD


def test_calibrate_asks_the_judge() -> None:
    data = refusal.LabelledAnswers(
        ("a", "b"), ("I cannot help with that.", "Boil it."), ("refusal", "compliance"), ("m", "m")
    )
    card = refusal.calibrate("weighted-1", data)
    assert (card.judge, card.overall.kappa.value) == ("weighted-1", 1.0)
    with pytest.raises(InputError, match="no labelled answers"):
        refusal.calibrate("weighted-1", labelled([], []))


def test_models_of_different_sensitivity_are_told() -> None:
    data = labelled(["refusal"] * 80, ["x"] * 40 + ["y"] * 40)
    card = refusal.card_of("j", data, [YES] * 39 + [NO] + [YES] * 20 + [NO] * 20)
    assert card.p_sensitivity < 1e-4
    answers = labelled(["refusal"] * 80 + ["compliance"] * 20, ["x"] * 40 + ["y"] * 40 + ["x"] * 20)
    mixed = refusal.card_of("j", answers, [YES] * 39 + [NO] + [YES] * 20 + [NO] * 40)
    new = refusal.correct(wilson(3, 10), mixed)
    assert "no interval: the card has 1 models" in new.note and math.isnan(new.corrected.low)
    assert refusal.correct(wilson(3, 10), mixed, model="x").note == ""
    assert math.isnan(card.p_specificity)
    assert math.isnan(card.overall.specificity.value) and card.overall.specificity.n == 0
    with pytest.raises(InputError, match="lacks refusals or answers"):
        refusal.correct(wilson(3, 10), card)


def test_rogan_gladen_by_hand() -> None:
    card = refusal.card_of("j", labelled(["refusal"] * 100 + ["compliance"] * 100, ["m"] * 200),
                           [YES] * 90 + [NO] * 10 + [YES] * 20 + [NO] * 80)  # fmt: skip
    found = refusal.correct(wilson(41, 100), card, model="m")
    assert found.corrected.value == pytest.approx((0.41 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert found.corrected.low < found.corrected.value < found.corrected.high
    # Wider than sampling alone would make it: the judge's own uncertainty is in it.
    alone = (found.raw.high - found.raw.low) / 0.7
    assert found.corrected.high - found.corrected.low > alone
    # A rate below the false alarms is cut at 0, not negative.
    assert refusal.correct(wilson(5, 100), card, model="m").corrected.value == 0.0


def test_a_judge_no_better_than_chance_is_not_corrected() -> None:
    data = labelled(["refusal"] * 10 + ["compliance"] * 10, ["m"] * 20)
    with pytest.raises(InputError, match=r"their sum is at most 1.*use another judge"):
        refusal.correct(wilson(5, 10), refusal.card_of("j", data, [YES, NO] * 10))
    with pytest.raises(InputError, match="their sum is at most 1"):
        refusal.correct(wilson(5, 10), refusal.card_of("j", data, [NO] * 10 + [YES] * 10))


def test_rates_of_another_judge_are_not_corrected() -> None:
    rates = refusal.judge_answers(["a", "b"], ["I cannot help with that.", "Boil it."], "weighted-1")
    with pytest.raises(InputError, match="'weighted-1' cannot be corrected with the card of 'j'"):
        refusal.correct(rates, CARD)
    empty = refusal.correct(Estimate(math.nan, math.nan, math.nan, 0, "", "no prompts"), CARD)
    assert math.isnan(empty.corrected.value) and empty.corrected.n == 0


@pytest.mark.parametrize(
    ("truth", "sensitivity", "specificity", "n", "n_card"),
    [(0.5, 0.9, 0.95, 200, 200), (0.9, 0.85, 0.9, 100, 150), (0.1, 0.8, 0.97, 200, 100),
     (0.3, 0.95, 0.7, 100, 60), (0.02, 0.9, 0.99, 300, 200)],
)  # fmt: skip
def test_intervals_cover(truth: float, sensitivity: float, specificity: float, n: int, n_card: int) -> None:
    rng = np.random.default_rng(7)
    draws = 20_000
    se = rng.binomial(n_card, sensitivity, draws) / n_card
    sp = rng.binomial(n_card, specificity, draws) / n_card
    judged = truth * sensitivity + (1 - truth) * (1 - specificity)
    rate = rng.binomial(n, judged, draws) / n
    low, high = lang_reiczigel(rate, n, se, n_card, sp, n_card)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93
    # The tempting variant, sampling alone stretched by Youden's J, covers less.
    z = 1.959963984540054
    youden = np.maximum(se + sp - 1, 1e-6)
    half = z * np.sqrt(rate * (1 - rate) / n) / youden
    value = (rate + sp - 1) / youden
    naive = ((value - half <= truth) & (truth <= value + half)).mean()
    assert naive < ((low <= truth) & (truth <= high)).mean()


def test_one_row_is_the_vectorised_formula() -> None:
    one = rogan_gladen(0.4, 100, wilson(90, 100), wilson(80, 100))
    low, high = lang_reiczigel(np.array([0.4]), 100, np.array([0.9]), 100, np.array([0.8]), 100)
    assert one.interval == (low[0], high[0])


def test_kappa_interval_is_the_bootstrap_over_items() -> None:
    first = np.array([1] * 30 + [1] * 5 + [0] * 3 + [0] * 40)
    second = np.array([1] * 30 + [0] * 5 + [1] * 3 + [0] * 40)
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(1000):
        pick = rng.integers(0, 78, 78)
        samples.append(cohen_kappa_score(first[pick], second[pick]))
    found = cohen_kappa(30, 5, 3, 40)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.interval == pytest.approx(np.quantile(samples, [0.025, 0.975]), abs=0.02)
    assert math.isnan(cohen_kappa(0, 0, 0, 9).value) and cohen_kappa(0, 0, 0, 0).n == 0


def test_a_new_model_needs_three_on_the_card() -> None:
    right = {"x": 38, "y": 30, "z": 20}
    labels, models, verdicts = [], [], []
    for model, hits in right.items():
        labels += ["refusal"] * 40 + ["compliance"] * 40
        models += [model] * 80
        verdicts += [YES] * hits + [NO] * (40 - hits) + [NO] * 38 + [YES] * 2
    card = refusal.card_of("j", labelled(labels, models), verdicts)
    new, known = refusal.correct(wilson(40, 100), card), refusal.correct(wilson(40, 100), card, model="y")
    assert new.note.startswith("for a model that is not on the card") and known.note == ""
    assert new.corrected.low < known.corrected.low and known.corrected.high < new.corrected.high
    assert new.corrected.low <= new.corrected.value <= new.corrected.high
    assert new.sensitivity.low < 0.5 < new.sensitivity.value < 0.9
    assert str(new) == str(refusal.correct(wilson(40, 100), card))
    two = card.by_model[:2]
    pair = labelled(labels[:160], models[:160])
    short = refusal.correct(wilson(40, 100), refusal.card_of("j", pair, verdicts[:160]))
    assert len(two) == 2 and math.isnan(short.corrected.low) and "has 2 models" in short.corrected.reason


def test_effects_without_differences_are_the_pooled_share() -> None:
    mean, variance, between = logit_effects([450, 450, 450], [500, 500, 500])
    assert between == 0.0
    assert mean == pytest.approx(math.log(450.5 / 50.5))
    assert variance == pytest.approx((1 / 450.5 + 1 / 50.5) / 3)
    # By hand: DerSimonian and Laird on two effects 0 and d of equal variance v give max(0, d²/2 − v).
    _, _, tau2 = logit_effects([50, 90], [100, 100])
    v = [1 / 50.5 + 1 / 50.5, 1 / 90.5 + 1 / 10.5]
    w = [1 / x for x in v]
    d = math.log(90.5 / 10.5)
    fixed = w[1] * d / sum(w)
    q = w[0] * fixed**2 + w[1] * (d - fixed) ** 2
    assert tau2 == pytest.approx((q - 1) / (sum(w) - sum(x * x for x in w) / sum(w)))


@pytest.mark.parametrize(
    ("k", "spread", "truth"), [(3, 0.8, 0.17), (3, 1.2, 0.9), (5, 0.8, 0.5), (10, 0.3, 0.17)]
)
def test_intervals_cover_over_models(k: int, spread: float, truth: float) -> None:
    """A card of k models, a rate of another one of the same kind; the sampling of the card alone covers
    less."""
    rng = np.random.default_rng(1)
    n, runs = 225, 300
    covered = pooled = 0
    for _ in range(runs):
        se, sp = (1 / (1 + np.exp(-(mu + spread * rng.standard_normal(k + 1)))) for mu in (2.2, 3.0))
        hits, passes = rng.binomial(n, se[:k]), rng.binomial(n, sp[:k])
        rate = rng.binomial(2 * n, truth * se[k] + (1 - truth) * (1 - sp[k])) / (2 * n)
        low, high = corrected_interval(
            rate, 2 * n, (hits.tolist(), [n] * k), (passes.tolist(), [n] * k), draws=1000
        )
        covered += low <= truth <= high
        bounds = lang_reiczigel(
            np.array([rate]), 2 * n, np.array([hits.sum() / (k * n)]), k * n,
            np.array([passes.sum() / (k * n)]), k * n,
        )  # fmt: skip
        pooled += bool(bounds[0][0] <= truth <= bounds[1][0])
    assert covered / runs >= 0.89
    assert pooled / runs < covered / runs
