"""First-order estimates: attribution patching at one point, and averaged along a path of embeddings."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.heads.inputs import Batch
from tamperlens.heads.targets import Inputs, Target
from tamperlens.models import ChatModel, evaluating
from tamperlens_hooks import capture, unwrap
from tamperlens_hooks.head_gradients import embeddings_replaced, head_gradients

Point = Literal["clean", "corrupt"]
Scored = tuple[Float[Tensor, "batch layer head"], Float[Tensor, " batch"]]


def gradient(model: ChatModel, target: Target, batch: Batch, *, at: str, baseline: Tensor | None) -> Scored:
    """(z_clean − z_other) · ∂ target / ∂ z, summed over positions, and the target on the clean run.

    Args:
        model: the model.
        target: what to differentiate.
        batch: with pairs, `other` is the corrupt run; without, it is `baseline`.
        at: "clean" or "corrupt": the run that the gradient is taken on.
        baseline: [layer, head, d_head], or None for zero.

    Raises:
        InputError: the corrupt point asked for without pairs.
    """
    if batch.corrupt is None:
        if at != "clean":
            raise InputError("the gradient at the corrupt point needs corrupt=, the partner of each prompt")
        z, slopes, value = head_gradients(model, partial(target.read, model, batch.clean))
        other = 0 if baseline is None else baseline[:, None, None].to(z)
        return _contract(z - other, slopes), value
    first, second = (batch.clean, batch.corrupt) if at == "clean" else (batch.corrupt, batch.clean)
    z, slopes, value = head_gradients(model, partial(target.read, model, first))
    other, value_other = run_for_z(model, target, second)
    step = z - other if at == "clean" else other - z
    return _contract(step, slopes), value if at == "clean" else value_other


def integrated(model: ChatModel, target: Target, batch: Batch, *, steps: int) -> Scored:
    """(z_clean − z_corrupt) · mean of ∂ target / ∂ z over `steps` points from corrupt to clean.

    Embeddings at point k are corrupt + k/steps · (clean − corrupt), k = 1 … steps, as in EAP-IG (Hanna et
    al. 2024, arXiv 2403.17806, eq. 3); one step is the gradient at the clean point.

    Raises:
        InputError: no pairs.
    """
    if batch.corrupt is None:
        raise InputError("method 'integrated' needs corrupt=, the other end of the path for each prompt")
    table = unwrap(model.module).get_submodule(model.anatomy.embedding)
    with evaluating(model.module):
        start, end = (table(inputs["input_ids"]) for inputs in (batch.corrupt, batch.clean))
    total: Tensor | None = None
    for k in range(1, steps + 1):
        mixed = start + k / steps * (end - start)
        handle = embeddings_replaced(model, partial(_instead, mixed))
        try:
            z, slopes, value = head_gradients(model, partial(target.read, model, batch.clean))
        finally:
            handle.remove()
        total = slopes if total is None else total + slopes
    assert total is not None
    other, _ = run_for_z(model, target, batch.corrupt)
    return _contract(z - other, total / steps), value  # the last point is the clean run itself


def run_for_z(
    model: ChatModel, target: Target, inputs: Inputs
) -> tuple[Float[Tensor, "layer batch seq head d_head"], Float[Tensor, " batch"]]:
    """Every head's z in one run without gradients, and the target."""
    with evaluating(model.module), capture(model, sites="head_z") as tape:
        value = target.read(model, inputs)
    return tape["head_z"], value


def _contract(step: Tensor, slopes: Tensor) -> Tensor:
    """[layer, batch, seq, head, d_head] twice to [batch, layer, head]."""
    return torch.einsum("lbshk,lbshk->blh", step.float(), slopes.float())


def _instead(value: Tensor, output: Tensor) -> Tensor:
    return value
