"""Every localiser of the library on one model: a score for each weight, neuron, head, or a direction.

Each level has the same two ends: "random" (scores that know nothing) and "difference to base", which cheats
by reading the answer. Between them stand the methods and the trivial baselines (largest weight, largest
gradient). Only what says so in its name has seen `base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamperlens import heads, neurons, prompts, refusal
from tamperlens.base.masks import WeightMask
from tamperlens.models import ChatModel
from tamperlens.models.organism.planted import Truth
from tamperlens.neurons import WeightScores
from tamperlens.neurons.choosing import Group
from tamperlens.prompts import PromptSet
from tamperlens.studies.planted.directions import CHEAT, RANDOM, subspaces

Vector = npt.NDArray[np.float32]
LEVELS = ("weights", "neurons", "heads")
PAIRS = ((0.01, 0.01), (0.05, 0.05), (0.1, 0.1), (0.1, 0.05))
GROUPS: tuple[Group, ...] = ("matrix", "row", "global")


@dataclass(frozen=True)
class Data:
    """What the methods may look at; disjoint from the prompts that models are verified on.

    Attributes:
        safety: harmful prompts with refusals.
        utility: ordinary prompts with answers.
        harmful: prompts that should be refused, for directions and heads.
        harmless: prompts that should be answered.
    """

    safety: PromptSet
    utility: PromptSet
    harmful: PromptSet
    harmless: PromptSet

    @classmethod
    def packaged(cls, n: int = 128, seed: int = 0) -> Data:
        """The organism's training splits, n rows for scoring and 160 for directions."""

        def draw(name: str, count: int, split: str | None = "train") -> PromptSet:
            data = prompts.packaged(name, split=split)
            return data.sample(min(count, len(data)), seed=seed)

        harmful, harmless = draw("harmful", 160), draw("harmless", 160)
        share = -(-n // 6)
        kinds = ("harmless", "lookalike", "addition", "logic", "code", "facts")
        utility = PromptSet.concat([draw(name, share) for name in kinds], name="utility")
        return cls(draw("harmful", n), utility, harmful, harmless)


@dataclass(frozen=True)
class Candidates:
    """What the methods said of one model.

    Attributes:
        scores: level to method to scores, flat: weights in the order of `parts_of(model)`, units as
            layer × unit.
        sets: weight sets of the published set difference, name to flags.
        directions: method to an orthonormal basis [d_model, r] of what it says the block writes.
        layer: the block that the refusal direction was chosen at the input of, or -1.
        refusal: the refusal direction [d_model, 1], or None where none is defined.
    """

    scores: dict[str, dict[str, Vector]]
    sets: dict[str, WeightMask]
    directions: dict[str, Tensor]
    layer: int
    refusal: Tensor | None = None


def candidates(
    model: ChatModel, truth: Truth, data: Data, *, seed: int = 0, exact: bool = True
) -> Candidates:
    """Run every method on a planted model.

    Args:
        model: the planted model.
        truth: only its base is read, by the methods whose definition compares two checkpoints.
        data: what methods look at.
        seed: of the random scores.
        exact: also the exact head methods (20 ablations a prompt).
    """
    s, u = _snips(model, data)
    direction = refusal.find_direction(model, data.harmful, data.harmless, n_train=128, n_val=32)
    cheat = neurons.magnitude(model, reference=truth.base)
    blind = neurons.random(model, seed=seed)
    weight = _weights(model, data, s, u, cheat, blind)
    neuron = _neurons(model, truth, data, s, u, cheat, seed)
    head = _heads(model, data, direction, s, cheat, seed, exact)
    sets = {
        f"set difference p {p:g} q {q:g} per {group}": mask
        for group in GROUPS
        for p, q, mask in neurons.sweep(s["response_mean"], u["response_mean"], PAIRS, group)
    }
    directions = subspaces(model, truth, data.harmful, data.harmless, (data.safety, data.utility), direction)
    scores = {"weights": weight, "neurons": neuron, "heads": head}
    chosen = direction.vector[:, None] if direction.defined else None
    return Candidates(scores, sets, directions, direction.layer if direction.defined else -1, chosen)


def flat(scores: WeightScores) -> Vector:
    """All scores in one vector, part after part, [out, in] each."""
    return np.concatenate([values.ravel() for _, values in scores.by_part()])


def flat_mask(mask: WeightMask) -> npt.NDArray[np.bool_]:
    """Flags in the order of `flat`."""
    return np.concatenate([mask.part(part).numpy().ravel() for part in mask.parts])


def mask_of(like: WeightMask, flags: npt.NDArray[np.bool_], definition: str) -> WeightMask:
    """The inverse of `flat_mask`, for the model that `like` is of."""
    from tamperlens.base import bits

    tensors = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in like.shapes.items()}
    at = 0
    for part in like.parts:
        piece = torch.from_numpy(flags[at : at + part.numel].reshape(part.d_out, part.d_in))
        part.write(tensors[part.parameter], piece)
        at += part.numel
    packed = {name: bits.pack(value) for name, value in tensors.items()}
    return WeightMask(
        packed, like.shapes, like.parts, like.fingerprint, like.base_fingerprint, like.model, definition, {}
    )


