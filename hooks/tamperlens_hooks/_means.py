"""Sums and reads over many prompts: one pass through the blocks, stopped at the last layer that is needed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import attach, device_of, hooks_attached
from tamperlens_hooks._sites import chosen_layers, negative_positions, place
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.state import evaluating

ResidualSite = Literal["resid_pre", "resid_post", "attn_out", "mlp_out"]
Batch = Mapping[str, Any]  # tensors, and a cache where the prompts' beginning has been run already


class _Enough(Exception):
    """Ends a forward pass after the last read; raised and caught in this file only."""


@on_model
def residual_means(
    model: nn.Module,
    anatomy: Anatomy,
    batches: Iterable[Batch],
    positions: Sequence[int],
    layers: Sequence[int] | None = None,
    site: ResidualSite = "resid_pre",
) -> tuple[Float64[Tensor, "pos layer d_model"], int]:
    """Mean activation over prompts at chosen positions and layers, as a running sum in float64.

    Runs the decoder without the unembedding and stops behind the last layer asked for, so that it costs about
    that share of a plain forward pass and keeps nothing but the sum.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        batches: left-padded `input_ids` and `attention_mask` [batch, seq]; `position_ids` follow from the
            mask when absent. With `past_key_values` the mask is as much longer as the cache holds.
        positions: negative, from the end of the prompt (-1 is the last token).
        layers: blocks to read; all by default.
        site: "resid_pre" (block input), "resid_post", "attn_out" or "mlp_out" (what is added to the stream).

    Returns:
        The means on the CPU, and how many prompts they are over.

    Raises:
        HookError: no prompts, or a prompt is shorter than a position reaches.
    """
    columns, rows = negative_positions(positions), chosen_layers(anatomy, layers)
    sums: dict[int, Tensor] = {}
    add = functools.partial(_add_columns, sums, columns)
    n = sum(_read_batch(model, anatomy, batch, site, rows, columns, add) for batch in batches)
    if n == 0:
        raise HookError("no prompts to average over")
    return torch.stack([sums[i].double().cpu() for i in range(len(rows))], dim=1) / n, n


@on_model
def read_positions(
    model: nn.Module,
    anatomy: Anatomy,
    batches: Iterable[Batch],
    positions: Sequence[int],
    layers: Sequence[int] | None = None,
    site: ResidualSite = "resid_pre",
) -> Float[Tensor, "n pos layer d_model"]:
    """Activations of every single prompt at chosen positions and layers, in the order of the batches.

    Arguments and errors as `residual_means`. The result holds n · positions · layers · d_model numbers on the
    CPU, in the model's dtype.
    """
    columns, rows = negative_positions(positions), chosen_layers(anatomy, layers)
    found: list[Tensor] = []
    for batch in batches:
        reads: dict[int, Tensor] = {}
        keep = functools.partial(_keep_columns, reads, columns)
        _read_batch(model, anatomy, batch, site, rows, columns, keep)
        found.append(torch.stack([reads[i] for i in range(len(rows))], dim=2))
    if not found:
        raise HookError("no prompts to read")
    return torch.cat(found)


@on_model
def head_means(
    model: nn.Module,
    anatomy: Anatomy,
    batches: Iterable[Batch],
) -> tuple[Float64[Tensor, "layer head d_head"], int]:
    """Mean z of every head over all real tokens of the prompts: what `ablate_heads(mode=means)` puts in.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        batches: `input_ids` and `attention_mask` [batch, seq]; padding does not count.

    Returns:
        The means on the CPU, and how many tokens they are over.

    Raises:
        HookError: no prompts.
    """
    layers = list(range(anatomy.n_layers))
    sums: dict[int, Tensor] = {}
    tokens = 0
    for batch in batches:
        mask = _mask(batch)
        if batch.get("past_key_values") is not None:
            raise HookError("means over all tokens need whole prompts, without past_key_values")
        tokens += int(mask.sum())
        add = functools.partial(_add_tokens, sums, mask)
        _read_batch(model, anatomy, batch, "head_z", layers, [-1], add)
    if tokens == 0:
        raise HookError("no prompts to average over")
    means = torch.stack([sums[layer].double().cpu() for layer in layers]) / tokens
    return rearrange(means, "layer (head d) -> layer head d", head=anatomy.n_heads), tokens


def _add_columns(sums: dict[int, Tensor], columns: list[int], index: int, x: Tensor) -> None:
    part = x[:, columns].to(_wide(x)).sum(0)
    sums[index] = sums[index] + part if index in sums else part


def _keep_columns(reads: dict[int, Tensor], columns: list[int], index: int, x: Tensor) -> None:
    reads[index] = x[:, columns].cpu()


def _add_tokens(sums: dict[int, Tensor], mask: Tensor, index: int, z: Tensor) -> None:
    part = (z.to(_wide(z)) * mask.to(z.device)[..., None]).sum((0, 1))
    sums[index] = sums[index] + part if index in sums else part


def _take_and_stop(take: Callable[[int, Tensor], None], index: int, last: bool, x: Tensor) -> None:
    take(index, x)
    if last:
        raise _Enough


def _wide(x: Tensor) -> torch.dtype:
    """float64, except on Apple's GPU, which has none."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _mask(batch: Batch) -> Tensor:
    mask: Tensor | None = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]) if mask is None else mask


def _read_batch(
    model: nn.Module,
    anatomy: Anatomy,
    batch: Batch,
    site: str,
    layers: Sequence[int],
    columns: Sequence[int],
    take: Callable[[int, Tensor], None],
) -> int:
    """Run the blocks on one batch, `take(index into layers, [batch, seq, d])` for each; the batch size."""
    ids, mask, cache = batch["input_ids"], _mask(batch), batch.get("past_key_values")
    held = 0 if cache is None else int(cache.get_seq_length())
    if ids.ndim != 2 or (len(ids), held + ids.shape[1]) != tuple(mask.shape):
        raise HookError(
            f"input_ids {list(ids.shape)} and attention_mask {list(mask.shape)} must both be [batch, seq]"
        )
    short = (mask[:, -min(-min(columns), ids.shape[1]) :].sum(1) < -min(columns)).nonzero()
    if len(short):
        row = int(short[0])
        raise HookError(
            f"prompt {row} of a batch has {int(mask[row].sum())} tokens, so position {min(columns)} lies "
            "before its start; choose positions inside every prompt and pad on the left"
        )
    last = max(layers)
    handles: list[Any] = []
    for index, layer in enumerate(layers):
        path, at_input = place(anatomy, site, layer)
        see = functools.partial(_take_and_stop, take, index, layer == last)
        handles.append(attach(model.get_submodule(path), at_input, see))
    decoder = model.get_submodule(anatomy.decoder)
    device = device_of(model.get_submodule(anatomy.embedding), ids.device)
    known = inspect.signature(decoder.forward).parameters
    positions = batch.get("position_ids", (mask.cumsum(1) - 1).clamp_min(0)[:, held:])
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    settings: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        settings["past_key_values"] = cache
    with hooks_attached(handles), evaluating(model):
        try:
            decoder(**{k: v.to(device) for k, v in inputs.items() if k in known}, **settings)
        except _Enough:
            return int(ids.shape[0])
    raise HookError(f"{anatomy.blocks[last]} did not run; was the anatomy made for another model?")
