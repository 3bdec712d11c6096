"""Right-padded training batches from encoded turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError
from tamperlens.prompts.rendering import IGNORE, Encoded


def batch_pairs(encoded: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """Stack encoded turns into one batch, padded on the right.

    Padding is told from text by position, not by id: an end-of-turn token whose id equals `pad_id` keeps its
    label and its place in the attention mask.

    Args:
        encoded: what `encode_pair` returned, at least one.
        pad_id: id to fill with; see `padding_id`.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each int64 of shape [batch, longest]; labels are -100 on
        padding.

    Raises:
        InputError: nothing to batch.
    """
    if not encoded:
        raise InputError("batch_pairs got no encoded turns; the prompt set is empty")
    shape = (len(encoded), max(len(one) for one in encoded))
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    for row, one in enumerate(encoded):
        input_ids[row, : len(one)] = torch.tensor(one.input_ids)
        labels[row, : len(one)] = torch.tensor(one.labels)
        attention_mask[row, : len(one)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding id; its eos id, else 0, when it has none (harmless: padding is masked)."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0
