"""SafeLoRA: updates that leave the alignment subspace are projected onto it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
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
    vanishes. τ .35 as in the authors' examples. Published direction: less harm, most of the task kept.

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
        subspaces(model, self.unaligned, self.name, only=())

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The result with the projected updates."""
        weights = tuned.merged_state_dict()
        before = dict(tuned.base.module.named_parameters())
        for name, matrix in subspaces(tuned.base, self.unaligned, self.name).items():
            start = before[name].detach().float()
            change = weights[name] - start
            moved = projected(matrix, change)
            if cosine(moved, change) < self.threshold:
                weights[name] = start + (1 - self.strength) * change + self.strength * moved
        return tuned.with_weights(weights, f"{tuned.model.name}, {self.name}")


def subspaces(
    aligned: ChatModel, unaligned: ModelLike | None, defence: str, only: tuple[str, ...] | None = None
) -> dict[str, Float[Tensor, "rows columns"]]:
    """V = W_aligned − W_unaligned, as [d_out, d_in], of each matrix of the blocks where it is not zero.

    Raises:
        InputError: a model of another shape.
    """
    other = dict(needs_unaligned(unaligned, defence).module.named_parameters())
    found = {}
    for part in aligned.anatomy.projections():
        name, ours = part.parameter, aligned.module.get_parameter(part.parameter)
        if name not in other or other[name].shape != ours.shape:
            raise InputError(
                f"{defence}: the unaligned model has another shape than {aligned.name} at {name}"
            )
        if only is not None and name not in only:
            continue
        difference = (ours - other[name].to(ours.device)).detach().float()
        if bool(difference.any()):
            found[name] = difference.T if part.transposed else difference
    return found


def projected(v: Float[Tensor, "out inner"], change: Tensor) -> Tensor:
    """VVᵀΔW/‖V‖_F, for a change stored as V is or transposed."""
    turned = change.shape[0] != v.shape[0]
    wide = change.T if turned else change
    moved: Tensor = v @ (v.T @ wide) / v.norm()
    return moved.T if turned else moved


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
