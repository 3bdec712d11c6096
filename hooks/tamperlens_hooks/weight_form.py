"""The weight form of an ablation: what orthogonalised output matrices compute, without writing to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from tamperlens_hooks._calling import VectorLike, on_model
from tamperlens_hooks._modules import attach, hooks_attached
from tamperlens_hooks._sites import place
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.edit import _remove, _unit
from tamperlens_hooks.errors import HookError

__all__ = ["ablate_weights"]


@on_model
@contextmanager
def ablate_weights(
    model: nn.Module,
    anatomy: Anatomy,
    direction: VectorLike,
    allow_post_norm: bool = False,
) -> Iterator[None]:
    """Compute as with W ← W − r̂ r̂ᵀ W in every matrix that writes to the stream (Arditi et al. 2024, §4.1).

    These are the embedding, the attention output projections and the MLP down projections, with their biases
    and adapters, and the last matrices of experts and of what stands in attention's place. Where blocks write
    straight to the residual stream this is the same map as `ablate_direction`. On post-norm blocks (Gemma 2
    and 3, OLMo-2) it is not: the norm behind the projection rescales each coordinate, so that part of the
    direction comes back.

    Args:
        model: module and anatomy, or one object with both; no weight is written.
        anatomy: of the module.
        direction: [d_model] of any length, or an object with one as `.vector`; r̂ is its unit vector.
        allow_post_norm: go on all the same on a post-norm model, for comparison.

    Raises:
        HookError: a post-norm model, or a direction of the wrong size, zero or not finite.
    """
    if anatomy.post_norm and not allow_post_norm:
        raise HookError(
            f"{anatomy.family} has a norm between its projections and the residual stream, so that "
            "orthogonalised weights do not ablate the direction; use ablate_direction, or pass "
            "allow_post_norm=True to compare"
        )
    remove = partial(_remove, _unit(direction, anatomy))
    handles: list[Any] = []
    with hooks_attached(handles):
        # At the first block's input, so that tables of positions and embedding scales count too.
        path, at_input = place(anatomy, "resid_pre", 0)
        handles.append(attach(model.get_submodule(path), at_input, remove, tokenwise=True))
        for layer in range(anatomy.n_layers):
            maps = {part.name: part.module for part in anatomy.projections(layer)}
            # What experts and mixers without heads write is what their own last matrices do.
            for path in (maps.get("o", anatomy.attention[layer]), maps.get("down", anatomy.mlp[layer])):
                handles.append(attach(model.get_submodule(path), False, remove, tokenwise=True))
        yield
