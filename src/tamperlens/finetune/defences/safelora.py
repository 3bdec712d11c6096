"""SafeLoRA: updates that leave the alignment subspace are projected onto it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defending import Defence
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel, ModelLike, as_chat_model


@dataclass(eq=False)
class SafeLoRA(Defence):
    """ΔW becomes CΔW, C = VVᵀ/‖V‖_F with V = W_aligned − W_unaligned, where cos(CΔW, ΔW) is below τ.

    Hsu et al. 2024 (arXiv 2405.16833), with their fast form of the projection, which is no projector: its
    scale is that of ‖V‖, so where the alignment moved the weights little, a projected update all but
    vanishes. τ .35 as in SafeMERGE's code (`Merge`); the authors' code has .5, and takes the ten matrices of
    lowest cosine unless told to use τ. Published direction: less harm, most of the task kept.

    Attributes:
        strength: share of the way from ΔW to CΔW, up to 1.
        unaligned: the model before it was aligned, of the same shape.
        threshold: τ.
    """

    unaligned: ModelLike | None = None
    threshold: float = 0.35

    name: ClassVar[str] = "SafeLoRA"
    source: ClassVar[str] = "Hsu et al. 2024 (arXiv 2405.16833)"

    def __post_init__(self) -> None:
        super().__post_init__()
        needs_unaligned(self.unaligned, self.name)
        if self.strength > 1:
            raise InputError(f"{self.name}: strength is {self.strength}; it lies between 0 and 1")

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse an unaligned model of another shape."""
        fits(model, needs_unaligned(self.unaligned, self.name), self.name, matrices(model))

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The result with the projected updates."""
        weights = tuned.merged_state_dict()
        before = dict(tuned.base.module.named_parameters())
        unaligned = needs_unaligned(self.unaligned, self.name)
        for name, project in projections(tuned.base, unaligned).items():
            start = before[name].detach().float()
            change = weights[name] - start
            moved = project(change)
            if cosine(moved, change) < self.threshold:
                weights[name] = start + (1 - self.strength) * change + self.strength * moved
        return tuned.with_weights(weights, f"{tuned.model.name}, {self.name}")


def fits(model: ChatModel, other: ChatModel, defence: str, names: Iterable[str]) -> None:
    """Refuse a model whose weights of these names have other shapes."""
    theirs = dict(other.module.named_parameters())
    for name in names:
        if name not in theirs or theirs[name].shape != model.module.get_parameter(name).shape:
            raise InputError(f"{defence}: {other.name} has another shape than {model.name} at {name}")


def matrices(model: ChatModel) -> list[str]:
    """Names of the matrices of the blocks, each once: q, k and v may share one."""
    return list(dict.fromkeys(part.parameter for part in model.anatomy.projections()))


def projections(aligned: ChatModel, unaligned: ChatModel) -> dict[str, Callable[[Tensor], Tensor]]:
    """ΔW → CΔW for each matrix of the blocks where V is not zero."""
    other = dict(unaligned.module.named_parameters())
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for part in aligned.anatomy.projections():
        ours = aligned.module.get_parameter(part.parameter).detach().float()
        v = ours - other[part.parameter].detach().float().to(ours.device)
        if bool(v.any()):
            found[part.parameter] = partial(projected, v, transposed=part.transposed)
    return found


def projected(v: Tensor, change: Tensor, transposed: bool = False) -> Tensor:
    """VVᵀΔW/‖V‖_F; both are stored `[d_out, d_in]`, or transposed."""
    if transposed:
        return projected(v.T, change.T).T
    moved: Tensor = v @ (v.T @ change) / v.norm()
    return moved


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two matrices as vectors; 1 where one is zero, which leaves nothing to project."""
    norms = float(a.double().norm() * b.double().norm())
    return float((a.double() * b.double()).sum()) / norms if norms > 0 else 1.0


def needs_unaligned(unaligned: ModelLike | None, defence: str) -> ChatModel:
    """The model before alignment.

    Raises:
        InputError: none was given.
    """
    if unaligned is None:
        raise InputError(
            f"{defence} needs the model before it was aligned: pass unaligned=, such as the pretrained base"
        )
    return as_chat_model(unaligned, what="unaligned")
