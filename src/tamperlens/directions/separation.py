"""How well a direction tells two kinds of prompts apart by projection: AUROC, d′, TPR at 1 % FPR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined, wilson
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import check_disjoint
from tamperlens.directions.direction import Direction
from tamperlens.directions.geometry import auroc_estimate, d_prime, tpr_at_fpr
from tamperlens.directions.nulls import activations_at, resamples
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, prompt_texts

DRAWS = 1000


@dataclass(frozen=True)
class Separation(Result):
    """Projections of harmful and harmless prompts onto one direction.

    Attributes:
        auroc: probability that a harmful prompt lies above a harmless one (Newcombe's interval).
        tpr: share of harmful prompts above the threshold that at most 1 % of the harmless ones exceed
            (Wilson's interval, the threshold taken as given).
        d_prime: difference of means over the pooled standard deviation (bootstrap over prompts).
        gap: difference of means, in units of the residual stream (bootstrap over prompts).
        threshold: of `tpr`.
        n_harmful: harmful prompts.
        n_harmless: harmless prompts.
    """

    auroc: Estimate
    tpr: Estimate
    d_prime: Estimate
    gap: Estimate
    threshold: float
    n_harmful: int
    n_harmless: int

    def summary(self) -> str:
        """How well the projections tell harmful from harmless prompts."""
        return (
            f"AUROC {self.auroc}, d′ {self.d_prime}, true positives at 1 % false ones {self.tpr} "
            f"({self.n_harmful} harmful and {self.n_harmless} harmless prompts)."
        )


def separation(
    model: ModelLike,
    direction: Direction,
    harmful: Prompts,
    harmless: Prompts,
    *,
    fpr: float = 0.01,
    seed: int = 0,
    cache: ActivationCache | None = None,
) -> Separation:
    """Project prompts onto a direction at its own layer and position.

    Use prompts that had no part in finding the direction: on its own training prompts every difference of
    means separates well.

    Args:
        model: whose activations; it may be another checkpoint than the direction's.
        direction: unit vector, layer, position.
        harmful: prompts that should lie high.
        harmless: prompts that should lie low.
        fpr: false positive rate of the threshold.
        seed: of the bootstrap.
        cache: where activations are kept between calls.

    Raises:
        InputError: the direction is undefined or of another width, prompts in both sets, an empty set.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> direction = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> held_out = [prompts.packaged(name, split='test').head(20) for name in ('harmful', 'harmless')]
        >>> found = directions.separation(model, direction, *held_out)
        >>> found.auroc.value > 0.9
        True
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    if not direction.defined:
        raise InputError(f"the direction of {direction.model!r} is undefined: {direction.flag}")
    check_disjoint(harmful, harmless)
    unit = direction.vector.double()
    sides = [
        activations_at(model, prompt_texts(data), direction.layer, direction.position, cache=cache) @ unit
        for data in (harmful, harmless)
    ]
    return separate(sides[0], sides[1], fpr=fpr, seed=seed)


def separate(
    positive: Float64[Tensor, " n"], negative: Float64[Tensor, " m"], *, fpr: float = 0.01, seed: int = 0
) -> Separation:
    """The numbers of `Separation` from projections at hand.

    Raises:
        InputError: no negatives.
    """
    above, threshold = tpr_at_fpr(positive, negative, fpr)
    gap, spread = bootstrap_gap(positive, negative, seed=seed)
    return Separation(
        auroc=auroc_estimate(positive, negative),
        tpr=wilson(above, len(positive)),
        d_prime=spread,
        gap=gap,
        threshold=threshold,
        n_harmful=len(positive),
        n_harmless=len(negative),
    )


def bootstrap_gap(
    positive: Float[Tensor, " n"], negative: Float[Tensor, " m"], *, seed: int = 0, draws: int = DRAWS
) -> tuple[Estimate, Estimate]:
    """(difference of means, d′), both sides resampled by themselves; d′ undefined below 2 prompts each."""
    n = min(len(positive), len(negative))
    if n < 2:
        return undefined("fewer than 2 prompts on one side", n), undefined("fewer than 2 prompts", n)
    generator = torch.Generator().manual_seed(seed)
    moments = []
    for values in (positive.double(), negative.double()):
        weights = resamples(len(values), draws, generator)
        mean = weights @ values
        variance = (weights @ values.square() - mean.square()) * len(values) / (len(values) - 1)
        moments.append((mean, variance.clamp_min(0)))
    gaps = moments[0][0] - moments[1][0]
    pooled = ((moments[0][1] + moments[1][1]) / 2).sqrt()
    whole = float(positive.double().mean() - negative.double().mean())
    value = d_prime(positive, negative)
    spreads = (gaps / pooled)[pooled > 0].numpy()
    second = (
        Estimate(value, *_central(spreads), n, "bootstrap 95%")
        if value == value and len(spreads)
        else undefined("no spread", n)
    )
    return Estimate(whole, *_central(gaps.numpy()), n, "bootstrap 95%"), second


def _central(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
