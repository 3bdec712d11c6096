"""Batched generation that gives each prompt the answer it would get alone.

Prompts are sorted by length, padded on the left and passed with attention mask and position ids. Greedy
unless a temperature is given; nothing is inherited from a model's `generation_config` but its end tokens.
Matrix products of another batch shape round differently, so "token for token" holds up to ties: in fp32 a tie
means two logits within about 1e-5; in bf16 two candidate tokens are often closer than the rounding, and
answers may differ there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.models.cache import roomy_cache
from tamperlens_hooks import unwrap
from tamperlens_hooks.state import evaluating

BatchSize = int | Literal["auto"]


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


def generate_tokens(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    pad_id: int,
    device: torch.device,
    batch_size: BatchSize = "auto",
    temperature: float = 0.0,
    seed: int = 0,
    progress: bool = False,
) -> list[list[int]]:
    """Continue each token sequence, up to and without its first stop token.

    Args:
        module: a causal language model of transformers, PEFT-wrapped or not.
        sequences: token ids of each prompt, none of them empty.
        max_new_tokens: at most so many tokens; models with a table of absolute positions stop where it ends.
        stop_ids: tokens that end an answer; they are not part of it.
        pad_id: any valid token id; padding is masked.
        device: where the inputs go.
        batch_size: rows at once, or "auto": by a token budget that is halved when memory runs out.
        temperature: 0 for greedy. Otherwise each prompt draws from a generator of its own, seeded by
            (`seed`, its index), so batching does not change samples and the global generator is not touched.
        seed: for sampling.
        progress: show a bar.

    Returns:
        New token ids per prompt, in the order of `sequences`.

    Raises:
        NumericsError: logits of a prompt are NaN or infinite.
        InputError: a prompt does not fit.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if not (temperature >= 0 and np.isfinite(temperature)):
        raise InputError(f"temperature is {temperature}; it must be 0 (greedy) or a positive number")
    answers: list[list[int]] = [[] for _ in sequences]
    limit = position_limit(module)
    if limit is not None:
        for index, sequence in enumerate(sequences):
            if len(sequence) >= limit:
                raise InputError(
                    f"prompt {index} has {len(sequence)} tokens, the model {limit} positions; shorten it"
                )

    answer = functools.partial(
        _answer,
        module,
        sequences,
        answers,
        max_new_tokens,
        limit,
        stop_ids,
        pad_id,
        device,
        temperature,
        seed,
    )
    with evaluating(module):
        in_batches(module, sequences, max_new_tokens, batch_size, device, answer, progress=progress)
    return answers


def last_logits(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device,
    batch_size: BatchSize = "auto",
    progress: bool = False,
) -> Float[Tensor, "n vocab"]:
    """Logits after each sequence's last token, fp32 on `device`; logits of other positions are never built.

    Raises:
        NumericsError: logits of a prompt are NaN or infinite.
    """
    scores: list[Tensor] = [torch.empty(0)] * len(sequences)
    score = functools.partial(_score, module, sequences, scores, pad_id, device)
    with evaluating(module):
        in_batches(module, sequences, 0, batch_size, device, score, progress=progress)
    return torch.stack(scores)


def _answer(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    answers: list[list[int]],
    max_new_tokens: int,
    limit: int | None,
    stop_ids: frozenset[int],
    pad_id: int,
    device: torch.device,
    temperature: float,
    seed: int,
    rows: list[int],
) -> None:
    """Fill in the answers of one batch."""
    batch = left_pad([sequences[row] for row in rows], pad_id, device)
    room = max_new_tokens
    if limit is not None:
        room = min(room, limit - batch.input_ids.shape[1])
    uniforms = _uniforms(rows, room, seed) if temperature > 0 else None
    new = _decode(module, batch, rows, room, stop_ids, temperature, uniforms)
    for row, tokens in zip(rows, new, strict=True):
        answers[row] = tokens


def _score(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    scores: list[Tensor],
    pad_id: int,
    device: torch.device,
    rows: list[int],
) -> None:
    """Fill in the last logits of one batch."""
    batch = left_pad([sequences[row] for row in rows], pad_id, device)
    logits = forward_last(
        module, batch.input_ids, batch.attention_mask, batch.position_ids, use_cache=False
    ).to(device)
    _refuse_nonfinite(logits.amax(-1), rows)
    for row, values in zip(rows, logits.float(), strict=True):
        scores[row] = values


