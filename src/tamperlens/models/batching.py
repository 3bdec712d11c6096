"""Left-padded batches by tokens: how many prompts go at once, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.base.progress import progress_bar
from tamperlens_hooks import unwrap

BatchSize = int | Literal["auto"]

# Tokens of one pass beyond which a CPU gains nothing from more rows, and those that keep it busy: a shorter
# prompt joins a pass of that size only if little of its row would be padding.
_CPU_TOKENS, _CPU_ENOUGH = 2048, 256


@dataclass(frozen=True)
class Batch:
    """Left-padded token ids.

    Attributes:
        input_ids: `[batch, seq]`.
        attention_mask: `[batch, seq]`, 0 on padding.
        position_ids: `[batch, seq]`, counted from each prompt's first real token; 0 on padding.
    """

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]
    position_ids: Int[Tensor, "batch seq"]


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Batch:
    """Pad token ids on the left to the longest of them."""
    width = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = sequence
        mask[row, width - len(sequence) :] = 1
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    return Batch(*(torch.from_numpy(array).to(device) for array in (ids, mask, positions)))


def position_limit(module: nn.Module) -> int | None:
    """Positions that a model was made for; None where nothing says (ALiBi).

    Rows of a learned table (GPT-2's `wpe`), otherwise what the config of a rotary model says, stretched where
    its rope scaling stretches it. Beyond that a model answers, but not as it was trained to.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in ("wpe", "embed_positions"):
            return part.num_embeddings
    base: Any = unwrap(module)
    config = base.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    return max(limit, int(original * factor)) if original and factor else limit


def token_chunks(lengths: Sequence[int], device: torch.device, most: int | None = None) -> list[slice]:
    """Cut rows, sorted by falling length, into passes that are large enough to be efficient.

    Args:
        lengths: tokens of each row, longest first.
        device: a CPU takes about 2,048 tokens a pass, and pads little; other devices all rows at once.
        most: rows in a pass at most.
    """
    chunks, start = [], 0
    while start < len(lengths):
        longest, end = max(1, lengths[start]), start + 1
        while end < len(lengths) and (most is None or end - start < most):
            tokens = (end - start) * longest
            if device.type == "cpu" and (
                tokens + longest > _CPU_TOKENS or (tokens >= _CPU_ENOUGH and lengths[end] < longest * 7 // 8)
            ):
                break
            end += 1
        chunks.append(slice(start, end))
        start = end
    return chunks


def in_batches(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    new_tokens: int,
    batch_size: BatchSize,
    device: torch.device,
    run: Callable[[list[int]], None],
    *,
    progress: bool = False,
) -> None:
    """Call `run(rows)` on length-sorted batches, longest first; halve a batch that does not fit in memory.

    Where nothing is generated (`new_tokens` 0), "auto" batches are no larger than one efficient pass.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    budget, most = _budget(module, device) if batch_size == "auto" else (None, batch_size)
    with progress_bar(len(sequences), "prompts", progress) as advance:
        while order:
            rows = most
            if budget is not None:
                rows = max(1, min(most, budget // (len(sequences[order[0]]) + new_tokens)))
            if batch_size == "auto" and not new_tokens:
                rows = token_chunks([len(sequences[row]) for row in order[:rows]], device)[0].stop
            batch, failed = order[:rows], False
            try:
                run(batch)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                failed = True
            if failed:  # outside the handler: the traceback holds the batch's tensors
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                if len(batch) == 1:
                    raise InputError(
                        f"prompt {batch[0]} ({len(sequences[batch[0]])} tokens) does not fit on {device} "
                        "even alone; shorten it, lower max_new_tokens or use a smaller dtype"
                    )
                most, budget = len(batch) // 2, None if budget is None else budget // 2
                continue
            order = order[len(batch) :]
            advance(len(batch))


def _budget(module: nn.Module, device: torch.device) -> tuple[int, int]:
    """Tokens and rows that fit at once, from keys, values and the widest activations per token."""
    base: Any = unwrap(module)
    config = base.config.get_text_config()
    size = next((p.element_size() for p in module.parameters() if p.is_floating_point()), 4)
    heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    d_mlp = (
        getattr(config, "intermediate_size", None)
        or getattr(config, "n_inner", None)
        or 4 * config.hidden_size
    )
    per_token = size * (2 * config.num_hidden_layers * kv_heads * d_head + 8 * config.hidden_size + 3 * d_mlp)
    if device.type == "cuda":
        memory, most = torch.cuda.mem_get_info(device)[0] // 2, 512
    else:
        memory, most = 2**30, 128
    most = max(1, min(most, memory // (8 * 16 * config.vocab_size)))
    return max(1, min(memory // per_token, 2**16)), most


def _out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in words
        or "can't allocate memory" in words
    )
