"""The tokens that a chat template puts before every prompt, computed once for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tamperlens.models.batching import left_pad
from tamperlens.models.cache import KeysValues, is_roomy, keys_and_values, roomy_cache
from tamperlens.models.unembedding import logits_kept
from tamperlens_hooks import unwrap
from tamperlens_hooks.tokenwise import tokenwise

# Tokens that must be saved for the extra pass over the prefix to be worth its start.
_WORTH = {"cpu": 64}
_WORTH_ELSEWHERE = 8192


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first tokens of some sequences, all of which begin with them.

    Rows are laid out as prefix, padding, own tokens; attention mask and position ids say which is which, so
    that the numbers are those of the whole sequence alone, up to rounding.

    Attributes:
        length: number of shared tokens; 0 when nothing is shared.
        layers: per layer keys and values `[1, heads, length, d_head]`; None when nothing is shared.
        config: of the model, for its cache.
        pad_id: id to pad with.
        device: where inputs go.
    """

    length: int
    layers: list[KeysValues] | None
    config: Any
    pad_id: int
    device: torch.device

    def inputs(self, sequences: Sequence[Sequence[int]], room: int = 0) -> dict[str, Any]:
        """What to call the module with for these sequences: `module(**inputs)`.

        Args:
            sequences: whole token ids, the prefix included.
            room: tokens that will be generated behind them.

        Returns:
            `input_ids` and `position_ids` of the tokens behind the prefix `[batch, own]`, `attention_mask`
            `[batch, length + own]`, `use_cache`, and `past_key_values` where something is shared.
        """
        own = left_pad([sequence[self.length :] for sequence in sequences], self.pad_id, self.device)
        if self.layers is None:
            return {**vars(own), "use_cache": False}
        rows, width = own.input_ids.shape
        return {
            "input_ids": own.input_ids,
            "attention_mask": self.mask(own.attention_mask),
            "position_ids": own.position_ids + self.length,
            "past_key_values": roomy_cache(self.config, self.length + width + room, rows, self.layers),
            "use_cache": True,
        }

    def mask(self, own: Tensor) -> Tensor:
        """An attention mask `[batch, own]` with the prefix before it."""
        return nn.functional.pad(own, (self.length, 0), value=1)


def shared_prefix(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device,
    keep: int = 1,
    room: int = 0,
) -> Prefix:
    """Compute once what `sequences` have in common at their beginning; call it in evaluation mode.

    Edits that are on the module now (`ablate_direction`, `add_direction`) act on the prefix too. Nothing is
    shared (`length` 0) where that could change a number: hooks that look at more than one token at a time or
    that are not ours, windows that slide within the sequence, positions that are not told by `position_ids`;
    nor where it saves too little.

    Args:
        module: a causal language model.
        sequences: token ids.
        pad_id: id to pad with.
        device: where inputs go.
        keep: tokens at the end of every sequence that stay its own.
        room: tokens that will be generated behind them.
    """
    base: Any = unwrap(module)
    none = Prefix(0, None, base.config, pad_id, device)
    length = common_length(sequences, keep)
    worth = _WORTH.get(device.type, _WORTH_ELSEWHERE)
    if not length or length * (len(sequences) - 1) < worth or length * (len(sequences) - 3) < 0:
        return none
    if not can_share(module, max(map(len, sequences)) + room):
        return none
    cache = roomy_cache(base.config, length)
    ids = torch.tensor([list(sequences[0][:length])], device=device)
    with logits_kept(module, 1) as kept:
        module(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(length, device=device)[None],
            past_key_values=cache,
            use_cache=True,
            **kept,
        )
    layers = keys_and_values(cache)
    return none if layers is None else Prefix(length, layers, base.config, pad_id, device)


def common_length(sequences: Sequence[Sequence[int]], keep: int = 1) -> int:
    """Number of first tokens that all sequences share, `keep` less than the shortest at most."""
    if len(sequences) < 2:
        return 0
    rows = [tuple(sequence) for sequence in sequences]
    first, last = min(rows), max(rows)  # in dictionary order: what these share, all share
    most = min(map(len, rows)) - keep
    length = 0
    while length < most and first[length] == last[length]:
        length += 1
    return length


def can_share(module: nn.Module, tokens: int) -> bool:
    """Whether rows may be padded behind a prefix: all that attention needs to know is mask and position ids.

    Args:
        module: the model, with the hooks it has now.
        tokens: the longest row.
    """
    base: Any = unwrap(module)
    config = base.config.get_text_config()
    if "position_ids" not in inspect.signature(base.forward).parameters or getattr(config, "alibi", False):
        return False
    ropes = getattr(config, "rope_parameters", None) or {}
    kinds = [ropes, *(value for value in ropes.values() if isinstance(value, dict))]
    # Their frequencies depend on how long the sequence is that is being read.
    if any(kind.get("rope_type", "default") in ("dynamic", "longrope") for kind in kinds):
        return False
    return is_roomy(base.config, tokens) and tokenwise(module)
