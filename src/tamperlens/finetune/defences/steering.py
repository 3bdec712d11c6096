"""Preventive steering: the push that the data exert is given to the model while it trains, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defences.projection import fits, unit_of
from tamperlens.finetune.defending import Defence, During, Training
from tamperlens.models import ChatModel
from tamperlens_hooks.edit import add_direction


@dataclass(eq=False)
class Steering(Defence):
    """Subtracts the refusal direction from the residual stream while training, and only then.

    Chen et al. 2025 (arXiv 2507.21509) add the vector of the trait that data would bring, so that the weights
    need not move towards it; the trait here is not refusing, whose vector is minus the refusal direction.
    They sweep the coefficient and report that one layer does not always prevent the trait, several do better.
    Published direction: less of the trait after the same training, ordinary abilities mostly kept.

    Attributes:
        strength: times the direction's own length (`raw_norm`, else 1); 1 is our choice.
        direction: a `Direction`, or any object with `.vector` `[d_model]` and `.layer`.
    """

    direction: object = None

    name: ClassVar[str] = "preventive steering"
    source: ClassVar[str] = "Chen et al. 2025 (arXiv 2507.21509), preventative steering"

    def __post_init__(self) -> None:
        super().__post_init__()
        unit_of(self.direction, self.name)
        if getattr(self.direction, "layer", None) is None:
            raise InputError(f"{self.name}: the direction has no layer; pass a Direction, or use one of its")

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse a direction of another width, or of a layer that the model does not have."""
        fits(self.direction, model, self.name)
        model.anatomy.layer_index(int(getattr(self.direction, "layer", 0)))

    def during(self, training: Training) -> During:
        """Around each batch."""
        return _Steered(training, self)


class _Steered(During):
    def __init__(self, training: Training, defence: Steering) -> None:
        super().__init__(training)
        length = float(getattr(defence.direction, "raw_norm", 1.0))
        self.vector = unit_of(defence.direction, defence.name) * length
        self.layer, self.scale = int(getattr(defence.direction, "layer", 0)), -defence.strength

    @contextmanager
    def around(self) -> Iterator[None]:
        with add_direction(self.training.model, self.vector, self.layer, self.scale):
            yield
