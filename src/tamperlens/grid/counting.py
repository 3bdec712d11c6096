"""Counting what a training run computes, from outside: the shapes of its batches as they go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tamperlens.finetune import FlopModel


class Counter:
    """Positions, squared lengths, tokens and rows of every batch that a module is trained on.

    Forward passes in evaluation mode do not count. Copies of the module share the one counter.

    Attributes:
        positions: rows times length.
        squares: rows times length squared.
        tokens: unmasked positions.
        sequences: rows.
    """

    NAMES = ("positions", "squares", "tokens", "sequences")

    def __init__(self) -> None:
        self.positions = self.squares = self.tokens = self.sequences = 0
        self._handle: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Counter:
        return self

    def watch(self, module: nn.Module) -> None:
        """Count from now on; a second call changes nothing."""
        if self._handle is None:
            self._handle = module.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: nn.Module, given: Any, named: Mapping[str, Any]) -> None:
        """Before a forward pass."""
        if not module.training or "input_ids" not in named:
            return
        rows, length = named["input_ids"].shape
        self.sequences += rows
        self.positions += rows * length
        self.squares += rows * length * length
        mask = named.get("attention_mask")
        self.tokens += rows * length if mask is None else int(mask.sum())

    def flops(self, model: FlopModel) -> float:
        """FLOPs so far."""
        return model.flops(self.positions, self.squares)

    def row(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {name: getattr(self, name) for name in self.NAMES}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Go on from the counts of a checkpoint."""
        for name in self.NAMES:
            setattr(self, name, int(row[name]))

    def leave(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
