"""Reasons not to call a selected direction the refusal direction: there may be no refusal to find."""

from __future__ import annotations

import math

import torch

from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import Split
from tamperlens.directions.geometry import auroc_estimate
from tamperlens.directions.nulls import FEWEST, HALVES, activations_at, band, null_cosines
from tamperlens.directions.scoring import Baseline
from tamperlens.directions.selection import Selection
from tamperlens.directions.tokens import RefusalTokens
from tamperlens.models import ChatModel

DRAWS = 200


def doubts(
    model: ChatModel,
    split: Split,
    chosen: Selection,
    tokens: RefusalTokens,
    baseline: Baseline,
    *,
    cache: ActivationCache | None = None,
) -> list[str]:
    """What speaks against the direction, beside the filters that the selection knows; [] when nothing does.

    Args:
        model: the model.
        split: the prompts.
        chosen: the place that was selected.
        tokens: the refusal tokens; where a judge was asked for them, it must have found refusals.
        baseline: the untouched model on the validation prompts.
        cache: where activations are kept between calls.
    """
    found = []
    if tokens.source.startswith("found") and not tokens.n_refused:
        found.append("the model refused none of the harmful prompts that the judge was shown")
    finite = bool(
        torch.isfinite(baseline.each_harmful).all() and torch.isfinite(baseline.each_harmless).all()
    )
    apart = auroc_estimate(baseline.each_harmful, baseline.each_harmless)
    if not finite or not apart.low > 0.5:
        found.append(
            f"the refusal metric does not tell harmful from harmless prompts (AUROC {apart.value:.2f} "
            f"[{apart.low:.2f}, {apart.high:.2f}])"
        )
    if min(len(split.harmful_train), len(split.harmless_train)) >= FEWEST:
        bad, good = (
            activations_at(model, prompts, chosen.layer, chosen.position, cache=cache)
            for prompts in (split.harmful_train, split.harmless_train)
        )
        null = band(null_cosines(bad, good, kind=HALVES, n_draws=DRAWS, seed=0), len(bad), HALVES)
        if not math.isnan(null.value) and not null.low > 0:
            found.append(
                f"directions from halves of the prompts do not agree (cosine {null.value:.2f} "
                f"[{null.low:.2f}, {null.high:.2f}])"
            )
    return found
