"""A key-value cache that writes into room set aside beforehand, and begins with keys that all rows share.

`DynamicCache` concatenates at every step, which on a small model costs more than all matrix products
together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

KeysValues = tuple[Tensor, Tensor]


class RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views into buffers of fixed length.

    Rows can be filled a few at a time (`fill`), right-aligned, and then go on together (`together`).

    Args:
        capacity: tokens that the buffers hold, prompt and answer together. Longer sequences fall back to
            concatenation.
        rows: rows of the buffers; as many as the first pass has when None.
        shared: keys and values `[1, heads, prefix, d_head]` that every row begins with.
    """

    def __init__(self, capacity: int, rows: int | None = None, shared: KeysValues | None = None) -> None:
        super().__init__()
        self.capacity, self.rows, self.shared = capacity, rows, shared
        self._room: KeysValues | None = None
        self._filling: slice = slice(None)
        self._start, self._used = 0, 0 if shared is None else shared[0].shape[-2]

    def fill(self, rows: slice, start: int) -> None:
        """Let the next pass begin these rows, from column `start` of the buffers."""
        self._filling, self._start = rows, start
        self._used = 0 if self.shared is None else self.shared[0].shape[-2]
        self.is_initialized = False

    def together(self, used: int) -> None:
        """All rows go on behind column `used`."""
        self._filling, self._start, self._used = slice(None), 0, used

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, each `[batch, heads, new, d_head]`; returns all that are stored."""
        if self.rows is None:
            self.rows = len(key_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            if self._room is None:
                self._room = (self._buffer(key_states), self._buffer(value_states))
            if self.shared is not None:
                for room, own in zip(self._room, self.shared, strict=True):
                    room[self._filling, :, self._start : self._start + self._used] = own
            self.keys, self.values = self._view(self._used)
        total = self._used + key_states.shape[-2]
        if self._room is None or self._start + total > self.capacity:
            self._room = None
            grown: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            self._used = total
            return grown
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[self._filling, :, self._start + self._used : self._start + total] = new
        self._used = total
        self.keys, self.values = self._view(total)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns in use, shared ones included."""
        return self._used

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        self.rows = len(indices)
        if self._room is None:
            super().batch_select_indices(indices)
            return
        rooms = []
        for room in self._room:
            smaller = room.new_empty((len(indices), *room.shape[1:]))
            smaller[:, :, : self._used] = room[:, :, : self._used].index_select(0, indices.to(room.device))
            rooms.append(smaller)
        self._room = (rooms[0], rooms[1])
        self.keys, self.values = self._view(self._used)

    def _buffer(self, states: Tensor) -> Tensor:
        assert self.rows is not None
        # Zeros: what lies under padding is masked, but 0 · NaN of unset memory is not 0.
        return states.new_zeros((self.rows, states.shape[1], self.capacity, states.shape[-1]))

    def _view(self, used: int) -> KeysValues:
        assert self._room is not None
        keys, values = (room[self._filling, :, self._start : self._start + used] for room in self._room)
        return keys, values


def roomy_cache(
    config: Any, capacity: int, rows: int | None = None, shared: list[KeysValues] | None = None
) -> DynamicCache:
    """The cache that transformers would make for this config, with `RoomyLayer` for full-attention layers.

    Sliding-window layers that never slide, because the window holds `capacity` tokens, are of that kind too;
    the others keep the class that transformers chose for them.
    """
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if _never_slides(layer, capacity):
            cache.layers[index] = RoomyLayer(capacity, rows, None if shared is None else shared[index])
    return cache


def is_roomy(config: Any, capacity: int) -> bool:
    """Whether each layer's attention sees every token, masked ones apart, for that many of them."""
    return all(_never_slides(layer, capacity) for layer in DynamicCache(config=config).layers)


def _never_slides(layer: Any, capacity: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return capacity <= int(layer.sliding_window)
    return type(layer) is DynamicLayer


def keys_and_values(cache: DynamicCache) -> list[KeysValues] | None:
    """What every layer holds; None when a layer holds nothing."""
    found = []
    for layer in cache.layers:
        if not isinstance(layer.keys, torch.Tensor) or not isinstance(layer.values, torch.Tensor):
            return None
        found.append((layer.keys, layer.values))
    return found
