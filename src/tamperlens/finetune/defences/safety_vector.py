"""A safety vector added to the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defences.safelora import fits, needs_unaligned
from tamperlens.finetune.defending import Defence
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel, ModelLike


@dataclass(eq=False)
class SafetyVector(Defence):
    """Adds γ(W_aligned − W_unaligned) to the tuned weights (RESTA, Bhardwaj et al. 2024, arXiv 2402.11746).

    There the unaligned model is the aligned one after harmful fine-tuning; any model of the same shape that
    refuses nothing will do. γ 1 is our choice. Published direction: less harm, most of the task kept.

    Attributes:
        strength: γ.
        unaligned: a model like the base that has lost its refusals.
    """

    unaligned: ModelLike | None = None

    name: ClassVar[str] = "safety vector"
    source: ClassVar[str] = "Bhardwaj et al. 2024 (arXiv 2402.11746), RESTA"

    def __post_init__(self) -> None:
        super().__post_init__()
        needs_unaligned(self.unaligned, self.name)

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse an unaligned model of another shape."""
        names = [name for name, _ in model.module.named_parameters()]
        fits(model, needs_unaligned(self.unaligned, self.name), self.name, names)

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The result with the vector added."""
        weights = tuned.merged_state_dict()
        before = dict(tuned.base.module.named_parameters())
        other = dict(needs_unaligned(self.unaligned, self.name).module.named_parameters())
        for name in weights:
            vector = before[name].detach().float() - other[name].detach().float().to(weights[name].device)
            weights[name] = weights[name] + self.strength * vector
        return tuned.with_weights(weights, f"{tuned.model.name} + safety vector")
