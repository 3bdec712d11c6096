"""Exact effects: every head ablated or patched in turn, the layers below it run once for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.heads.gradient import Scored, run_for_z
from tamperlens.heads.inputs import Batch
from tamperlens.heads.targets import Inputs, Target
from tamperlens.models import ChatModel, evaluating
from tamperlens_hooks import capture, head_means, unwrap
from tamperlens_hooks.rerun import Prefix

TOKENS = 4096  # at once in one resumed pass, all variants together
Head = tuple[int, int]
Replacement = Callable[[int, Tensor], Tensor]
"""(layer, z [batch, seq, head, d_head]) to the z that each head gets, of the same shape."""


def ablate(
    model: ChatModel,
    target: Target,
    batch: Batch,
    replacements: Sequence[Replacement],
    heads: set[Head] | None,
) -> Scored:
    """target(untouched) − target(one head replaced), mean over replacements, and target(untouched)."""
    value, total = None, None
    for replace in replacements:
        value, found = _each_head(model, target, batch.clean, replace, heads)
        total = found if total is None else total + found
    assert value is not None
    assert total is not None
    effect = value[:, None, None] - total / len(replacements)
    return effect, value


def patch(model: ChatModel, target: Target, batch: Batch, heads: set[Head] | None) -> Scored:
    """target(corrupt run with one head's clean z) − target(corrupt), and target(corrupt).

    All positions at once, as `transformer_lens.patching.get_act_patch_attn_head_out_all_pos`.

    Raises:
        InputError: no pairs.
    """
    if batch.corrupt is None:
        raise InputError("method 'patch' needs corrupt=, the run that clean values are patched into")
    clean, _ = run_for_z(model, target, batch.clean)
    value, found = _each_head(model, target, batch.corrupt, lambda layer, z: clean[layer], heads)
    return found - value[:, None, None], value


def path(model: ChatModel, target: Target, batch: Batch, heads: set[Head] | None) -> Scored:
    """target(clean) − target(clean run with one head's corrupt z, its direct path to the logits kept clean).

    Path patching (Wang et al. 2023, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969) with the
    head as sender and everything that reads the stream in front of the final norm as receivers: what the head
    wrote anew is taken out again at the input of the final norm.

    Raises:
        InputError: no pairs, or a target that is not read from the logits.
    """
    if batch.corrupt is None:
        raise InputError("method 'path' needs corrupt=, the partner that a head's other value comes from")
    if target.layer is not None:
        raise InputError(
            "method 'path' leaves out the direct path to the logits; give target='refusal_tokens' or a metric"
        )
    other, _ = run_for_z(model, target, batch.corrupt)
    value, found = _each_head(model, target, batch.clean, lambda layer, z: other[layer], heads, indirect=True)
    return value[:, None, None] - found, value


def replacements_for(
    model: ChatModel,
    target: Target,
    batch: Batch,
    baseline: str,
    means: Tensor | None,
    donors: Sequence[Inputs],
) -> list[Replacement]:
    """What ablated heads get: zeros, means, or their z on other prompts (one replacement per draw)."""
    if baseline == "zero":
        return [lambda layer, z: torch.zeros_like(z)]
    if baseline == "mean":
        assert means is not None
        table = means
        return [lambda layer, z: table[layer].to(z).expand_as(z)]
    made: list[Replacement] = []
    for inputs in donors:
        other, _ = run_for_z(model, target, inputs)
        made.append(_Donor(other))
    return made


class _Donor:
    def __init__(self, z: Tensor) -> None:
        self.z = z

    def __call__(self, layer: int, z: Tensor) -> Tensor:
        return self.z[layer]


def mean_z(model: ChatModel, batches: Sequence[Batch]) -> Float[Tensor, "layer head d_head"]:
    """Mean z of each head over all tokens of the prompts, fp32."""
    means, _ = head_means(model, [batch.clean for batch in batches])
    return means.float()


def draw_donors(
    sequences: Sequence[Sequence[int]], pool: Sequence[Sequence[int]], draws: int, seed: int
) -> list[list[list[int]]]:
    """For each draw and prompt another prompt of the same token length, seeded.

    Raises:
        InputError: a prompt has no other prompt of its length in the pool.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: list[list[list[int]]] = []
    for _ in range(draws):
        one = []
        for index, ids in enumerate(sequences):
            fits = [list(other) for other in pool if len(other) == len(ids) and list(other) != list(ids)]
            if not fits:
                raise InputError(
                    f"prompt {index} ({len(ids)} tokens) has no other prompt of its length to resample from; "
                    "give more prompts as reference="
                )
            one.append(fits[int(torch.randint(len(fits), (1,), generator=generator))])
        drawn.append(one)
    return drawn


def _each_head(
    model: ChatModel,
    target: Target,
    inputs: Inputs,
    replace: Replacement,
    heads: set[Head] | None,
    *,
    indirect: bool = False,
) -> tuple[Tensor, Tensor]:
    """target [batch], and [batch, layer, head] with each head's z replaced; untouched where not asked for.

    `indirect` hides from the final norm what the head itself writes otherwise.
    """
    anatomy = model.anatomy
    prefix = Prefix(model)
    until = anatomy.n_layers if target.layer is None else target.layer
    with evaluating(model.module):
        usual = capture(model, sites="attn_out") if indirect else nullcontext()
        with prefix.recording(), usual as tape:
            value = target.read(model, inputs)
        rows, seq = inputs["input_ids"].shape
        found = value[:, None, None].repeat(1, anatomy.n_layers, anatomy.n_heads)
        many = max(1, TOKENS // (rows * seq))
        for layer in range(until):
            z = prefix.z(layer)
            alone = layer == until - 1 and target.position == -1  # nothing behind it reads other tokens
            other = replace(layer, z)
            wanted = [h for h in range(anatomy.n_heads) if heads is None or (layer, h) in heads]
            for start in range(0, len(wanted), many):
                chosen = wanted[start : start + many]
                variants = z.repeat(len(chosen), 1, 1, 1)
                for i, head in enumerate(chosen):
                    variants[i * rows : (i + 1) * rows, :, head] = other[:, :, head]
                repeated = {key: tensor.repeat(len(chosen), 1) for key, tensor in inputs.items()}
                hidden = (
                    nullcontext()
                    if tape is None
                    else _hidden_write(model, layer, tape["attn_out"][layer], len(chosen))
                )
                with prefix.resumed(layer, variants, until, last_only=alone), hidden:
                    read = target.read(model, repeated, len(chosen))
                found[:, layer, chosen] = read.reshape(len(chosen), rows).T.to(found.dtype)
    return value, found


@contextmanager
def _hidden_write(model: ChatModel, layer: int, usual: Tensor, copies: int) -> Iterator[None]:
    """Inside, the final norm reads what it would had this layer's attention written as usual."""
    module = unwrap(model.module)
    written: list[Tensor] = []

    def keep(x: Tensor) -> None:
        written[:] = [x - usual[:, -x.shape[1] :].repeat(copies, 1, 1)]

    writer = module.get_submodule(model.anatomy.attention_writes[layer])
    handles = [
        writer.register_forward_hook(lambda _module, _args, output: keep(_first(output))),
        module.get_submodule(model.anatomy.final_norm).register_forward_pre_hook(
            lambda _module, args: (args[0] - written[0][:, -args[0].shape[1] :], *args[1:])
        ),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found
