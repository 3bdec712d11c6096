"""Examples as a scoring pass sees them: encoded turns, right-padded batches, one loss an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel
from tamperlens.models.unembedding import logits_kept
from tamperlens.prompts import IGNORE, Encoded, PromptsLike, as_prompts, batch_pairs

Pairs = PromptsLike
BatchSize = int | Literal["auto"]
_FIRST = re.compile(r"first_([1-9]\d*)")
_SMALLEST_BUDGET = 64 * 2**20
_MOST_TOKENS = 16_384


@dataclass(frozen=True)
class Examples:
    """Encoded (prompt, response) turns of one set.

    Attributes:
        turns: token ids and labels, in the set's order.
        name: of the set.
        sha256: of its content.
    """

    turns: tuple[Encoded, ...]
    name: str
    sha256: str

    @classmethod
    def of(cls, model: ChatModel, data: Pairs, max_length: int | None = None) -> Examples:
        """Encode a set for a model.

        Raises:
            InputError: no examples, no responses, a response without tokens, or a turn that is too long for
                the model; the message names the row.
        """
        ready = as_prompts(data)
        if len(ready) == 0:
            raise InputError(f"prompt set {ready.name!r} is empty; scoring needs at least one example")
        turns = model.encode_pairs(ready, max_length=max_length)
        for row, turn in enumerate(turns):
            if not any(label != IGNORE for label in turn.labels[1:]):
                raise InputError(f"row {row} of {ready.name!r} has no response tokens; drop it")
        return cls(tuple(turns), ready.name, ready.sha256)

    def __len__(self) -> int:
        return len(self.turns)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of a set.

    Attributes:
        rows: their numbers in the set.
        lengths: tokens of each.
        input_ids: [batch, seq].
        attention_mask: [batch, seq].
        labels: [batch, seq], -100 where not part of the response.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]


def batches(examples: Examples, size: int, pad_id: int, device: torch.device) -> Iterator[Batch]:
    """All rows, longest first, `size` at a time: the first batch needs the most memory."""
    order = sorted(range(len(examples)), key=lambda row: (-len(examples.turns[row]), row))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        turns = [examples.turns[row] for row in rows]
        tensors = batch_pairs(turns, pad_id)
        yield Batch(
            tuple(rows),
            tuple(len(turn) for turn in turns),
            *(tensors[key].to(device) for key in ("input_ids", "attention_mask", "labels")),
        )


def batch_rows(model: ChatModel, examples: Examples, batch_size: BatchSize, weights: int) -> int:
    """How many rows go into a batch: as asked, or by what their activations take beside the scores.

    Args:
        model: the model.
        examples: whose longest row counts.
        batch_size: a number, or "auto".
        weights: number of weights scored at a time; "auto" allows activations about 0.3 of their fp32 scores
            on the CPU and half of the free memory on an accelerator.
    """
    if batch_size != "auto":
        return batch_size
    anatomy, longest = model.anatomy, max(len(turn) for turn in examples.turns)
    size = torch.finfo(model.dtype).bits // 8
    width = 10 * anatomy.d_model + 4 * anatomy.d_mlp + 3 * anatomy.n_heads * anatomy.d_head
    # Attention may keep its probabilities (eager), logits are kept in the model's precision and in fp32.
    token = size * anatomy.n_layers * (width + anatomy.n_heads * longest) + (size + 8) * anatomy.d_vocab
    budget = max(int(0.3 * 4 * weights), _SMALLEST_BUDGET)
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        budget = max((free - 4 * weights) // 2, _SMALLEST_BUDGET)
    return max(1, min(int(budget // token), _MOST_TOKENS) // longest)


LossOf = Callable[[Float[Tensor, "batch kept vocab"], Int[Tensor, "batch kept"]], Float[Tensor, " batch"]]


def loss_function(loss: str) -> LossOf:
    """The loss of each example from logits and the labels they predict (-100: none).

    Args:
        loss: "response_mean": mean −log p of the response's tokens, its end-of-turn token included (Wei et
            al. 2024); "response_sum": their sum; "first_K": mean over the first K of them, such as
            "first_1" (alignment shows in the first tokens: Qi et al. 2024, arXiv 2406.05946).

    Raises:
        InputError: no such loss.
    """
    first = _FIRST.fullmatch(loss)
    if not first and loss not in ("response_mean", "response_sum"):
        raise InputError(f"no loss {loss!r}; known: response_mean, response_sum, first_K (such as first_5)")

    def losses(
        logits: Float[Tensor, "batch kept vocab"], labels: Int[Tensor, "batch kept"]
    ) -> Float[Tensor, " batch"]:
        counted = labels != IGNORE
        if first:
            counted &= counted.cumsum(1) <= int(first.group(1))
        wide = torch.promote_types(logits.dtype, torch.float32)
        nats = torch.nn.functional.cross_entropy(logits[counted].to(wide), labels[counted], reduction="none")
        rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)[counted]
        summed = torch.zeros(len(labels), dtype=wide, device=nats.device).index_add(0, rows, nats)
        return summed if loss == "response_sum" else summed / counted.sum(1)

    return losses


def example_losses(model: ChatModel, batch: Batch, loss: LossOf) -> Float[Tensor, " batch"]:
    """One forward pass; logits are made only at positions that predict a labelled token."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    predicting = (batch.labels[:, 1:] != IGNORE).any(0).nonzero().flatten()
    with logits_kept(model.module, predicting) as keep:
        logits = model.module(**inputs, **keep).logits
    logits = logits if keep else logits[:, predicting]
    return loss(logits, batch.labels[:, predicting + 1].to(logits.device))
