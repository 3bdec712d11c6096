"""Named choices of options: `published`, and `calibrated`, the best of SNIP's on planted organisms."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tamperlens.base.errors import InputError
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.neurons.choosing import Group
from tamperlens.neurons.examples import Pairs
from tamperlens.neurons.scores import WeightScores
from tamperlens.neurons.snip import SnipReduction, snip

Normalise = Literal["layer", "matrix", "none"]


@dataclass(frozen=True)
class Preset:
    """Options of a weight score, together.

    Attributes:
        name: what it is called.
        loss: of SNIP.
        reduction: of SNIP: absolute values per example or of the batch's gradient.
        normalise: scores over the mean of their "layer" or "matrix", or "none".
        group: what sets are ranked inside; for `WeightScores.top` and `set_difference`.
        source: where the choice comes from.
    """

    name: str
    loss: str
    reduction: SnipReduction
    normalise: Normalise
    group: Group
    source: str


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "published", "response_mean", "mean_abs", "none", "matrix",
            "Wei et al. 2024 (arXiv 2402.05162), code of the set difference",
        ),
        Preset(
            "calibrated", "response_mean", "mean_abs", "layer", "global",
            "analyses/planted_truth.py on models of 1.3 M parameters; see docs/planted-truth.md for how far "
            "to trust it",
        ),
    )
}  # fmt: skip


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: no such preset; the message lists those that exist.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_scores(model: ModelLike, data: Pairs, name: str = "published", **settings: object) -> WeightScores:
    """SNIP with the options of a preset; rank it inside `preset(name).group`.

    Args:
        model: the model.
        data: prompts with responses.
        name: of the preset.
        settings: further arguments of `snip`.
    """
    model = as_chat_model(model)
    chosen = preset(name)
    given: Any = settings
    scores = snip(model, data, loss=chosen.loss, reduction=chosen.reduction, **given)
    return normalised(scores, chosen.normalise)


def normalised(scores: WeightScores, by: Normalise) -> WeightScores:
    """Scores divided by the mean over their layer or matrix, so that no layer wins by its scale alone.

    Args:
        scores: non-negative scores.
        by: "layer", "matrix" or "none".
    """
    if by == "none":
        return scores
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for part in scores.parts:
        key = str(part.layer) if by == "layer" else part.name
        sums[key] = sums.get(key, 0.0) + float(scores.part(part).double().sum())
        sizes[key] = sizes.get(key, 0) + part.numel
    tensors = {name: value.clone() for name, value in scores.items()}
    for part in scores.parts:
        key = str(part.layer) if by == "layer" else part.name
        mean = sums[key] / sizes[key]
        if mean > 0:
            part.write(tensors[part.parameter], scores.part(part) / mean)
    return dataclasses.replace(
        scores,
        tensors=tensors,
        definition=f"{scores.definition}, over the mean of its {by}",
        unit=f"means of a {by}",
        settings={**scores.settings, "normalise": by},
    )
