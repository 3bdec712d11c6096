"""Updates without a component along the refusal direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defending import Defence, During, Training
from tamperlens.models import ChatModel
from tamperlens_hooks import unwrap


@dataclass(eq=False)
class Projection(Defence):
    """The matrices with which attention and MLP write may not change along the refusal direction r̂.

    For each matrix W that writes to the residual stream, gradient and update lose r̂r̂ᵀ of themselves: the
    gradient before the step, and once more W − W_start after it, since AdamW scales entries and would bring
    the component back. With LoRA the same on B. Refusal can still be unlearned by what reads the stream and
    by other directions; where training leaves these matrices alone, nothing is held. The projection is ours;
    a penalty on the projection of hidden states is Du et al. 2025 (arXiv 2509.06795), who report that it
    keeps refusal through benign tuning.

    Attributes:
        strength: share of the component that is removed at each step, up to 1; below 1 it is removed again
            from what is left at every later step.
        direction: `[d_model]`, or an object with one as `.vector` (a `Direction`).
    """

    direction: object = None

    name: ClassVar[str] = "gradient projection"
    source: ClassVar[str] = "ours, after Du et al. 2025 (arXiv 2509.06795)"

    def __post_init__(self) -> None:
        super().__post_init__()
        unit_of(self.direction, self.name)
        if self.strength > 1:
            raise InputError(f"{self.name}: strength is {self.strength}; at most all of it (1) is removed")

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse DoRA, whose norms scale rows of the base too, and a direction of another width."""
        if isinstance(config, LoraConfig) and config.dora:
            raise InputError(f"{self.name} cannot hold a direction under DoRA; use LoRA (dora=False)")
        fits(self.direction, model, self.name)

    def during(self, training: Training) -> During:
        """Before and after each update."""
        return _Projecting(training, self)


class _Projecting(During):
    def __init__(self, training: Training, defence: Projection) -> None:
        super().__init__(training)
        self.strength = defence.strength
        self.unit = unit_of(defence.direction, defence.name)
        self.start: list[tuple[nn.Parameter, int, Tensor]] = []

    def on_train_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self.start = [(p, axis, p.detach().clone()) for p, axis in writers(self.training.model)]

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: object, state: object, control: object, **kwargs: object) -> None:
        for parameter, axis, _ in self.start:
            if parameter.grad is not None:
                parameter.grad.sub_(self._along(parameter.grad, axis))

    @torch.no_grad()
    def on_optimizer_step(self, args: object, state: object, control: object, **kwargs: object) -> None:
        for parameter, axis, start in self.start:
            parameter.sub_(self._along(parameter - start, axis))

    def _along(self, change: Tensor, axis: int) -> Tensor:
        """The component along r̂ of the outputs, times the strength."""
        unit = self.unit.to(change.device, change.dtype)
        if axis == 0:
            return self.strength * torch.outer(unit, unit @ change)
        return self.strength * torch.outer(change @ unit, unit)


def writers(model: ChatModel) -> Iterator[tuple[nn.Parameter, int]]:
    """Weights in training that write to the residual stream, and the axis of their outputs; LoRA's B."""
    inside = unwrap(model.module)
    for part in model.anatomy.projections():
        if part.name not in ("o", "down"):
            continue
        module = inside.get_submodule(part.module)
        factors = getattr(module, "lora_B", None)
        if factors is not None:
            yield from ((one.weight, 0) for one in factors.values())
        else:
            weight = module.get_parameter("weight")
            if weight.requires_grad:
                yield weight, 1 if part.transposed else 0


def unit_of(direction: object, name: str) -> Float[Tensor, " d_model"]:
    """The unit vector of a direction.

    Raises:
        InputError: none was given, or it is zero or not finite.
    """
    vector = getattr(direction, "vector", direction)
    if not isinstance(vector, Tensor) or vector.ndim != 1:
        raise InputError(f"{name} needs a direction: pass direction=, such as refusal.find_direction(...)")
    norm = float(vector.double().norm())
    if not 0 < norm < float("inf"):
        raise InputError(f"{name}: the direction is zero or not finite; compute it anew")
    return (vector.double() / norm).float()


def fits(direction: object, model: ChatModel, name: str) -> None:
    """Refuse a direction of another width."""
    size = unit_of(direction, name).numel()
    if size != model.anatomy.d_model:
        raise InputError(
            f"{name}: the direction has {size} entries, {model.name} needs {model.anatomy.d_model}"
        )
