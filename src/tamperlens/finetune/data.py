"""Examples into tokens with exact response masks, and into batches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel
from tamperlens.prompts import Encoded, PromptSet, batch_pairs


class Turns(Dataset[Encoded]):
    """Encoded turns in the order of their prompt set."""

    def __init__(self, turns: Sequence[Encoded]) -> None:
        self.turns = list(turns)

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, row: int) -> Encoded:
        return self.turns[row]


def encode(model: ChatModel, data: PromptSet, max_length: int | None = None) -> Turns:
    """Tokenize every (prompt, response); labels are the answer's tokens and its end-of-turn token.

    Raises:
        InputError: the set is empty or has no responses, a response is empty or cannot be encoded, a turn is
            longer than the model's positions, or nothing is left to learn from.
    """
    if len(data) == 0:
        raise InputError(f"prompt set {data.name!r} is empty; fine-tuning needs at least one example")
    turns = model.encode_pairs(data, max_length=max_length)
    # The first token predicts nothing before it, so a label there trains nothing.
    if not any(label != -100 for one in turns for label in one.labels[1:]):
        raise InputError(f"no token of {data.name!r} carries a label, so there is nothing to learn from")
    return Turns(turns)


class Collator:
    """Batches of turns, padded on the right."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, turns: Sequence[Encoded]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each [batch, longest]."""
        return batch_pairs(turns, self.pad_id)
