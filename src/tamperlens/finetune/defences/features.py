"""LDIFS: inner features may not move far from the base's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.finetune.defending import Defence, During, Training, forward
from tamperlens_hooks.capture import Tape, capture


@dataclass(eq=False)
class Features(Defence):
    """Adds λ times the squared distance of the residual stream to the base's on the training batch (LDIFS).

    Mukhoti et al. 2023 (arXiv 2308.13320): ℓ2 in the space of concatenated features of several layers, λ 10,
    found for image models (not verified in the paper); taken to language models by Kaczér et al. 2025 (arXiv
    2508.06249), on the streams of every fifth block with λ 1 as others report it, where it does almost
    nothing against emergent misalignment. Here: the streams behind `layers` blocks spread evenly
    over the model, at every real token, squared distance over the base's squared norm (our scale, so that λ
    means the same in every model), mean over tokens and layers.

    Attributes:
        strength: λ.
        layers: how many blocks are compared.
    """

    strength: float = 10.0
    layers: int = 5

    name: ClassVar[str] = "feature distance"
    source: ClassVar[str] = "Mukhoti et al. 2023 (arXiv 2308.13320), LDIFS"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1:
            raise InputError(f"{self.name}: layers is {self.layers}; it must be at least 1")

    def during(self, training: Training) -> During:
        """The term."""
        return _Distance(training, self)


class _Distance(During):
    def __init__(self, training: Training, defence: Features) -> None:
        super().__init__(training)
        self.weight = defence.strength
        n = training.base.anatomy.n_layers
        k = min(defence.layers, n)
        self.layers = sorted({round((i + 1) * n / k) - 1 for i in range(k)})
        self.tape: Tape | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.tape = stack.enter_context(
                capture(self.training.model, ["resid_post"], self.layers, detach=False)
            )
            yield
        self.tape = None

    def loss(self, loss: Tensor, logits: Tensor, inputs: Mapping[str, Tensor], share: Tensor) -> Tensor:
        assert self.tape is not None
        ours = torch.stack(self.tape.raw("resid_post"))
        with torch.no_grad(), capture(self.training.base, ["resid_post"], self.layers) as read:
            forward(self.training.base, inputs)
        theirs = read["resid_post"]
        real = inputs["attention_mask"].bool()
        return loss + self.weight * share * distance(ours[:, real], theirs[:, real])


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean over layers and tokens of ‖ours − theirs‖² / ‖theirs‖², each `[layer, token, d_model]`."""
    gap = (ours.float() - theirs.float()).square().sum(-1)
    return (gap / theirs.float().square().sum(-1).clamp_min(1e-12)).mean()
