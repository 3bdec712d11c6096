"""LoRA whose merged weight is, bit for bit, the original at every frozen entry; and full training likewise.

The merged weight is `where(M, W0, W0 + s·B·A)`, so what the adapter computes with is Δ = (1 − M) ⊙ s·B·A, in
the forward pass, the backward pass and the merge alike. Three ways to compute x Δᵀ, chosen per matrix:

| path | when | how |
| --- | --- | --- |
| free | frozen entries are whole rows and columns | those rows of B and columns of A count as zero |
| sparse | few entries are frozen, or few are free | s·(xAᵀ)Bᵀ − s·xSᵀ, S = BA at those entries only (CSR) |
| blocks | otherwise | Δ is built for a block of rows at a time, used and dropped |

All three are exact in what they hold still: the merge never adds to a frozen entry. They agree among each
other and with the literal definition to rounding, in the forward pass and in the gradients.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tamperlens_hooks._frozen import Pattern, blocked, pattern_of, sparse
from tamperlens_hooks._modules import base_layer, unwrap
from tamperlens_hooks.effective import check_plain_lora
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.shards import local, part
from tamperlens_hooks.stored import stored_parameter
from tamperlens_hooks.weights import Flags

Path = Literal["auto", "free", "sparse", "blocks"]
SPARSE = 0.04
"""Up to this share of frozen (or of free) entries the sparse path is the faster one."""


@dataclass(eq=False)
class Frozen:
    """What one adapter layer knows of its frozen entries. Shared by copies of the layer.

    Attributes:
        flags: frozen entries of the parameter, by its name.
        parameter: that name.
        path: how x Δᵀ is computed.
        pattern: the entries, in the form that the path needs.
        digest: sha256 of the flags.
    """

    flags: Flags
    parameter: str
    path: str
    pattern: Pattern = field(repr=False)
    digest: str

    def stored(self) -> Bool[Tensor, "a b"]:
        """Flags shaped like the parameter as it is stored."""
        return self.flags[self.parameter]

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self


@dataclass(frozen=True, eq=False)
class Freeze:
    """Frozen entries on a model; see `freeze_adapter`.

    Attributes:
        paths: module path of each layer concerned to the way it computes.
        count: number of frozen entries in adapted weights.
    """

    model: nn.Module = field(repr=False)
    paths: Mapping[str, str]
    count: int

    def remove(self) -> None:
        """Let every entry go again."""
        for path in self.paths:
            layer: Any = unwrap(self.model).get_submodule(path)
            if isinstance(layer, _Frozen):
                layer.__class__ = type(layer).__mro__[2]
                del layer.tamperlens_frozen


def freeze_adapter(model: nn.Module, flags: Flags, path: str = "auto") -> Freeze:
    """Hold the merged weight of LoRA layers at W0, bit for bit, wherever `flags` is true.

    The layers' class is replaced by a subclass of it, so that PEFT's own `merge`, `get_delta_weight` and
    saving work and see the frozen entries. An adapter saved by PEFT alone holds A and B, but not the flags:
    loaded without them it is another model, in which the frozen entries move.

    Args:
        model: a PEFT model with plain LoRA adapters.
        flags: parameter name to flags shaped like the parameter as stored; names without an adapter are left
            alone, since nothing moves them.
        path: how to compute; see the module's table.

    Raises:
        HookError: no LoRA layer, DoRA or another variant, a quantised weight, an adapter with a bias, flags
            of another shape, or `path="free"` for entries that are no whole rows and columns.
    """
    if path not in get_args(Path):
        raise HookError(f"path is {path!r}; it must be one of {', '.join(get_args(Path))}")
    known = set(flags.keys())
    plans: list[tuple[str, Any, Frozen]] = []
    found = False
    for where, module in unwrap(model).named_modules():
        layer: Any = module
        if not isinstance(getattr(layer, "lora_A", None), nn.ModuleDict):
            continue
        found = True
        name = f"{where}.weight"
        if name not in known:
            continue
        weight = stored_parameter(model, name)
        if not weight.is_floating_point() or not isinstance(base_layer(layer), nn.Module) or weight.ndim != 2:
            raise HookError(f"{name} is quantised ({weight.dtype}): its entries cannot be held bit for bit")
        if layer.merged:
            raise HookError(f"{where} has its adapter merged; unmerge it before freezing")
        for adapter in layer.lora_A:
            check_plain_lora(layer, adapter, where)
            if getattr(layer, "lora_bias", {}).get(adapter):
                raise HookError(f"{where}: adapter {adapter!r} trains a bias; make it with lora_bias=False")
        chosen = flags[name]
        if chosen.shape != weight.shape:
            raise HookError(
                f"flags of {name} are {list(chosen.shape)}, the parameter is {list(weight.shape)}"
            )
        plans.append((where, layer, _plan(flags, name, chosen, bool(layer.fan_in_fan_out), path)))
    if not found:
        raise HookError(f"{type(model).__name__} carries no LoRA adapter; attach one with PEFT first")
    count = 0
    for _, layer, frozen in plans:
        if not isinstance(layer, _Frozen):
            layer.__class__ = _held_class(type(layer))  # type: ignore[arg-type]
        layer.tamperlens_frozen = frozen
        count += frozen.pattern.count
    return Freeze(model, {where: frozen.path for where, _, frozen in plans}, count)


def frozen_flags(layer: nn.Module) -> Bool[Tensor, "a b"] | None:
    """Frozen entries of an adapter layer's weight as stored, or None where nothing is frozen."""
    frozen = getattr(layer, "tamperlens_frozen", None)
    return frozen.stored() if isinstance(frozen, Frozen) else None


