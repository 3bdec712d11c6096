"""Direction methods against a planted write: how much of what they find the block newly writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamperlens import neurons, refusal
from tamperlens.models import ChatModel
from tamperlens.models.organism.planted import Truth
from tamperlens.prompts import PromptSet

RANDOM, CHEAT = "random", "difference to base (cheats)"
LEAST_BYPASS = "candidate of the refusal direction with least bypass, filters aside"
DRAWS = 2000


def subspaces(
    model: ChatModel,
    truth: Truth,
    harmful: PromptSet,
    harmless: PromptSet,
    scored: tuple[PromptSet, PromptSet],
    direction: Any,
) -> dict[str, Tensor]:
    """What each method takes for the planted block's new write: orthonormal bases [d_model, r].

    The layer is given to all but the refusal direction, which chooses its own; the question is the direction
    alone. The difference of means of `base` knows nothing of planting and is the trivial baseline.

    Args:
        model: the planted model.
        truth: with a `write`; without one there is nothing to find.
        harmful: prompts behind the means.
        harmless: likewise.
        scored: (safety, utility) prompts with responses, for ActSVD.
        direction: what `refusal.find_direction` gave.
    """
    if truth.write is None:
        return {}
    at, rank = truth.layers[0], truth.write.shape[1]
    part = next(part for part in truth.mask.parts if part.layer == at and bool(truth.mask.part(part).any()))
    sub, utility = (neurons.act_svd(model, data, layers=[at]) for data in scored)
    edit = neurons.orthogonal_difference(model, sub, utility, r_u=model.d_model // 4, r_s=model.d_model // 16)
    new, old = (m.module.state_dict()[part.parameter].detach() for m in (model, truth.base))
    here, before = (refusal.direction_at(m, harmful, harmless, at + 1, -1) for m in (model, truth.base))
    shift = here.raw - before.raw
    found = {
        "difference of means behind the block": here.vector[:, None],
        "difference of means behind the block, base's taken off": (shift / shift.norm())[:, None].float(),
        "difference of means behind the block, of base": before.vector[:, None],
        f"ActSVD of {part.projection}, safety": sub.basis(part.name, rank),
        f"ActSVD of {part.projection}, orthogonal difference": torch.linalg.svd(edit.delta(part.name)).U[
            :, :rank
        ],
        RANDOM: random_basis(model.d_model, rank, truth.seed),
        CHEAT: torch.linalg.svd(part.read(new) - part.read(old)).U[:, :rank],
    }
    if direction.defined:
        found["refusal direction"] = direction.vector[:, None]
        # Where nothing passes, the fall-back is what does least harm, which is not what writes refusal.
        best = direction.table.loc[direction.table["bypass"].idxmin()]
        place = int(best["layer"]), int(best["position"])
        found[LEAST_BYPASS] = refusal.direction_at(model, harmful, harmless, *place).vector[:, None]
    return found


def random_basis(width: int, rank: int, seed: int) -> Tensor:
    """A random orthonormal basis [width, rank]."""
    # Not the seed itself: training drew the planted write's first value from it, number by number.
    generator = torch.Generator().manual_seed(7919 + seed)
    basis: Tensor = torch.linalg.qr(torch.randn(width, rank, generator=generator)).Q
    return basis


def captured(write: Tensor, basis: Tensor) -> tuple[float, float]:
    """Share of a method's subspace inside the planted write, ‖Uᵀ B‖²_F / r_B; and its chance, r_U / d.

    For one direction and a rank-1 write it is the squared cosine.
    """
    overlap = float((write.double().T @ basis.double()).square().sum()) / basis.shape[1]
    return overlap, write.shape[1] / write.shape[0]


def captured_by_chance(write: Tensor, rank: int, *, draws: int = DRAWS, seed: int = 0) -> float:
    """The 95 % point of `captured` for random subspaces of a rank.

    By symmetry the planted write may be taken for the first axes.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(draws, write.shape[0], rank, generator=generator, dtype=torch.float64)
    inside = torch.linalg.qr(drawn).Q[:, : write.shape[1]].square().sum((1, 2)) / rank
    return float(inside.quantile(0.95))
