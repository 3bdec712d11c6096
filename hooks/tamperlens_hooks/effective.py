"""What a module with adapters computes with: its effective weight and bias, whatever the adapter is.

Plain LoRA adds s·B·A and is read from its factors. For every other adapter of PEFT, and whole modules trained
beside one (`modules_to_save`), the adapter layer alone is copied in double precision, PEFT merges the copy,
and what comes out must compute what the layer computes, on random inputs. So a multiplicative adapter is not
read as an additive one, a new kind of adapter needs no case here, and one that has no fixed weight (routing
by token) is refused by name instead of being misread.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import base_layer, output_tensor, running, sharing_copy, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.quantised import decoded
from tamperlens_hooks.stored import logical

# Largest relative error between the merged copy and the layer itself, on random inputs: some adapters compute
# in single precision whatever they are given. One that depends on its input is wrong by 1e-2 and more.
AGREE = 1e-5


def effective_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
    """The weight W that a projection computes with, active adapters included, without merging: y = W x + b.

    Returns:
        A new tensor in the type of the stored weight; equal to `logical_weight` where no adapter is active.

    Raises:
        HookError: a packed weight, or an adapter that has no fixed weight.
    """
    layer = layer_at(model, projection.module)
    kept: Tensor = base_layer(layer).weight  # type: ignore[assignment]
    kind = torch.float32 if hasattr(kept, "quant_state") else kept.dtype
    return logical(_whole(layer, projection.module, packed=True), projection).to(kind)


def effective_bias(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out"] | None:
    """The bias b that a projection computes with, active adapters included; None where it adds none.

    Returns:
        A new tensor in at least fp32.

    Raises:
        HookError: an adapter that has no fixed bias.
    """
    bias = _bias(layer_at(model, projection.module), projection.module)
    if bias is None:
        return None
    return bias[list(projection.rows) if isinstance(projection.rows, tuple) else projection.rows]


def merged_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "a b"]:
    """The whole parameter of a projection with active adapters in it, as it is stored.

    A new tensor in at least fp32: small updates are not rounded away as they would be in bf16.

    Raises:
        HookError: a quantised weight, or an adapter that has no fixed weight.
    """
    return _whole(layer_at(model, projection.module), projection.module)


def merged_parameters(model: nn.Module, path: str) -> dict[str, Tensor]:
    """The parameters of one module as the active adapters make them, in at least fp32; new tensors.

    Args:
        model: wrapped or not.
        path: of a projection, an embedding, a norm or the unembedding, in the unwrapped model.

    Raises:
        HookError: an adapter that has no fixed weight.
    """
    layer = layer_at(model, path)
    if plain_lora(layer):
        bias = _bias(layer, path)
        return {"weight": _whole(layer, path)} | ({} if bias is None else {"bias": bias})
    found = plain_layer(layer, path).named_parameters(recurse=False)
    return {name: _copy(value, layer) for name, value in found}


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


def layer_at(model: nn.Module, path: str) -> nn.Module:
    """The module that computes at a path: an adapter's layer, a trained copy, or the plain one."""
    return running(unwrap(model).get_submodule(path))


def counting(layer: nn.Module) -> list[str]:
    """Names of the adapters of a layer that change what it computes and are not merged into its weight."""
    part: Any = layer
    if base_layer(layer) is layer or part.disable_adapters:
        return []
    if getattr(part, "merged_adapters", ()):
        return []  # a layer with one adapter merged computes with its weight alone, whatever else is active
    known = part._get_available_adapters() if hasattr(part, "_get_available_adapters") else None
    return [name for name in part.active_adapters if known is None or name in known]


def plain_lora(layer: nn.Module) -> list[str] | None:
    """The adapters that count, where the weight's update is the sum of their s·B·A; None where it is not.

    Empty for a layer without adapters, or with none that counts.
    """
    part: Any = layer
    if base_layer(layer) is layer:
        return []
    factors = getattr(part, "lora_A", None)
    if (
        not isinstance(factors, nn.ModuleDict)
        or base_layer(layer) is not part.base_layer  # an adapter around an adapter
        or hasattr(part, "parameter_name")  # a LoRA on a parameter of any shape
        or _routed(layer)
    ):
        return None
    names = counting(layer)
    variants = getattr(part, "lora_variant", {})
    doras = getattr(part, "use_dora", {})
    return None if any(n not in factors or n in variants or doras.get(n) for n in names) else names


def plain_update(layer: nn.Module) -> Tensor | None:
    """Σ s·B·A of a plain LoRA layer as the parameter is stored; None where no adapter counts."""
    part: Any = layer
    total: Tensor | None = None
    for name in plain_lora(layer) or ():
        delta = part.get_delta_weight(name).detach()
        total = delta if total is None else total + delta
    return total


def check_plain_lora(layer: nn.Module, name: str, path: str) -> None:
    """The adapter must be s·B·A and nothing else.

    Raises:
        HookError: it is DoRA or another variant.
    """
    if name in getattr(layer, "lora_variant", {}) or getattr(layer, "use_dora", {}).get(name):
        raise HookError(
            f"{path}: adapter {name!r} is DoRA or another variant: it rescales whole rows of the merged "
            "weight, so its update is not s·B·A and no entry can be held; use plain LoRA or rsLoRA"
        )


