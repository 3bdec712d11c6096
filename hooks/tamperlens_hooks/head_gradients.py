"""Gradients of a metric on every head's z, in one forward and one backward pass over frozen weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import module_and_anatomy
from tamperlens_hooks.capture import capture
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.state import preserve_state

__all__ = ["embeddings_replaced", "head_gradients"]


def head_gradients(
    model: Any, metric: Callable[[], Float[Tensor, " batch"]]
) -> tuple[
    Float[Tensor, "layer batch seq head d_head"],
    Float[Tensor, "layer batch seq head d_head"],
    Float[Tensor, " batch"],
]:
    """(z, ∂ metric / ∂ z, metric) of one forward pass.

    The weights are frozen while it runs, so that nothing is spent on their gradients, and the backward pass
    stops at the z of the first block. Rows of a batch do not meet, so the gradient of the sum is each row's
    own.

    Args:
        model: an object with `.module` and `.anatomy`, or a module.
        metric: runs the model once and returns one number per row, with its graph.

    Raises:
        HookError: the metric carries no graph.
    """
    module, anatomy = module_and_anatomy(model)
    with preserve_state(module, grad=False), capture(module, anatomy, "head_z", detach=False) as tape:
        value = metric()
        nodes = tape.raw("head_z")
        if not value.requires_grad:
            raise HookError(
                "the metric does not depend on the heads through torch operations; do not detach or round "
                "inside it"
            )
        found = torch.autograd.grad(value.sum(), nodes, allow_unused=True)
    z = torch.stack([node.detach() for node in nodes])
    # a head that the metric cannot see (above the place that is read) has gradient zero
    slopes = torch.stack([torch.zeros_like(n) if g is None else g for n, g in zip(nodes, found, strict=True)])
    by_head = functools.partial(rearrange, pattern="... (head d) -> ... head d", head=anatomy.n_heads)
    return by_head(z), by_head(slopes), value.detach()


def embeddings_replaced(model: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A handle: the token embedding's output goes through `change` until `handle.remove()`."""
    module, anatomy = module_and_anatomy(model)
    place: nn.Module = module.get_submodule(anatomy.embedding)
    return place.register_forward_hook(lambda _module, _args, output: change(output))
