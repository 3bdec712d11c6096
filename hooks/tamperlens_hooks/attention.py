"""Attention patterns of chosen layers, read from the eager implementation, which is put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import module_and_anatomy
from tamperlens_hooks._modules import hooks_attached
from tamperlens_hooks._sites import chosen_layers
from tamperlens_hooks._threads import alone
from tamperlens_hooks.errors import UnsupportedModelError
from tamperlens_hooks.state import evaluating

__all__ = ["attention_patterns", "eager_attention"]


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Attention that computes its weights one by one; the model's own implementation comes back.

    Raises:
        UnsupportedModelError: the model cannot switch.
    """
    module, _ = module_and_anatomy(model)
    configs = _configs(module)
    with alone:
        before = [config._attn_implementation_internal for config in configs]
        can = getattr(module, "_can_set_attn_implementation", None)
        if any(one != "eager" for one in before) and (can is None or not can()):
            raise UnsupportedModelError(
                f"eager attention is not available: {type(module).__name__} runs {before[0]!r} and cannot "
                "switch; load it with attn_implementation='eager'"
            )
        try:
            for config in configs:
                config._attn_implementation_internal = "eager"
            yield
        finally:
            for config, one in zip(configs, before, strict=True):
                config._attn_implementation_internal = one


def attention_patterns(
    model: Any, batch: dict[str, Tensor], layers: Sequence[int] | int | None = None
) -> Float[Tensor, "layer batch head query key"]:
    """Attention weights of one forward pass, fp32 on the CPU; rows sum to 1 over the visible tokens.

    Args:
        model: a module, or an object with `.module` and `.anatomy`.
        batch: `input_ids`, `attention_mask`, `position_ids`.
        layers: blocks; all by default.

    Raises:
        UnsupportedModelError: eager attention is not available, or the attention returns no weights.
    """
    module, anatomy = module_and_anatomy(model)
    rows = chosen_layers(anatomy, layers)
    seen: dict[int, Tensor] = {}
    handles: list[Any] = []
    with hooks_attached(handles), eager_attention(model), evaluating(module):
        for layer in rows:
            attention = module.get_submodule(anatomy.attention[layer])
            handles.append(attention.register_forward_hook(_Keep(seen, layer)))
        module(**batch, use_cache=False)
    shape = (*batch["input_ids"].shape, batch["input_ids"].shape[1])
    for layer in rows:
        found = seen.get(layer)
        if found is None or found.shape != (shape[0], anatomy.n_heads, shape[1], shape[2]):
            raise UnsupportedModelError(
                f"eager attention is not available: {anatomy.attention[layer]} returns no attention weights; "
                "patterns need an attention that follows transformers' eager implementation"
            )
    return torch.stack([seen[layer] for layer in rows])


class _Keep:
    def __init__(self, seen: dict[int, Tensor], layer: int) -> None:
        self.seen, self.layer = seen, layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, (tuple, list)) and len(output) > 1 and isinstance(output[1], Tensor):
            self.seen[self.layer] = output[1].detach().float().cpu()


def _configs(module: nn.Module) -> list[Any]:
    """Every config object among the modules, once."""
    found: dict[int, Any] = {}
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
    return list(found.values())
