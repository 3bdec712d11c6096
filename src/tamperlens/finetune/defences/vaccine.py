"""Vaccine and T-Vaccine: safety training under the worst small change of the hidden states."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import LoraConfig
from tamperlens.finetune.defending import (
    Defence,
    During,
    SafeBatches,
    Training,
    forward,
    is_on,
    safe_prompts,
)
from tamperlens.finetune.running import run
from tamperlens.finetune.training import summed_nats
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptsLike
from tamperlens_hooks import unwrap
from tamperlens_hooks.capture import capture

PUBLISHED = LoraConfig(rank=8, alpha=16, steps=100, batch_size=5, learning_rate=1e-3)


@dataclass(eq=False)
class Vaccine(Defence):
    """Trains the model on safe data before anybody attacks it, with the attention's outputs perturbed.

    For each batch the gradient g of the loss with respect to all attention outputs is taken, and the step
    made with ρ·g/‖g‖ added to them (‖·‖ over all of them together), as in the code of Huang et al. 2024
    (arXiv 2402.01109): ρ 2, LoRA rank 8, learning rate 1e-3, batch 5, 20 epochs on 2,000 examples (50 in the
    code). Published direction: less harm after the same attack. The model that comes out is a base of its
    own: attacks start from it, and `TunedModel.base` is it.

    Attributes:
        strength: ρ.
        safe: prompts with the answers that are to stay: refusals, and ordinary answers so that the model does
            not end up refusing everything.
        config: of this training; LoRA of the published rank and rate by default, and 100 steps and alpha 16
            of our choice (4 in the code, with a cosine schedule and weight decay .1).
        seed: of this training.
    """

    strength: float = 2.0
    safe: PromptsLike | None = None
    config: LoraConfig = PUBLISHED
    seed: int = 0
    _made: dict[str, ChatModel] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str] = "Vaccine"
    source: ClassVar[str] = "Huang et al. 2024 (arXiv 2402.01109)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.safe = safe_prompts(self.safe, self.name)

    def layers(self, model: ChatModel) -> list[int]:
        """Blocks whose attention is perturbed, and which are trained: all."""
        return list(range(model.anatomy.n_layers))

    def start(self, model: ChatModel) -> ChatModel:
        """The vaccinated model; made once for each model."""
        if not is_on(self):
            return model
        if model.fingerprint not in self._made:
            layers = self.layers(model)
            paths = {part.module for part in model.anatomy.projections() if part.layer in layers}
            config = dataclasses.replace(self.config, seed=self.seed, targets=tuple(sorted(paths)))
            step = Perturbed(strength=self.strength, layers=tuple(layers))
            tuned = run(model, safe_prompts(self.safe, self.name), config, progress=False, defence=step)
            made = tuned.merged_model()
            self._made[model.fingerprint] = made.with_module(made.module, name=f"{model.name}, {self.name}")
        return self._made[model.fingerprint]


@dataclass(eq=False)
class TVaccine(Vaccine):
    """Vaccine on the blocks that matter: those with the largest gradients, the rest left alone.

    Liu et al. 2024 (arXiv 2410.09760): blocks are found by the norm of the gradient on harmful examples, and
    only they are perturbed and trained. Their script: 5 blocks, drawn anew every 20 steps, 200 harmful
    examples, ρ 3, batch 10. Here the gradient is that of attention outputs on 16 examples, the same blocks
    are kept throughout, and ρ is Vaccine's. Published direction: better than Vaccine, cheaper.

    Attributes:
        count: how many blocks; half of them by default.
        harmful: harmful prompts with compliant answers; the safe data where there are none.
    """

    count: int | None = None
    harmful: PromptsLike | None = None

    name: ClassVar[str] = "T-Vaccine"
    source: ClassVar[str] = "Liu et al. 2024 (arXiv 2410.09760)"

    def layers(self, model: ChatModel) -> list[int]:
        """The blocks with the largest gradient norms."""
        n = model.anatomy.n_layers
        count = max(1, n // 2) if self.count is None else self.count
        if not 1 <= count <= n:
            raise InputError(f"{self.name}: count is {count}; {model.name} has {n} blocks")
        data = safe_prompts(self.safe if self.harmful is None else self.harmful, self.name)
        batch = SafeBatches(model, data, 16, self.seed).next()
        norms = [float(one.norm()) for one in _gradients(model, batch, list(range(n)))]
        return sorted(sorted(range(n), key=lambda layer: -norms[layer])[:count])


@dataclass(eq=False)
class Perturbed(Defence):
    """The step of Vaccine alone: attention outputs moved by ρ along the loss's gradient.

    Attributes:
        strength: ρ.
        layers: blocks that are perturbed; all by default.
    """

    layers: tuple[int, ...] = ()

    name: ClassVar[str] = "perturbed step"
    source: ClassVar[str] = "Huang et al. 2024 (arXiv 2402.01109)"

    def during(self, training: Training) -> During:
        """Around each batch."""
        return _Perturbing(training, self)


class _Perturbing(During):
    def __init__(self, training: Training, defence: Perturbed) -> None:
        super().__init__(training)
        self.rho = defence.strength
        self.layers = list(defence.layers or range(training.base.anatomy.n_layers))
        self.moves: list[Tensor] = []

    def batch(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        model = self.training.model
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        found = _gradients(model, inputs, self.layers)
        whole = torch.stack([one.norm() for one in found]).norm()
        self.moves = [self.rho * one / (whole + 1e-7) for one in found]
        return inputs

    @contextmanager
    def around(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, move in zip(self.layers, self.moves, strict=True):
                path = self.training.model.anatomy.attention_writes[layer]
                module = unwrap(self.training.model.module).get_submodule(path)
                handle = module.register_forward_hook(partial(_add, move))
                stack.callback(handle.remove)
            yield


def _add(move: Tensor, module: nn.Module, args: object, output: Any) -> object:
    if isinstance(output, tuple):
        return (output[0] + move, *output[1:])
    return output + move


def _gradients(model: ChatModel, inputs: dict[str, Tensor], layers: list[int]) -> list[Tensor]:
    """∂ mean loss / ∂ attention output, by block."""
    with torch.enable_grad(), capture(model, ["attn_out"], layers, detach=False) as tape:
        total, n = summed_nats(forward(model, inputs), inputs["labels"])
        return list(torch.autograd.grad(total / n, tape.raw("attn_out")))
