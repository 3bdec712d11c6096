"""What is removed from a model: a set of weights or some ranks, and matched random controls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from tamperlens import neurons
from tamperlens.models import ChatModel
from tamperlens.neurons import RankEdit, WeightMask

Removal = WeightMask | RankEdit


@contextmanager
def removed(model: ChatModel, what: Removal | None) -> Iterator[None]:
    """The model with a set or some ranks removed; nothing for None."""
    if what is None:
        yield
    elif isinstance(what, WeightMask):
        with neurons.zeroed(model, what):
            yield
    else:
        with neurons.ranks_removed(model, what):
            yield


def control_of(model: ChatModel, what: Removal, seed: int, bins: int) -> Removal:
    """A matched random removal."""
    if isinstance(what, WeightMask):
        return neurons.control(model, what, seed=seed, bins=bins)
    return neurons.random_ranks(model, what, seed=seed)


def size_of(what: Removal) -> tuple[int, float]:
    """(weights in the set, their share), or (largest rank, NaN)."""
    return (what.count, what.density) if isinstance(what, WeightMask) else (what.rank, math.nan)
