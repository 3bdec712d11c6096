"""Slices of weights, as one process of two holds them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tamperlens_hooks.shards import fill, is_sharded, local, own_tensors, part, sharded_like, whole


@pytest.fixture
def second_of_two() -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("rows", "first"), [(6, 3), (5, 3), (1, 1)])
def test_the_second_slice(second_of_two: None, rows: int, first: int) -> None:
    """Rows are dealt ⌈n/2⌉ to the first process; of one row none is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, zeros

    mesh = init_device_mesh("cpu", (2,))
    weight = zeros(rows, 3, device_mesh=mesh, placements=[Shard(0)])
    value = torch.arange(rows * 3.0).reshape(rows, 3)
    assert torch.equal(part(value, weight), value[first:])
    fill(weight, value)
    assert torch.equal(local(weight), value[first:])
    moment = sharded_like(value, weight)
    assert isinstance(moment, DTensor)
    assert moment.shape == value.shape
    assert torch.equal(local(moment), value[first:])


def test_whole_tensors_stay_as_they_are() -> None:
    value, weight = torch.ones(2, 2), nn.Parameter(torch.zeros(2, 2))
    assert not is_sharded(weight)
    assert part(value, weight) is value
    assert sharded_like(value, weight) is value
    assert whole(weight) is weight
    fill(weight, value)
    assert torch.equal(weight, value)


def test_own_tensors_share_memory_but_not_parameters() -> None:
    """Moving the copy's data must not move the model's; a tied weight stays tied."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    copy = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    copy[0].weight = copy[1].weight = first.weight
    own_tensors(copy)
    assert copy[0].weight is copy[1].weight
    assert copy[0].weight is not first.weight
    assert copy[0].weight.data_ptr() == first.weight.data_ptr()
    copy.to("meta")
    assert first.weight.device.type == "cpu"
