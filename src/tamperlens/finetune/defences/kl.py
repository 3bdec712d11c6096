"""KL divergence to the base on safe prompts, as a term of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tamperlens.finetune.defending import Defence, During, SafeBatches, Training, forward, safe_prompts
from tamperlens.prompts import PromptsLike


@dataclass(eq=False)
class KL(Defence):
    """Adds λ · KL(p_base ‖ p) per answer token of safe examples, a fresh batch of them at each step.

    The direction base ‖ tuned is that of the code of Huang et al. (git-disl/Vaccine, its KL baseline), there
    on the training batch. Kaczér et al. 2025 (arXiv 2508.06249) regularise so against emergent misalignment;
    published direction: misalignment falls, benign tasks may be learned less well. λ = 1 is our choice;
    theirs is .1 as others report it (not verified in the paper), on the training batch.

    Attributes:
        strength: λ.
        safe: prompts with the answers that are to stay, such as refused harmful requests and ordinary ones.
        batch_size: safe examples a step.
    """

    safe: PromptsLike | None = None
    batch_size: int = 4

    name: ClassVar[str] = "KL to base"
    source: ClassVar[str] = "Kaczér et al. 2025 (arXiv 2508.06249); here on safe prompts"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.safe = safe_prompts(self.safe, self.name)

    def during(self, training: Training) -> During:
        """The term."""
        return _Divergence(training, self)


class _Divergence(During):
    def __init__(self, training: Training, defence: KL) -> None:
        super().__init__(training)
        self.weight = defence.strength
        safe = safe_prompts(defence.safe, defence.name)
        self.batches = SafeBatches(training.base, safe, defence.batch_size, training.seed)

    def loss(self, loss: Tensor, logits: Tensor, inputs: Mapping[str, Tensor], share: Tensor) -> Tensor:
        batch = self.batches.next()
        with torch.no_grad():
            base = forward(self.training.base, batch)
        kept = batch["labels"][:, 1:] != -100
        term = divergence(base[:, :-1][kept], forward(self.training.model, batch)[:, :-1][kept])
        return loss + self.weight * share * term


def divergence(base: Tensor, tuned: Tensor) -> Tensor:
    """Mean KL(p_base ‖ p_tuned) over rows of logits, in nats."""
    ours, theirs = (torch.log_softmax(one.float(), -1) for one in (tuned, base))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()
