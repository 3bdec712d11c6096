"""Scale the queries of heads, so that they attend to everything alike (the mask of "Ships")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import hooks_attached, output_tensor, with_output_tensor
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.edit import Head, _checked_heads

__all__ = ["scale_queries"]

QUERY_NORMS = ("q_norm", "q_layernorm", "query_layernorm")


@on_model
@contextmanager
def scale_queries(
    model: nn.Module, anatomy: Anatomy, heads: Sequence[Head], scale: float = 1e-4
) -> Iterator[None]:
    """Multiply the queries of heads by `scale` in front of the rotary embedding.

    With a small factor the attention becomes nearly uniform over the visible tokens: the head still writes,
    but no longer chooses what ("undifferentiated attention", Zhou et al. 2024, arXiv 2410.13708, §3.1; 1e-4
    in the published code). That is not the same as zeroing its output. Where the family norms its queries
    (Qwen3, Gemma 3, OLMo-2, LFM2) the scaling comes behind that norm, which would undo it.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        heads: (layer, head) pairs.
        scale: factor.

    Raises:
        HookError: a head does not exist or occurs twice.
    """
    chosen = _checked_heads(anatomy, heads)
    handles: list[Any] = []
    with hooks_attached(handles):
        for layer in sorted({layer for layer, _ in chosen}):
            mine = [head for at, head in chosen if at == layer]
            part = anatomy.projection("q", layer)
            rows = list(part.rows) if isinstance(part.rows, tuple) else part.rows
            start = (rows.start or 0) if isinstance(rows, slice) else 0
            columns = [
                rows[i] if isinstance(rows, list) else start + i
                for head in mine
                for i in range(*anatomy.head_slice(head).indices(anatomy.n_heads * anatomy.d_head))
            ]
            module = model.get_submodule(part.module)
            parts = model.get_submodule(anatomy.attention[layer])._modules
            norm = next((parts[name] for name in QUERY_NORMS if parts.get(name) is not None), None)
            if norm is None:
                handles.append(module.register_forward_hook(partial(_scale_columns, columns, scale)))
                continue
            flat: dict[str, Tensor] = {}
            handles.append(module.register_forward_hook(partial(_note, flat, rows)))
            handles.append(norm.register_forward_hook(partial(_scale_normed, flat, anatomy, mine, scale)))
        yield


def _scale_columns(columns: list[int], scale: float, module: nn.Module, args: Any, output: Any) -> Any:
    value = output_tensor(output).clone()
    value[..., columns] *= scale
    return with_output_tensor(output, value)


def _note(
    flat: dict[str, Tensor], rows: slice | list[int], module: nn.Module, args: Any, output: Any
) -> None:
    flat["q"] = output_tensor(output)[..., rows]


def _scale_normed(
    flat: dict[str, Tensor],
    anatomy: Anatomy,
    heads: list[int],
    scale: float,
    module: nn.Module,
    args: Any,
    output: Tensor,
) -> Tensor:
    """Norms of queries see [batch, seq, head · d], [batch, seq, head, d] or [batch, head, seq, d]."""
    value = output.clone()
    if value.ndim == 3:
        torch.unflatten(value, -1, (anatomy.n_heads, anatomy.d_head))[..., heads, :] *= scale
    elif torch.equal(args[0], torch.unflatten(flat["q"], -1, (anatomy.n_heads, anatomy.d_head))):
        value[..., heads, :] *= scale
    else:
        value[:, heads] *= scale
    return value
