"""Rates corrected for the errors of their judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as sps

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.judges.cards import ALL, JudgeCard
from tamperlens.rates.between_models import LEAST_MODELS, corrected_interval, new_model_share
from tamperlens.rates.evaluation import RefusalRates

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CorrectedRate(Result):
    """A rate corrected for its judge's errors.

    Attributes:
        raw: as the judge counted, with its interval of sampling alone.
        corrected: after Rogan and Gladen, with an interval that carries sampling and the judge's uncertainty.
        sensitivity: the judge's.
        specificity: the judge's.
        judge: its name.
        calibrated_on: the answers and model that the card rests on.
        note: what to know before relying on it; "" for nothing.
    """

    raw: Estimate
    corrected: Estimate
    sensitivity: Estimate
    specificity: Estimate
    judge: str
    calibrated_on: str
    note: str = ""

    def summary(self) -> str:
        """The corrected rate beside the judge's own."""
        return f"{self}{f'; {self.note}' if self.note else ''}."

    def __str__(self) -> str:
        return f"{self.corrected} (as judged by {self.judge!r}: {self.raw})"


def correct(
    rate: Estimate | RefusalRates, card: JudgeCard, *, model: str = ALL, confidence: float = 0.95
) -> CorrectedRate:
    """A refusal rate corrected for the judge's sensitivity and specificity, both uncertainties carried.

    (rate + specificity − 1) / (sensitivity + specificity − 1), cut to [0, 1] (Rogan & Gladen 1978), with the
    interval of Lang & Reiczigel 2014 ("Confidence limits for prevalence of disease adjusted for estimated
    sensitivity and specificity") where the answers are those of a model of the card (`model=`).

    A judge errs differently on each model. So for a model that is not on the card, the default, sensitivity
    and specificity are those of random effects over the card's models, and the interval that of a new one
    among them (`between_models`); below three models it is NaN, with a note, because one cannot know it.

    Args:
        rate: what was counted: rates of `evaluate`, or an estimate with its n (not corrected before).
        card: of the same judge.
        model: the model of the card whose answers these are; "all" for a model that is not on the card.
        confidence: coverage, in (0, 1).

    Raises:
        InputError: sensitivity + specificity ≤ 1 (the judge tells refusals from answers no better than
            chance), a card without refusals or without answers, or rates of another judge.
    """
    if isinstance(rate, RefusalRates):
        if rate.judge != card.judge:
            raise InputError(
                f"rates by judge {rate.judge!r} cannot be corrected with the card of {card.judge!r}"
            )
        rate = rate.refusal_rate
    row = card.row(model)
    where = f"{card.labelled}, {row.model}"
    if math.isnan(row.informative):
        raise InputError(
            f"the card of {card.judge!r} on {where} lacks refusals or answers; correct with another row"
        )
    if row.informative <= 0:
        raise InputError(
            f"judge {card.judge!r} has sensitivity {row.sensitivity.value:.3f} and specificity "
            f"{row.specificity.value:.3f} on {where}: their sum is at most 1, so its verdicts say nothing "
            "about refusal and cannot be corrected; use another judge"
        )
    if math.isnan(rate.value):
        corrected = undefined(rate.reason, rate.n)
    elif model == ALL:
        return _of_a_new_model(rate, card, confidence)
    else:
        corrected = rogan_gladen(rate.value, rate.n, row.sensitivity, row.specificity, confidence)
    note = ""
    return CorrectedRate(rate, corrected, row.sensitivity, row.specificity, card.judge, where, note)


def _of_a_new_model(rate: Estimate, card: JudgeCard, confidence: float) -> CorrectedRate:
    pooled = card.row(ALL)
    refusing = [row for row in card.by_model if row.sensitivity.n]
    answering = [row for row in card.by_model if row.specificity.n]
    hits = [row.true_positive for row in refusing], [row.sensitivity.n for row in refusing]
    passes = [row.true_negative for row in answering], [row.specificity.n for row in answering]
    k = min(len(refusing), len(answering))
    where = f"{card.labelled}, {len(card.by_model)} models"
    if k < LEAST_MODELS:
        point = rogan_gladen(rate.value, rate.n, pooled.sensitivity, pooled.specificity, confidence)
        note = (
            f"no interval: the card has {k} models with refusals and answers, and how much the judge differs "
            f"from one model to the next takes {LEAST_MODELS}; label some of these answers, or name the "
            "card's model"
        )
        corrected = Estimate(point.value, math.nan, math.nan, rate.n, "rogan-gladen", note)
        return CorrectedRate(rate, corrected, pooled.sensitivity, pooled.specificity, card.judge, where, note)
    sensitivity, specificity = (new_model_share(*counts, confidence) for counts in (hits, passes))
    low, high = corrected_interval(rate.value, rate.n, hits, passes, confidence=confidence)
    value = (rate.value + specificity.value - 1) / (sensitivity.value + specificity.value - 1)
    value = min(high, max(low, min(1.0, max(0.0, value))))
    corrected = Estimate(
        value, low, high, rate.n, f"rogan-gladen, random effects over {k} models {confidence:.0%}"
    )
    note = "for a model that is not on the card: the interval carries how the judge differs between models"
    return CorrectedRate(rate, corrected, sensitivity, specificity, card.judge, where, note)


def rogan_gladen(
    rate: float, n: int, sensitivity: Estimate, specificity: Estimate, confidence: float = 0.95
) -> Estimate:
    """Rogan and Gladen's corrected rate with Lang and Reiczigel's interval; see `correct`."""
    low, high = lang_reiczigel(
        np.array([rate]), n, np.array([sensitivity.value]), sensitivity.n, np.array([specificity.value]),
        specificity.n, confidence,
    )  # fmt: skip
    value = (rate + specificity.value - 1) / (sensitivity.value + specificity.value - 1)
    return Estimate(
        min(1.0, max(0.0, value)),
        float(low[0]),
        float(high[0]),
        n,
        f"rogan-gladen, lang-reiczigel {confidence:.0%}",
    )


def lang_reiczigel(
    rate: Array, n: int, sensitivity: Array, n_sensitivity: int, specificity: Array,
    n_specificity: int, confidence: float = 0.95,
) -> tuple[Array, Array]:  # fmt: skip
    """Bounds of corrected rates, elementwise over arrays of one shape (Lang & Reiczigel 2014)."""
    z = float(sps.norm.ppf(0.5 + confidence / 2))
    p = (n * rate + z * z / 2) / (n + z * z)
    se = (n_sensitivity * sensitivity + 1) / (n_sensitivity + 2)
    sp = (n_specificity * specificity + 1) / (n_specificity + 2)
    spread_se, spread_sp = se * (1 - se) / (n_sensitivity + 2), sp * (1 - sp) / (n_specificity + 2)
    youden = se + sp - 1
    truth = (p + sp - 1) / youden
    shift = 2 * z * z * (truth * spread_se - (1 - truth) * spread_sp)
    variance = p * (1 - p) / (n + z * z) + truth**2 * spread_se + (1 - truth) ** 2 * spread_sp
    half = z * np.sqrt(variance) / np.abs(youden)
    return np.clip(truth + shift - half, 0, 1), np.clip(truth + shift + half, 0, 1)