def unit_truth(truth: Truth, level: str) -> npt.NDArray[np.bool_]:
    """Which neurons or heads are planted: those more than half of whose own weights are, layer × unit."""
    found = truth.mask
    anatomy = truth.base.anatomy
    reading, writing = (("gate", "up"), "down") if level == "neurons" else (("q",), "o")
    units = anatomy.d_mlp if level == "neurons" else anatomy.n_heads
    inside = torch.zeros(anatomy.n_layers, units, dtype=torch.float64)
    whole = torch.zeros_like(inside)
    for part in found.parts:
        flags = found.part(part).double()
        if part.projection in reading:
            inside[part.layer] += flags.sum(1).reshape(units, -1).sum(1)
        elif part.projection == writing:
            inside[part.layer] += flags.sum(0).reshape(units, -1).sum(1)
        else:
            continue
        whole[part.layer] += part.numel / units
    answer: npt.NDArray[np.bool_] = (inside > whole / 2).flatten().numpy()
    return answer


def _snips(model: ChatModel, data: Data) -> tuple[dict[str, WeightScores], dict[str, WeightScores]]:
    losses = ("response_mean", "first_1", "first_5")
    safety = {loss: neurons.snip(model, data.safety, loss=loss) for loss in losses}
    safety["batch"] = neurons.snip(model, data.safety, reduction="abs_mean", max_zero_share=1.0)
    safety["first_1, batch"] = neurons.snip(
        model, data.safety, loss="first_1", reduction="abs_mean", max_zero_share=1.0
    )
    utility = {loss: neurons.snip(model, data.utility, loss=loss) for loss in ("response_mean", "first_1")}
    return safety, utility


def _weights(
    model: ChatModel,
    data: Data,
    s: Mapping[str, WeightScores],
    u: Mapping[str, WeightScores],
    cheat: WeightScores,
    blind: WeightScores,
) -> dict[str, Vector]:
    size = flat(neurons.magnitude(model))
    plain, first = s["response_mean"], s["first_1"]
    base, one = flat(plain), flat(first)
    wanda, wanda_u = flat(neurons.wanda(model, data.safety)), flat(neurons.wanda(model, data.utility))
    sv = neurons.act_svd(model, data.safety)
    edit = neurons.orthogonal_difference(
        model, sv, neurons.act_svd(model, data.utility), r_u=model.d_model // 4, r_s=model.d_model // 16
    )
    return {
        "SNIP": base,
        "SNIP, first token": one,
        "SNIP, first 5 tokens": flat(s["first_5"]),
        "SNIP, batch gradient": flat(s["batch"]),
        "SNIP, first token, batch gradient": flat(s["first_1, batch"]),
        "SNIP, ranked per matrix": _ranked(plain, "matrix"),
        "SNIP, ranked per row": _ranked(plain, "row"),
        "SNIP, layers normalised": flat(neurons.normalised(plain, "layer")),
        "SNIP, matrices normalised": flat(neurons.normalised(plain, "matrix")),
        "SNIP, safety / utility": _over(base, flat(u["response_mean"])),
        "SNIP, first token, safety / utility": _over(one, flat(u["first_1"])),
        "SNIP, rank in safety − rank in utility": _ranked(plain, "matrix")
        - _ranked(u["response_mean"], "matrix"),
        "Wanda": wanda,
        "Wanda, safety / utility": _over(wanda, wanda_u),
        "ActSVD, orthogonal difference": np.concatenate(
            [edit.delta(part.name).abs().numpy().ravel() for part in edit.parts]
        ),
        "largest |W|": size,
        "largest gradient": base / np.maximum(size, np.finfo(np.float32).tiny),
        RANDOM: flat(blind),
        CHEAT: flat(cheat),
    }


