"""Weights that carry safety, held still in training or put back after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defending import Defence
from tamperlens.finetune.freezing import check_freeze, rewind
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel


@dataclass(eq=False)
class Freeze(Defence):
    """Chosen weights hold the base's bits in every step, and the rest trains around them (Wei et al. 2024).

    The text of arXiv 2402.05162, §4.4, describes this; its code rewinds (`Rewind`). Published direction: the
    attack succeeds nonetheless; 67 % of the weights frozen left .85 attack success after 50 examples.

    Attributes:
        mask: what to hold, such as `neurons.snip(model, refusals).top(0.1)`.
        strength: 0 is off, any other value on.
    """

    mask: WeightMask | None = None

    name: ClassVar[str] = "freeze"
    source: ClassVar[str] = "Wei et al. 2024 (arXiv 2402.05162), as its text says; our bit-exact freezing"

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_mask(self.mask, self.name)

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse DoRA, which moves every entry of a row at every step, and a mask of another model."""
        check_freeze(model, self.mask, config)

    @property
    def freeze(self) -> WeightMask | None:
        """The mask."""
        return self.mask


@dataclass(eq=False)
class Rewind(Defence):
    """The attack trains freely; then chosen weights are put back to the base's (Wei et al. 2024, the code).

    Attributes:
        mask: what to put back.
        strength: 0 is off, any other value on.
    """

    mask: WeightMask | None = None

    name: ClassVar[str] = "rewind"
    source: ClassVar[str] = "Wei et al. 2024 (arXiv 2402.05162), as its code does"

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_mask(self.mask, self.name)

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse DoRA and a mask of another model."""
        check_freeze(model, self.mask, config)

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The tuned model with the mask's weights put back."""
        return rewind(tuned, tuned.base, self.mask) if self.mask is not None else tuned


def _needs_mask(mask: object, name: str) -> None:
    if mask is None:
        raise InputError(f"{name} needs a mask of weights: pass mask=, such as scores.top(0.1)")
