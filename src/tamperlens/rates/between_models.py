"""A judge's error rates on a model that its card has not seen: random effects over the card's models.

Sensitivity and specificity differ between models far more than their sampling explains, so that a rate of a
fourth model corrected with the pooled figures of three is wrong by more than its interval. Here the logits of
both are normal around a mean with a variance between models (DerSimonian & Laird 1986), and a new model is
drawn from the predictive t distribution with k − 1 degrees of freedom (Higgins, Thompson & Spiegelhalter
2009, who take k − 2; at three models that would be Cauchy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats as sps

from tamperlens.base.stats import Estimate

Array = npt.NDArray[np.float64]
LEAST_MODELS = 3


def logit_effects(hits: Sequence[int], totals: Sequence[int]) -> tuple[float, float, float]:
    """Mean logit over models, its variance, and the variance between models (DerSimonian & Laird).

    Half a count is added to hits and misses, so that a model without errors has a finite logit.
    """
    right, n = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    wrong = n - right
    effect = np.log((right + 0.5) / (wrong + 0.5))
    within = 1 / (right + 0.5) + 1 / (wrong + 0.5)
    weight = 1 / within
    fixed = float((weight * effect).sum() / weight.sum())
    q = float((weight * (effect - fixed) ** 2).sum())
    scale = float(weight.sum() - (weight**2).sum() / weight.sum())
    between = max(0.0, (q - (len(n) - 1)) / scale)
    weight = 1 / (within + between)
    return float((weight * effect).sum() / weight.sum()), float(1 / weight.sum()), between


def draw_new_model(hits: Sequence[int], totals: Sequence[int], draws: int, rng: np.random.Generator) -> Array:
    """Draws of the share right on a model that is not among these, `[draws]`."""
    mean, variance, between = logit_effects(hits, totals)
    deviate = rng.standard_t(len(totals) - 1, draws)
    shares: Array = 1 / (1 + np.exp(-(mean + deviate * np.sqrt(variance + between))))
    return shares


def new_model_share(hits: Sequence[int], totals: Sequence[int], confidence: float = 0.95) -> Estimate:
    """Sensitivity or specificity on a model that is not among these, with its prediction interval."""
    mean, variance, between = logit_effects(hits, totals)
    half = float(sps.t.ppf(0.5 + confidence / 2, len(totals) - 1)) * math.sqrt(variance + between)
    value, low, high = (1 / (1 + math.exp(-logit)) for logit in (mean, mean - half, mean + half))
    return Estimate(
        value, low, high, sum(totals), f"random effects over {len(totals)} models {confidence:.0%}"
    )


def corrected_interval(
    rate: float,
    n: int,
    sensitivity: tuple[Sequence[int], Sequence[int]],
    specificity: tuple[Sequence[int], Sequence[int]],
    *,
    confidence: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bounds of the corrected rate of a new model, by simulation.

    Args:
        rate: share that the judge calls refused.
        n: of how many answers.
        sensitivity: per model of the card, refusals that the judge found, and refusals.
        specificity: per model, answers that the judge let pass, and answers.
        confidence: coverage over models, in (0, 1).
        draws: of the simulation.
        seed: of the simulation.

    Returns:
        Bounds in [0, 1]. Draws in which the judge is no better than chance say nothing and stand at both
        ends.
    """
    rng = np.random.default_rng(seed)
    se, sp = (draw_new_model(*counts, draws, rng) for counts in (sensitivity, specificity))
    judged = rng.beta(rate * n + 0.5, (1 - rate) * n + 0.5, draws)
    youden = se + sp - 1
    useful = youden > 0
    truth = np.clip((judged + sp - 1) / np.where(useful, youden, 1.0), 0, 1)
    truth[~useful] = np.arange((~useful).sum()) % 2
    tail = (1 - confidence) / 2
    low, high = np.quantile(truth, [tail, 1 - tail])
    return float(low), float(high)
