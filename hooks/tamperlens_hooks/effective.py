"""What a module computes with: its weight with the active adapters' updates added."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import base_layer, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.stored import logical_weight


def is_dora(layer: Any, name: str) -> bool:
    """Whether an adapter of a PEFT layer is DoRA."""
    return name in getattr(layer, "lora_magnitude_vector", {})


def check_plain_lora(layer: Any, name: str, path: str) -> None:
    """The adapter must be s·B·A and nothing else.

    Raises:
        HookError: it is DoRA or another variant.
    """
    if name in getattr(layer, "lora_variant", {}) or getattr(layer, "use_dora", {}).get(name):
        raise HookError(
            f"{path}: adapter {name!r} is DoRA or another variant: it rescales whole rows of the merged "
            "weight, so its update is not s·B·A and no entry can be held; use plain LoRA or rsLoRA"
        )


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


def effective_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
    """The weight with the active adapters' updates added: what the model computes with, without merging.

    Returns:
        A new tensor; equal to `logical_weight` where no adapter is attached, active and unmerged.

    Raises:
        HookError: quantised weight, or an adapter whose update is not a matrix that can be added.
    """
    weight = logical_weight(model, projection)
    layer: Any = unwrap(model).get_submodule(projection.module)
    if layer is base_layer(layer):
        return weight.clone()
    if not hasattr(layer, "get_delta_weight"):
        raise HookError(
            f"{projection.module} carries a {type(layer).__name__} whose update cannot be added to W"
        )
    if getattr(layer, "disable_adapters", False):
        return weight.clone()
    total = weight.clone()
    merged = set(getattr(layer, "merged_adapters", ()))
    for name in layer.active_adapters:
        if name in merged or name not in getattr(layer, "lora_A", {name: None}):
            continue
        delta = adapter_delta(layer, name, projection.module)[projection.index]
        total = total + (delta.T if projection.transposed else delta).to(total.dtype)
    return total


@on_model
@torch.no_grad()
def head_output_weight(
    model: nn.Module, anatomy: Anatomy, layer: int, head: int
) -> Float[Tensor, "d_model d_head"]:
    """Columns of the output projection that read one head's z: head output = W_O[:, h] z_h.

    Active adapters are included.
    """
    projection = anatomy.projection("o", layer)
    return effective_weight(model, projection)[:, anatomy.head_slice(head)]
