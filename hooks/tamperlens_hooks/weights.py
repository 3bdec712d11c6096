"""Edit weights inside a `with` block only: entries set to zero, ranks taken out; watch what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import (
    base_layer,
    first_tensor,
    hooks_attached,
    output_tensor,
    unwrap,
    with_output_tensor,
)
from tamperlens_hooks._parts import Projection
from tamperlens_hooks._threads import alone
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.effective import layer_at, merged_weight, plain_lora, plain_update
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.stored import stored_parameter

LowRank = tuple[Projection, Tensor, Tensor]
"""(projection, L [d_out, rank], R [rank, d_in])."""


@runtime_checkable
class Flags(Protocol):
    """Names of parameters and, on demand, flags shaped like each: a dict of tensors, or a packed mask."""

    def keys(self) -> Iterable[str]:
        """Names of parameters."""
        ...

    def __getitem__(self, name: str) -> Bool[Tensor, "a b"]: ...


@on_model
@contextmanager
def zeroed_entries(model: nn.Module, anatomy: Anatomy, flags: Flags) -> Iterator[None]:
    """Set chosen entries of weights to zero; on the way out every bit is as it was.

    With an adapter attached the entry of the merged weight becomes zero. For plain LoRA W0's entry is set to
    zero and the update's is taken off the module's output; for other adapters all of it is taken off there.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        flags: parameter name to flags, shaped like the parameter.

    Raises:
        HookError: an unknown parameter, flags of another shape, or a quantised weight.
    """
    parts = {part.parameter: part for part in anatomy.projections()}
    kept: list[tuple[nn.Parameter, str, Tensor]] = []
    handles: list[Any] = []
    with alone, ExitStack() as stack:
        stack.callback(_put_back, kept, flags)
        with hooks_attached(handles):
            for name in flags.keys():  # noqa: SIM118
                if name not in parts:
                    raise HookError(f"{name} is no weight of a projection of this model")
                part = parts[name]
                layer = layer_at(model, part.module)
                weight: nn.Parameter = base_layer(layer).weight  # type: ignore[assignment]
                chosen = _fitting(flags, name, weight)
                if plain_lora(layer) is None:
                    update: Tensor | None = merged_weight(model, part)
                else:
                    update = plain_update(layer)
                    with torch.no_grad():
                        kept.append((weight, name, weight[chosen].clone()))
                        weight.masked_fill_(chosen, 0)
                if update is not None:
                    delta = torch.where(chosen, update, torch.zeros_like(update))
                    module = unwrap(model).get_submodule(part.module)
                    shift = delta if part.transposed else delta.T
                    handles.append(module.register_forward_hook(_subtract([(slice(None), shift, None)]),
                                                                with_kwargs=True))  # fmt: skip
            yield


def _put_back(kept: list[tuple[nn.Parameter, str, Tensor]], flags: Flags) -> None:
    with torch.no_grad():
        for weight, name, values in reversed(kept):
            weight[flags[name].to(weight.device)] = values


@on_model
@contextmanager
def lowrank_removed(model: nn.Module, anatomy: Anatomy, edits: Sequence[LowRank]) -> Iterator[None]:
    """Compute with W − L R instead of W, without writing to W: y ← y − L (R x).

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        edits: (projection, L [d_out, rank], R [rank, d_in]); at most one per projection.

    Raises:
        HookError: factors that do not fit their projection.
    """
    known = set(anatomy.projections())
    by_module: dict[str, list[tuple[Any, Tensor, Tensor | None]]] = {}
    for part, left, right in edits:
        if part not in known:
            raise HookError(f"layer {part.layer} {part.name} is no projection of this model")
        if left.shape[0] != part.d_out or right.shape[1] != part.d_in or left.shape[1] != right.shape[0]:
            raise HookError(
                f"factors {list(left.shape)} and {list(right.shape)} do not fit {part.parameter}: "
                f"[{part.d_out}, rank] and [rank, {part.d_in}] are needed"
            )
        device = stored_parameter(model, part.parameter).device
        rows = list(part.rows) if isinstance(part.rows, tuple) else part.rows
        by_module.setdefault(part.module, []).append((rows, right.T.to(device), left.T.to(device)))
    handles: list[Any] = []
    with hooks_attached(handles):
        for path, terms in by_module.items():
            module = unwrap(model).get_submodule(path)
            handles.append(module.register_forward_hook(_subtract(terms), with_kwargs=True))
        yield


@on_model
@contextmanager
def watch_inputs(
    model: nn.Module,
    anatomy: Anatomy,
    see: Callable[[Projection, Tensor], None],
    projections: Iterable[Projection] | None = None,
) -> Iterator[None]:
    """Call `see(projection, x)` with what each linear module reads, x [batch, seq, d_in], detached.

    Maps that share a module (fused weights) are reported once, by the first of them.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        see: called in forward order.
        projections: the maps to watch; all by default.
    """
    handles: list[Any] = []
    with hooks_attached(handles):
        wanted: dict[str, Projection] = {}
        for part in anatomy.projections() if projections is None else projections:
            wanted.setdefault(part.module, part)
        for path, part in wanted.items():
            module = model.get_submodule(path)
            handles.append(module.register_forward_pre_hook(_reader(part, see), with_kwargs=True))
        yield


def _reader(part: Projection, see: Callable[[Projection, Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(part, first_tensor(args, kwargs).detach())

    return hook


def _subtract(terms: Sequence[tuple[Any, Tensor, Tensor | None]]) -> Callable[..., Any]:
    """Hook: output[..., rows] −= x @ first (@ second)."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x, y = first_tensor(args, kwargs), output_tensor(output).clone()
        for rows, first, second in terms:
            shift = x.to(first.dtype) @ first
            if second is not None:
                shift = shift @ second
            y[..., rows] = (y[..., rows].to(shift.dtype) - shift).to(y.dtype)
        return with_output_tensor(output, y)

    return hook


def _fitting(flags: Flags, name: str, weight: nn.Parameter) -> Tensor:
    chosen = flags[name]
    if weight.is_meta or not weight.is_floating_point():
        raise HookError(f"{name} is offloaded or quantised ({weight.dtype}); its entries cannot be set")
    if chosen.shape != weight.shape:
        raise HookError(f"flags of {name} are {list(chosen.shape)}, the parameter is {list(weight.shape)}")
    return chosen.to(weight.device)
