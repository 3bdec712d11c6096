"""Wrapping a module with PEFT so that nothing PEFT writes reaches the weights that it was given.

PEFT writes into the base in many places: biases and embeddings that an adapter carries, initialisations that
subtract what the factors start with, and whatever the next release brings. None of them is listed here.
PEFT runs on a copy that shares the weights, under a watch that sees every in-place operation of torch: one
that is aimed at shared memory is led to a scratch tensor and noted. If any was noted, the copy is made anew,
this time with its own memory for those weights, and PEFT runs again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tamperlens.base.errors import ModelLoadError
from tamperlens.models.fingerprint import Originals, base_tensors, keep_originals
from tamperlens_hooks import sharing_copy, unwrap

_FACTORIES = {
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "randint",
    "new_empty",
    "new_zeros",
    "new_ones",
}
_ROOM = 2**22  # weights that any adapter may have, however small its base


def wrap_without_writing(module: nn.Module, wrap: Callable[[nn.Module], nn.Module], label: str) -> nn.Module:
    """`wrap(copy)`, with a copy that owns what `wrap` overwrites and shares everything else with `module`.

    Args:
        module: the base; its weights are the same bits afterwards, which is checked over all of them.
        wrap: puts PEFT around the module that it is given and loads the adapter.
        label: what to call the adapter in errors.

    Returns:
        The wrapped copy. `fingerprint.base_tensors` of it still gives the weights of `module`.

    Raises:
        ModelLoadError: the adapter's settings ask for more memory than any adapter of this base needs, or a
            weight of the base was changed all the same (through numpy or a kernel that torch does not see).
    """
    before = checksums(module)
    owned: set[int] = set()
    while True:
        copy = sharing_copy(module)
        _own(copy, owned)
        with _Writes(_storages(module), module, label) as writes:
            wrapped = wrap(copy)
        if not writes.written:
            break
        owned |= writes.written
    if checksums(module) != before:
        raise ModelLoadError(
            f"{label} changed weights of its base while it was attached; load the base again"
        )
    _remember(module, wrapped)
    return wrapped


def checksums(module: nn.Module) -> list[int]:
    """One number for each weight and buffer, from all of its bits, at the speed of reading them."""
    return [_checksum(tensor.detach()) for tensor in (*module.parameters(), *module.buffers())]


def _checksum(tensor: Tensor) -> int:
    if tensor.is_meta or tensor.numel() == 0:
        return 0
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    whole = flat.numel() // 8 * 8
    if flat.storage_offset() % 8:
        flat = flat.clone()
    ends = int(flat[whole:].sum()) if whole < flat.numel() else 0
    # 64-bit sums wrap around; any change of a single weight shows.
    return int(flat[:whole].view(torch.int64).sum()) + ends


class _Writes(TorchDispatchMode):
    """Leads in-place writes to the base's memory astray and notes them; refuses absurd allocations."""

    def __init__(self, shared: set[int], base: nn.Module, label: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shared, self.label = shared, label
        self.written: set[int] = set()
        sizes = [parameter.numel() for parameter in base.parameters()]
        self.largest, self.left = 4 * max(sizes) + _ROOM, 4 * sum(sizes) + 4 * _ROOM

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        given = list(args)
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                if place < len(given):
                    given[place] = self._elsewhere(given[place])
                elif argument.name in named:
                    named[argument.name] = self._elsewhere(named[argument.name])
            elif argument.name == "size" and func.overloadpacket.__name__ in _FACTORIES:
                self._count(given[place] if place < len(given) else named.get("size", ()))
        return func(*given, **named)

    def _elsewhere(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._elsewhere(item) for item in value)
        if isinstance(value, Tensor) and not value.is_meta:
            place = value.untyped_storage().data_ptr()
            if place in self.shared:
                self.written.add(place)
                return value.clone()
        return value

    def _count(self, size: Iterable[int]) -> None:
        wanted = math.prod(size)
        self.left -= wanted
        if wanted > self.largest or self.left < 0:
            raise ModelLoadError(
                f"{self.label} asks for a tensor of {list(size)}, more than its base could use; "
                "its adapter_config.json is damaged"
            )


def _storages(module: nn.Module) -> set[int]:
    tensors = (*module.parameters(), *module.buffers())
    return {t.untyped_storage().data_ptr() for t in tensors if not t.is_meta and t.numel()}


def _own(copy: nn.Module, places: set[int]) -> None:
    """Give every tensor of the copy that lies in these places memory of its own; tied ones stay tied."""
    if not places:
        return
    made: dict[int, Tensor] = {}
    for owner in copy.modules():
        places_of: list[dict[str, Any]] = [owner._parameters, owner._buffers]
        for tensors in places_of:
            for key, tensor in tensors.items():
                if tensor is None or tensor.is_meta or tensor.untyped_storage().data_ptr() not in places:
                    continue
                if id(tensor) not in made:
                    own = tensor.detach().clone()
                    made[id(tensor)] = (
                        nn.Parameter(own, requires_grad=tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else own
                    )
                tensors[key] = made[id(tensor)]


def _remember(base: nn.Module, wrapped: nn.Module) -> None:
    """Share again what came out equal, and note the base's tensor beside each that did not."""
    kept: dict[str, Tensor] = {}
    after = base_tensors(wrapped)
    for name, (owner, key) in base_tensors(base).items():
        old = getattr(owner, key)
        if name not in after:
            kept[name] = old.detach()
            continue
        new = getattr(*after[name])
        if new is old or new.is_meta or new.data_ptr() == old.data_ptr():
            continue
        same = new.shape == old.shape and new.dtype == old.dtype and torch.equal(new, old)
        if same and isinstance(new, nn.Parameter):
            new.data = old.detach()
        elif not same:
            kept[name] = old.detach()
    if kept:
        keep_originals(unwrap(wrapped), Originals(kept))
