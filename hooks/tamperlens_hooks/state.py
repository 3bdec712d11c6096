"""Use a model for a measurement and leave no trace: modes, gradients and random states come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from tamperlens_hooks._threads import alone
from tamperlens_hooks.quantised import is_four_bit


@contextmanager
def preserve_state(module: nn.Module, *, rng: bool = False, grad: bool | None = None) -> Iterator[None]:
    """Evaluation mode inside; on the way out everything named here is as it was, also when the body raises.

    4-bit layers are in training mode instead, which changes nothing in them: in evaluation mode a CPU with
    bfloat16 instructions packs their weights anew, for good, in a form that rounds the scales and passes no
    gradient on.

    ```python
    with preserve_state(module, rng=True, grad=True):   # in the middle of somebody's training loop
        losses(module).sum().backward()                 # their .grad, flags and random numbers are untouched
    ```

    Other threads that want the same of any model wait until the body is through.

    Args:
        module: each part's own training flag is put back.
        rng: put the global generators of Python, numpy and torch back too.
        grad: None leaves gradients alone. True puts every parameter's `requires_grad` and `.grad` aside, by
            reference, so that the body may differentiate anything. False does so too and no parameter
            requires a gradient inside, so that nothing is spent on them. With either, autograd is on inside.
    """
    with alone, _preserved(module, rng, grad):
        yield


@contextmanager
def _preserved(module: nn.Module, rng: bool, grad: bool | None) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    held = [] if grad is None else [(one, one.requires_grad, one.grad) for one in module.parameters()]
    with ExitStack() as stack:
        if rng:
            stack.enter_context(preserved_randomness())
        if grad is not None:
            stack.enter_context(torch.enable_grad())
        try:
            for part, mode in modes:
                if mode != is_four_bit(part):
                    part.training = not mode
            for parameter, _, _ in held:
                parameter.grad = None
                if grad is False:
                    parameter.requires_grad_(False)
            yield
        finally:
            for part, mode in modes:
                if part.training != mode:  # writing a module's attribute is slow
                    part.training = mode
            for parameter, wanted, gradient in held:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; every part's own training flag is put back."""
    with preserve_state(module), torch.no_grad():
        yield


def random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators, in JSON terms (one list per CUDA device)."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back to what `random_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(one, dtype=torch.uint8) for one in state["cuda"]])


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Whatever the body draws, the global generators are afterwards where they were before."""
    with alone:
        state = random_state()
        try:
            yield
        finally:
            set_random_state(state)