def held_delta(delta: Float[Tensor, "a b"], flags: Bool[Tensor, "a b"]) -> Float[Tensor, "a b"]:
    """Δ with minus zero at frozen entries: adding it leaves every bit there, the sign of a zero included."""
    return delta.masked_fill(flags.to(delta.device), -0.0)


class _Frozen:
    """Mixin in front of PEFT's LoRA layer."""

    tamperlens_frozen: Frozen

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (W0 + Δ)ᵀ with Δ zero at frozen entries."""
        layer: Any = self
        if kwargs.get("adapter_names") is not None:
            raise HookError("batches that mix adapters cannot be used with frozen entries")
        if layer.disable_adapters or layer.merged:
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        result = layer.base_layer(x, *args, **kwargs)
        kind = result.dtype
        for name in layer.active_adapters:
            if name not in layer.lora_A:
                continue
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            seen = layer.lora_dropout[name](layer._cast_input_dtype(x, a.dtype))
            result = result + _apply(self.tamperlens_frozen, seen, a, b, float(layer.scaling[name]))
        return result.to(kind)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """s·B·A as stored, minus zero at frozen entries; what PEFT's `merge` adds."""
        delta: Tensor = super().get_delta_weight(adapter)  # type: ignore[misc]
        return held_delta(delta, self.tamperlens_frozen.stored())


@functools.cache
def _held_class(kind: type) -> type:
    return type(f"Frozen{kind.__name__}", (_Frozen, kind), {"__module__": kind.__module__})


def _plan(flags: Flags, name: str, stored: Tensor, transposed: bool, path: str) -> Frozen:
    chosen = stored.T if transposed else stored
    pattern = pattern_of(chosen, SPARSE if path == "auto" else (1.0 if path == "sparse" else 0.0))
    if path == "free" and not pattern.separable:
        raise HookError(f"the frozen entries of {name} are no whole rows and columns; use path='auto'")
    if path == "auto":
        path = "free" if pattern.separable else "sparse" if pattern.listed else "blocks"
    pattern.prepare(chosen, path)
    packed = np.packbits(stored.detach().cpu().numpy().ravel())
    return Frozen(flags, name, path, pattern, hashlib.sha256(packed.tobytes()).hexdigest())


def _apply(frozen: Frozen, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    pattern = frozen.pattern.to(x.device)
    if frozen.path == "free":
        assert pattern.rows is not None
        assert pattern.columns is not None
        free_a = a.masked_fill(pattern.columns[None], 0)
        free_b = b.masked_fill(pattern.rows[:, None], 0)
        return nn.functional.linear(nn.functional.linear(x, free_a), free_b) * scale
    flat = x.reshape(-1, x.shape[-1])
    made = (sparse if frozen.path == "sparse" else blocked)(flat, a, b, scale, pattern)
    return made.reshape(*x.shape[:-1], b.shape[0])


class FrozenValues:
    """Holds entries of a fully fine-tuned model at their old values.

    Gradients there become zero as soon as they are there, so that clipping does not see them; `restore` puts
    the values back after `optimizer.step()`, because decay and momentum move entries whose gradient is zero.
    """

    def __init__(self, model: nn.Module, flags: Flags, originals: nn.Module) -> None:
        """See the class.

        Args:
            model: in training.
            flags: parameter name to flags shaped like the parameter.
            originals: the model with the values to keep; read at each `restore`, never changed.

        Raises:
            HookError: an unknown parameter or flags of another shape.
        """
        self.held: list[tuple[nn.Parameter, nn.Parameter, Tensor]] = []
        self.handles: list[Any] = []
        for name in flags.keys():  # noqa: SIM118
            chosen = flags[name]
            parameter, original = stored_parameter(model, name), stored_parameter(originals, name)
            if chosen.shape != parameter.shape:
                raise HookError(
                    f"flags of {name} are {list(chosen.shape)}, the parameter is {list(parameter.shape)}"
                )
            if bool(chosen.any()):
                chosen = part(chosen, parameter).to(parameter.device)
                self.held.append((parameter, original, chosen))
                if parameter.requires_grad:
                    hook = functools.partial(_silence, chosen)
                    self.handles.append(parameter.register_post_accumulate_grad_hook(hook))

    @torch.no_grad()
    def restore(self) -> None:
        """Write the old values back."""
        for parameter, original, chosen in self.held:
            now = local(parameter)
            old = part(original, parameter).to(device=now.device, dtype=now.dtype)
            now.copy_(torch.where(chosen.to(now.device), old, now))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


def _silence(chosen: Tensor, parameter: Tensor) -> None:
    if parameter.grad is not None:
        gradient = local(parameter.grad)
        gradient.masked_fill_(chosen.to(gradient.device), 0)