def _neurons(
    model: ChatModel,
    truth: Truth,
    data: Data,
    s: Mapping[str, WeightScores],
    u: Mapping[str, WeightScores],
    cheat: WeightScores,
    seed: int,
) -> dict[str, Vector]:
    def of(scores: WeightScores) -> Vector:
        return _flat(neurons.by_neuron(model, scores).scores)

    snip = of(s["response_mean"])
    pairs = (data.harmful, data.harmless)
    return {
        "SNIP by neuron": snip,
        "SNIP by neuron, first token": of(s["first_1"]),
        "SNIP by neuron, safety / utility": _over(snip, of(u["response_mean"])),
        "activation contrast with base": _flat(
            neurons.activation_contrast(model, truth.base, data.safety).scores
        ),
        "contrastive attribution": _flat(neurons.contrastive_attribution(model, *pairs).scores),
        "contrastive attribution, standardised": _flat(
            neurons.contrastive_attribution(model, *pairs, statistic="standardised").scores
        ),
        "largest |W|": of(neurons.magnitude(model)),
        "largest gradient": of(_gradient(model, s["response_mean"])),
        RANDOM: _noise((model.anatomy.n_layers, model.anatomy.d_mlp), seed),
        CHEAT: of(cheat),
    }


def _heads(
    model: ChatModel,
    data: Data,
    direction: Any,
    s: Mapping[str, WeightScores],
    cheat: WeightScores,
    seed: int,
    exact: bool,
) -> dict[str, Vector]:
    clean, corrupt = heads.align(model, data.harmful.head(32), data.harmless, name="requests")
    goal: dict[str, Any] = {"target": "refusal_tokens", "tokens": direction.tokens}
    plans: dict[str, dict[str, Any]] = {
        "direct": {"method": "direct"},
        "gradient": {"method": "gradient"},
        "gradient, pairs": {"method": "gradient", "corrupt": corrupt},
        "gradient, pairs, at corrupt": {"method": "gradient", "corrupt": corrupt, "at": "corrupt"},
        "integrated": {"method": "integrated", "corrupt": corrupt},
        "Ships": {"method": "ships"},
        "Sahara": {"method": "sahara"},
    }
    if exact:
        plans |= {
            "ablate, zero": {"method": "ablate"},
            "ablate, mean": {"method": "ablate", "baseline": "mean"},
            "ablate, resample": {"method": "ablate", "baseline": "resample", "corrupt": corrupt},
            "patch": {"method": "patch", "corrupt": corrupt},
            "path": {"method": "path", "corrupt": corrupt},
        }
    found = {name: _flat(heads.attribute(model, clean, **goal, **how).scores) for name, how in plans.items()}
    edges = heads.edges(model, clean, corrupt=corrupt, refusal_tokens=direction.tokens)
    found["edges through later blocks (EAP-IG)"] = _flat(edges.through(model).scores)

    def of(scores: WeightScores) -> Vector:
        return _flat(neurons.by_head(model, scores).scores)

    return found | {
        "SNIP by head": of(s["response_mean"]),
        "SNIP by head, first token": of(s["first_1"]),
        "largest |W|": of(neurons.magnitude(model)),
        "largest gradient": of(_gradient(model, s["response_mean"])),
        RANDOM: _noise((model.anatomy.n_layers, model.anatomy.n_heads), seed),
        CHEAT: of(cheat),
    }


def _gradient(model: ChatModel, scores: WeightScores) -> WeightScores:
    """Σ_x |∂L_x/∂W| / N: SNIP without its |W|."""
    import dataclasses

    size = neurons.magnitude(model)
    tiny = torch.finfo(torch.float32).tiny
    tensors = {name: value / size[name].clamp_min(tiny) for name, value in scores.items()}
    return dataclasses.replace(scores, tensors=tensors, definition="mean |gradient|", method="gradient")


def _ranked(scores: WeightScores, group: str) -> Vector:
    """Rank of each weight inside its matrix or row, as a share in (0, 1]."""
    made = []
    for _, values in scores.by_part():
        rows = values.reshape(1, -1) if group == "matrix" else values
        order = rows.argsort(1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(rows.shape[1])[None].repeat(len(rows), 0), 1)
        made.append(((rank + 1) / rows.shape[1]).astype(np.float32).ravel())
    return np.concatenate(made)


def _over(one: Vector, two: Vector) -> Vector:
    """Safety over utility, in units of their means; a thousandth of it keeps idle weights from winning."""
    safe: Vector = (one / one.mean() / (two / two.mean() + 1e-3)).astype(np.float32)
    return safe


def _flat(table: Tensor) -> Vector:
    values: Vector = table.float().flatten().numpy()
    return values


def _noise(shape: Sequence[int], seed: int) -> Vector:
    return np.random.default_rng(seed).random(int(np.prod(shape)), dtype=np.float32)