def forward_last(
    module: nn.Module,
    input_ids: Int[Tensor, "batch new"],
    attention_mask: Int[Tensor, "batch seq"],
    position_ids: Int[Tensor, "batch new"],
    **kwargs: Any,
) -> Float[Tensor, "batch vocab"]:
    """One forward pass; logits of the last position only."""
    if "logits_to_keep" in inspect.signature(unwrap(module).forward).parameters:
        kwargs["logits_to_keep"] = 1
    output = module(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        return_dict=True,
        **kwargs,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def position_limit(module: nn.Module) -> int | None:
    """Rows of a learned table of absolute positions (GPT-2's `wpe`); None for rotary models."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in ("wpe", "embed_positions"):
            return part.num_embeddings
    return None


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
    """Call `run(rows)` on length-sorted batches, longest first; halve a batch that does not fit in memory."""
    if batch_size != "auto" and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1 or 'auto'")
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    budget, most = _budget(module, device) if batch_size == "auto" else (None, batch_size)
    with _bar(len(sequences), progress) as advance:
        while order:
            rows = most
            if budget is not None:
                rows = max(1, min(most, budget // (len(sequences[order[0]]) + new_tokens)))
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


def _decode(
    module: nn.Module,
    batch: Batch,
    rows: list[int],
    room: int,
    stop_ids: frozenset[int],
    temperature: float,
    uniforms: Tensor | None,
) -> list[list[int]]:
    """The decoding loop. Rows that have ended leave the batch once they are an eighth of it."""
    device, width = batch.input_ids.device, batch.input_ids.shape[1]
    stops = torch.tensor(sorted(stop_ids), device=device, dtype=torch.long)
    cache = roomy_cache(unwrap(module).config, width + room)
    mask = nn.functional.pad(batch.attention_mask, (0, room), value=1)
    inputs, positions = batch.input_ids, batch.position_ids
    alive = torch.arange(len(rows), device=device)  # which row of `rows` each row of the running batch is
    running = torch.ones(len(rows), dtype=torch.bool, device=device)
    written = torch.zeros((len(rows), room), dtype=torch.long, device=device)
    lengths = torch.full((len(rows),), room, dtype=torch.long, device=device)
    for step in range(room):
        logits = forward_last(
            module, inputs, mask[:, : width + step], positions, past_key_values=cache, use_cache=True
        ).to(device)
        tokens, best = _choose(
            logits, temperature, None if uniforms is None else uniforms[:, step].to(device)[alive]
        )
        if not bool(torch.isfinite(best).all()):
            _refuse_nonfinite(best, [rows[int(row)] for row in alive])
        stopped = running & torch.isin(tokens, stops)
        written[alive, step] = tokens
        lengths[alive[stopped]] = step
        running = running & ~stopped
        left = int(running.sum())
        if left == 0 or step == room - 1:
            break
        if left <= len(alive) * 7 // 8:
            keep = running.nonzero().squeeze(1)
            alive, tokens, mask, positions = alive[keep], tokens[keep], mask[keep], positions[keep]
            running = running[keep]
            cache.batch_select_indices(keep)
        inputs, positions = tokens[:, None], positions[:, -1:] + 1
    return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]


def _choose(
    logits: Float[Tensor, "batch vocab"], temperature: float, uniform: Tensor | None
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Next tokens and each row's largest logit (NaN if any is). Ties go to the lowest token id."""
    first = logits.argmax(-1)
    best = logits.gather(1, first[:, None]).squeeze(1)
    if uniform is None:
        return first, best
    # Inverse of the cumulative distribution: one uniform number a token, whatever else is in the batch.
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = torch.softmax(logits.to(exact) / temperature, -1).cumsum(-1)
    threshold = uniform.to(exact)[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return drawn.clamp(max=logits.shape[-1] - 1), best


def _uniforms(rows: list[int], room: int, seed: int) -> Float[Tensor, "batch room"]:
    """Uniform numbers for each prompt from a generator of its own."""
    drawn = []
    for row in rows:
        own = int(np.random.SeedSequence([seed % 2**63, row]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        drawn.append(torch.rand(room, generator=torch.Generator().manual_seed(own), dtype=torch.float64))
    return torch.stack(drawn).float() if torch.get_default_device().type == "mps" else torch.stack(drawn)


def _refuse_nonfinite(best: Float[Tensor, " batch"], rows: Sequence[int]) -> None:
    finite = torch.isfinite(best)
    if not bool(finite.all()):
        index = rows[int((~finite).nonzero()[0])]
        raise NumericsError(
            f"the model's logits are NaN or infinite at prompt {index}; check the weights, "
            "or load the model in dtype='float32' or 'bfloat16' if it runs in float16"
        )


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


@contextmanager
def _bar(total: int, show: bool) -> Iterator[Any]:
    if not show or total == 0:
        yield lambda rows: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("prompts", total=total)
        yield lambda rows: bar.advance(task, rows)
