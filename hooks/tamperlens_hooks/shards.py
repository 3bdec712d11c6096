"""Weights that several processes hold in slices (FSDP2's DTensors), beside whole ones.

Every function takes either kind; for a whole tensor each is the identity or the plain thing to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a slice only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds; writing to it writes to the weight."""
    if not is_sharded(tensor):
        return tensor
    held: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return held


def whole(tensor: Tensor) -> Tensor:
    """All slices together; a call that every process must make."""
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def part(value: Tensor, like: Tensor) -> Tensor:
    """The slice of a whole tensor that belongs beside `local(like)`; a view."""
    if not is_sharded(like):
        return value
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded: Any = like
    shape, offset = compute_local_shape_and_global_offset(
        sharded.shape, sharded.device_mesh, sharded.placements
    )
    for dim, (length, start) in enumerate(zip(shape, offset, strict=True)):
        value = value.narrow(dim, min(start, value.shape[dim]), length)
    return value


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, cut as `like` is cut; itself where `like` is whole."""
    if not is_sharded(like):
        return value
    from torch.distributed.tensor import DTensor

    sharded: Any = like
    mine = part(value, like).to(local(like).device).contiguous()
    return DTensor.from_local(
        mine, sharded.device_mesh, sharded.placements, shape=value.shape, stride=value.stride()
    )


@torch.no_grad()
def fill(target: Tensor, value: Tensor) -> None:
    """Write a whole value into a weight, or into the slice of it that is here."""
    local(target).copy_(part(value, target))


def own_tensors(module: nn.Module) -> None:
    """Give the module parameters and buffers of its own on the same memory, tied ones tied as before.

    Sharding moves a parameter's data to another device in place; a copy that shares parameters would move
    the model that it was copied from.
    """
    made: dict[int, Any] = {}
    for part_ in module.modules():
        for name, parameter in part_._parameters.items():
            if parameter is not None:
                fresh = made.setdefault(
                    id(parameter), nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
                )
                part_._parameters[name] = fresh
        for name, buffer in part_._buffers.items():
            if buffer is not None:
                part_._buffers[name] = made.setdefault(id(buffer), buffer.data)
