"""Ships and Sahara as published: heads whose attention is flattened (Zhou et al. 2024, arXiv 2410.13708)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.logits import kl_divergence
from tamperlens.heads.exact import Head
from tamperlens.heads.inputs import Batch
from tamperlens.heads.targets import Inputs
from tamperlens.models import ChatModel, evaluating
from tamperlens.models.generation import forward_last
from tamperlens_hooks import capture
from tamperlens_hooks.queries import scale_queries
from tamperlens_hooks.rerun import Prefix

SHIPS_SCALE = 1e-4
SAHARA_SCALE = 1e-5


def ships(model: ChatModel, batch: Batch, *, scale: float = SHIPS_SCALE) -> Float[Tensor, "batch layer head"]:
    """KL(p_untouched ‖ p_masked) of the next token at the last position, each head masked in turn, in nats.

    The mask multiplies the head's queries by `scale` in front of the rotary embedding.
    """
    anatomy, prefix = model.anatomy, Prefix(model)
    found = torch.zeros(len(batch.rows), anatomy.n_layers, anatomy.n_heads, dtype=torch.float64)
    with evaluating(model.module):
        with prefix.recording():
            base = _last(model, batch.clean)
        for layer in range(anatomy.n_layers):
            for head in range(anatomy.n_heads):
                with prefix.resumed(layer), scale_queries(model, [(layer, head)], scale):
                    found[:, layer, head] = kl_divergence(base, _last(model, batch.clean)).cpu()
    return found


def sahara(
    model: ChatModel, batches: Sequence[Batch], *, steps: int = 1, scale: float = SAHARA_SCALE
) -> tuple[Float[Tensor, "layer head"], list[Head], list[float]]:
    """Angle in degrees by which masking a head turns the prompts' main left singular vector; greedy.

    The states of the last token behind the final norm (the last entry of transformers' hidden states), one
    row per prompt, are decomposed as U S Vᵀ; the shift is the angle between the first columns of U,
    untouched and masked. At every step the head with the largest shift joins the mask, and the others are
    scored on top of it.

    Returns:
        The shifts of the first step, the heads chosen, and the shift reached at each step.

    Raises:
        InputError: fewer than two prompts (U would be ±1), or too many steps.
    """
    anatomy = model.anatomy
    everything = [(layer, head) for layer in range(anatomy.n_layers) for head in range(anatomy.n_heads)]
    if sum(len(batch.rows) for batch in batches) < 2:
        raise InputError("sahara needs at least two prompts: with one there is no direction to turn")
    if not 1 <= steps <= len(everything):
        raise InputError(f"steps is {steps}; it must be between 1 and the {len(everything)} heads")
    chosen: list[Head] = []
    reached: list[float] = []
    first: Tensor | None = None
    with evaluating(model.module):
        base = _main(torch.cat([_states(model, batch.clean) for batch in batches]))
        for _ in range(steps):
            table = _shifts(model, batches, base, chosen, scale)
            first = table if first is None else first
            best = max((at for at in everything if at not in chosen), key=lambda at: float(table[at]))
            chosen.append(best)
            reached.append(float(table[best]))
    assert first is not None
    return first, chosen, reached


def _shifts(
    model: ChatModel, batches: Sequence[Batch], base: Tensor, mask: list[Head], scale: float
) -> Tensor:
    """Degrees for every head added to the mask."""
    anatomy = model.anatomy
    states: dict[Head, list[Tensor]] = {}
    for batch in batches:
        prefix = Prefix(model)
        with prefix.recording():
            if mask:
                with scale_queries(model, mask, scale):
                    _states(model, batch.clean)
            else:
                _states(model, batch.clean)
        for layer in range(anatomy.n_layers):
            for head in range(anatomy.n_heads):
                if (layer, head) in mask:
                    continue
                with prefix.resumed(layer), scale_queries(model, [*mask, (layer, head)], scale):
                    states.setdefault((layer, head), []).append(_states(model, batch.clean))
    table = torch.zeros(anatomy.n_layers, anatomy.n_heads, dtype=torch.float64)
    for at, found in states.items():
        table[at] = angle(base, _main(torch.cat(found)))
    return table


def angle(u: Float[Tensor, " n"], v: Float[Tensor, " n"]) -> float:
    """Degrees between two lines along unit vectors; arccos |u·v| without its loss of digits near 0."""
    v = v if float(u @ v) >= 0 else -v
    return 2 * math.degrees(math.atan2(float((u - v).norm()), float((u + v).norm())))


def _main(states: Tensor) -> Tensor:
    """First left singular vector."""
    u: Tensor = torch.linalg.svd(states.double(), full_matrices=False)[0]
    return u[:, 0]


def _states(model: ChatModel, inputs: Inputs) -> Tensor:
    with capture(model, sites="final", positions="last") as tape:
        _last(model, inputs)
    return tape["final"].cpu()


def _last(model: ChatModel, inputs: Inputs) -> Tensor:
    return forward_last(
        model.module, inputs["input_ids"], inputs["attention_mask"], inputs["position_ids"], use_cache=False
    )
