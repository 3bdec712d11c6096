"""Look at a model in the middle of its training and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tamperlens.finetune.rng import preserved_randomness
from tamperlens_hooks.quantised import evaluation


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards modes, gradients, `requires_grad` and random states are as before.

    Gradients are put aside by reference and not copied, so they come back bit for bit.
    """
    held = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    with preserved_randomness(), torch.enable_grad(), evaluation(module):
        for parameter, _, _ in held:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, wanted, gradient in held:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient
