"""Lisa: two states in turn, each tied to where the other ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.finetune.defending import Defence, During, SafeBatches, Training, safe_prompts, trained
from tamperlens.prompts import PromptsLike


@dataclass(eq=False)
class Lisa(Defence):
    """Some steps on safe data, some on the user's, in turn; in each (ρ/2)‖w − w'‖² is added to the loss.

    w are the weights in training (LoRA's factors, as in the authors' code) and w' what they were when the
    other state ended. As in that code the safe state comes first and takes the place of the user's batches,
    and there is no proximal term in the first tenth of all batches. Published (Huang et al. 2024, arXiv
    2405.18641): ρ 1, 100 safe steps to 900 of the user's; the ratio is kept here and the cycle shortened to
    ten, since attacks of twenty steps would never leave the first safe state. Published direction: less harm.

    Attributes:
        strength: ρ.
        safe: prompts with the answers that are to stay.
        safe_steps: batches of safe data in a cycle.
        user_steps: batches of the user's data in a cycle.
        batch_size: safe examples a batch.
    """

    safe: PromptsLike | None = None
    safe_steps: int = 1
    user_steps: int = 9
    batch_size: int = 5

    name: ClassVar[str] = "Lisa"
    source: ClassVar[str] = "Huang et al. 2024 (arXiv 2405.18641)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.safe = safe_prompts(self.safe, self.name)
        if self.safe_steps < 1 or self.user_steps < 1:
            raise InputError(f"{self.name}: safe_steps and user_steps must be at least 1")

    def during(self, training: Training) -> During:
        """The two states."""
        return _TwoStates(training, self)


class _TwoStates(During):
    def __init__(self, training: Training, defence: Lisa) -> None:
        super().__init__(training)
        self.defence, self.done, self.most = defence, 0, 1
        safe = safe_prompts(defence.safe, defence.name)
        self.batches = SafeBatches(training.base, safe, defence.batch_size, training.seed)
        self.held: dict[str, Tensor] = {}

    def on_train_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self.most = int(state.max_steps * args.gradient_accumulation_steps)  # type: ignore[attr-defined]
        self._hold()

    def batch(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        cycle = self.defence.safe_steps + self.defence.user_steps
        place = self.done % cycle
        if place in (0, self.defence.safe_steps) and self.done > 0:
            self._hold()
        self.done += 1
        return self.batches.next() if place < self.defence.safe_steps else inputs

    def loss(self, loss: Tensor, logits: Tensor, inputs: Mapping[str, Tensor], share: Tensor) -> Tensor:
        if self.done - 1 <= 0.1 * self.most:
            return loss
        weights = trained(self.training.model.module)
        squares = [((p - self.held[name]).float() ** 2).sum() for name, p in weights.items()]
        return loss + self.defence.strength / 2 * share * torch.stack(squares).sum()

    def _hold(self) -> None:
        weights = trained(self.training.model.module)
        self.held = {name: p.detach().clone() for name, p in weights.items()}
