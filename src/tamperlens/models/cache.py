"""A key-value cache that writes into room set aside beforehand.

`DynamicCache` concatenates at every step, which on a small model costs more than all matrix products
together.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views into buffers of fixed length.

    Args:
        capacity: tokens that the buffers hold, prompt and answer together. Longer sequences fall back to
            concatenation.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._room_keys: Tensor | None = None
        self._room_values: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, each `[batch, heads, new, d_head]`; returns all that are stored."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (*key_states.shape[:2], self.capacity)
            self._room_keys = key_states.new_empty((*shape, key_states.shape[-1]))
            self._room_values = value_states.new_empty((*shape, value_states.shape[-1]))
        used = self.get_seq_length()
        total = used + key_states.shape[-2]
        if total > self.capacity or self._room_keys is None or self._room_values is None:
            self._room_keys = self._room_values = None
            grown: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return grown
        self._room_keys[:, :, used:total].copy_(key_states)
        self._room_values[:, :, used:total].copy_(value_states)
        self.keys = self._room_keys[:, :, :total]
        self.values = self._room_values[:, :, :total]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        if self._room_keys is None or self._room_values is None:
            super().batch_select_indices(indices)
            return
        used = self.get_seq_length()
        rooms = []
        for room in (self._room_keys, self._room_values):
            smaller = room.new_empty((len(indices), *room.shape[1:]))
            smaller[:, :, :used] = room[:, :, :used].index_select(0, indices.to(room.device))
            rooms.append(smaller)
        self._room_keys, self._room_values = rooms
        self.keys, self.values = self._room_keys[:, :, :used], self._room_values[:, :, :used]


def roomy_cache(config: Any, capacity: int) -> DynamicCache:
    """The cache that transformers would make for this config, with `RoomyLayer` for full-attention layers.

    Sliding-window layers keep the class that transformers chose for them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
