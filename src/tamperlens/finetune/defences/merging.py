"""Safety-aware merging: layers that left the alignment subspace are merged with a safe model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defences.safelora import cosine, fits, matrices, projections
from tamperlens.finetune.defending import Defence
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel, ModelLike, as_chat_model


@dataclass(eq=False)
class Merge(Defence):
    """ΔW becomes (1 − w)ΔW + wΔW_safe in every matrix whose cos(CΔW, ΔW) is below τ, C as in `SafeLoRA`.

    SafeMERGE (Djuhera et al. 2025, arXiv 2503.17239): τ .35, weights .8 and .2, as in the authors' code;
    ΔW_safe is the update of a safety-tuned model, and zero (the base) where none is given. Without
    `unaligned` every matrix is merged, which is plain interpolation with the base (Farn et al. 2024, arXiv
    2412.19512). Published direction: less harm, the task kept.

    Attributes:
        strength: w, up to 1.
        unaligned: the model before it was aligned.
        safe_model: a safety-tuned model of the same shape.
        threshold: τ.
    """

    strength: float = 0.2
    unaligned: ModelLike | None = None
    safe_model: ModelLike | None = None
    threshold: float = 0.35

    name: ClassVar[str] = "safety-aware merge"
    source: ClassVar[str] = "Djuhera et al. 2025 (arXiv 2503.17239), SafeMERGE"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength > 1:
            raise InputError(f"{self.name}: strength is {self.strength}; it lies between 0 and 1")
        for what in ("unaligned", "safe_model"):
            if (other := getattr(self, what)) is not None:
                as_chat_model(other, what=what)

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse models of another shape."""
        for other in (self.unaligned, self.safe_model):
            if other is not None:
                fits(model, as_chat_model(other), self.name, matrices(model))

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The merged result."""
        weights = tuned.merged_state_dict()
        before = dict(tuned.base.module.named_parameters())
        safe = (
            {} if self.safe_model is None else dict(as_chat_model(self.safe_model).module.named_parameters())
        )
        towards = None if self.unaligned is None else projections(tuned.base, as_chat_model(self.unaligned))
        for name in matrices(tuned.base):
            start = before[name].detach().float()
            change = weights[name] - start
            if towards is not None and (
                name not in towards or cosine(towards[name](change), change) >= self.threshold
            ):
                continue
            goal = safe[name].detach().float().to(start.device) - start if name in safe else 0.0
            weights[name] = start + (1 - self.strength) * change + self.strength * goal
        return tuned.with_weights(weights, f"{tuned.model.name}, merged")