def plain_layer(layer: nn.Module, path: str) -> nn.Module:
    """A layer without adapters that computes what a layer with them computes.

    Args:
        layer: of `layer_at`.
        path: what to call it in an error.

    Returns:
        The plain layer itself where no adapter counts; else a merged copy of it, in fp64 where the adapter
        can compute in it, so that the difference to W0 is exact in fp32.

    Raises:
        HookError: a packed weight, or an adapter that has no fixed weight.
    """
    held = base_layer(layer)
    shells = list(_shells(layer))
    what = f"{path} carries {_kind(layer)}"
    if any(_routed(one) for one in shells):
        raise HookError(
            f"{what} that has no effective weight: X-LoRA mixes it anew for every token; read activations "
            "instead"
        )
    if not any(counting(one) for one in shells) and not any(_unmerges(one) for one in shells):
        return held
    for name, value in held.named_parameters(recurse=False):
        if value.is_meta or not value.is_floating_point():
            raise HookError(
                f"{what} on an offloaded or quantised {name} ({value.dtype}), which cannot be merged; load "
                "the model on one device without quantisation"
            )
    fault: Exception | None = None
    for kind in (torch.float64, torch.float32):
        try:
            error, merged = _merged(layer, kind)
        except Exception as one:
            fault = one
            continue
        if error < AGREE:
            return merged
        raise HookError(
            f"{what} that has no effective weight: what it computes is no fixed linear map of what it reads "
            f"(merged, it differs by {error:.2g}); read activations instead"
        )
    said = str(fault).strip().splitlines()
    raise HookError(
        f"{what} that has no effective weight: PEFT cannot merge it "
        f"({said[0] if said else type(fault).__name__}); read activations instead"
    ) from fault


def _whole(layer: nn.Module, path: str, *, packed: bool = False) -> Tensor:
    """The weight with its adapters, as it is stored, in at least fp32; a new tensor."""
    update = plain_update(layer)
    plain: Any = base_layer(layer) if plain_lora(layer) is not None else plain_layer(layer, path)
    weight: Tensor = plain.weight.detach()
    if packed and hasattr(plain.weight, "quant_state"):
        weight = decoded(plain, f"{path}.weight")
    if weight.is_meta:
        raise HookError(f"{path}.weight is offloaded; load the model on one device to read it")
    if not weight.is_floating_point() or weight.ndim != 2:
        raise HookError(f"{path}.weight is quantised ({weight.dtype}); load the model without quantisation")
    total = _copy(weight, layer)
    return total if update is None else total.add_(update.to(total))


def _bias(layer: nn.Module, path: str) -> Tensor | None:
    """The bias with what the adapters make of it, in at least fp32; a new tensor."""
    part: Any = layer
    names = plain_lora(layer)
    if names is None:
        plain = plain_layer(layer, path)
        return None if getattr(plain, "bias", None) is None else _copy(plain.bias, layer)  # type: ignore[arg-type]
    own = getattr(base_layer(layer), "bias", None)
    total = None if own is None else _copy(own, layer)
    for name in names:
        added = part.lora_B[name].bias  # `lora_bias`: PEFT merges it only where the layer has a bias
        if added is not None:
            scaled = _copy(added, layer) * float(part.scaling[name])
            total = scaled if total is None else total + scaled.to(total.device)
    return total


def _copy(value: Tensor, layer: nn.Module) -> Tensor:
    """A new tensor in at least fp32, and as wide as the layer's own weight."""
    held: Tensor = base_layer(layer).weight  # type: ignore[assignment]
    kind = held.dtype if held.is_floating_point() else torch.float32
    return value.detach().to(torch.promote_types(kind, torch.float32), copy=True)


def _kind(layer: nn.Module) -> str:
    """The adapter's kind and class, for errors."""
    module, name = type(layer).__module__, type(layer).__name__
    return f"a {module.split('.')[2] if module.startswith('peft.tuners.') else name} adapter ({name})"


def _routed(layer: nn.Module) -> bool:
    """X-LoRA puts its own forward on the layers that it mixes."""
    return type(getattr(layer.__dict__.get("forward"), "__self__", None)).__name__.startswith("XLora")


def _shells(layer: nn.Module) -> Iterator[nn.Module]:
    """Adapter layers around a plain one, outermost first."""
    while base_layer(layer) is not layer:
        yield layer
        layer = layer._modules["base_layer"]  # type: ignore[assignment]


def _unmerges(layer: nn.Module) -> bool:
    """Switched off with its update merged into the weight: the next forward pass takes it out."""
    part: Any = layer
    return bool(part.disable_adapters and getattr(part, "merged_adapters", ()))


@torch.no_grad()
def _merged(layer: nn.Module, kind: torch.dtype) -> tuple[float, nn.Module]:
    """(relative error on random inputs, merged copy)."""
    made = sharing_copy(layer).eval()
    for part in made.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks):
            hooks.clear()  # somebody may be recording
        for name, held in part._parameters.items():
            if held is not None and held.is_floating_point():
                part._parameters[name] = nn.Parameter(held.detach().to(kind, copy=True), requires_grad=False)
        for name, kept in part._buffers.items():
            if kept is not None and kept.is_floating_point():
                part._buffers[name] = kept.to(kind, copy=True)
    x = _inputs(base_layer(made), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT on what has been merged, and on rounding
        expected = output_tensor(made(x))
        for shell in reversed(list(_shells(made))):
            one: Any = shell
            one.unmerge() if one.disable_adapters else one.merge()
        plain = base_layer(made)
        found = output_tensor(plain(x))
    scale = expected.abs().max().clamp_min(1e-30)
    error = float((found - expected).abs().max() / scale)
    return (error if error == error else float("inf")), plain


def _inputs(layer: nn.Module, kind: torch.dtype) -> Tensor:
    """Random inputs of a linear map, a norm or an embedding."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, nn.Embedding):
        return torch.arange(weight.shape[0], device=weight.device)[None]
    width = weight.shape[0] if isinstance(layer, Conv1D) else weight.shape[-1]
    return torch.randn(2, 3, width, generator=generator).to(weight.device, kind)
