"""What a DoRA adapter does to a weight: its rows are rescaled, so its update is no product of factors."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens_hooks.errors import HookError


def is_dora(layer: Any, name: str) -> bool:
    """Whether an adapter of a PEFT layer is DoRA."""
    return name in getattr(layer, "lora_magnitude_vector", {})


@torch.no_grad()
def adapter_delta(layer: Any, name: str, path: str) -> Float[Tensor, "a b"]:
    """What an active adapter adds to the weight, as the parameter is stored.

    s·B·A for LoRA; for DoRA (Liu et al. 2024, arXiv 2402.09353) m · V / ‖V‖ − W0 in fp32, with V = W0 + s·B·A
    and the norm taken over the inputs of every output.

    Raises:
        HookError: another variant, or DoRA on a quantised weight.
    """
    delta: Tensor = layer.get_delta_weight(name).detach()
    if not is_dora(layer, name):
        if name in getattr(layer, "lora_variant", {}):
            raise HookError(f"{path}: adapter {name!r} is a LoRA variant whose update is not s·B·A; merge it")
        return delta
    held = layer.get_base_layer().weight.detach()
    if not held.is_floating_point():
        raise HookError(f"{path}: DoRA on a quantised weight ({held.dtype}); load it without quantisation")
    old = held.float()
    whole = old + delta.to(old.device).float()
    inputs = 0 if layer.fan_in_fan_out else 1
    magnitude = layer.lora_magnitude_vector[name].weight.detach().to(old.device).float()
    factor = magnitude.unsqueeze(inputs) / whole.norm(dim=inputs, keepdim=True)
    made: Tensor = factor * whole - old
    return made
