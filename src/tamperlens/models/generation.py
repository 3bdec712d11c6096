"""Batched generation that gives each prompt the answer it would get alone.

Prompts are sorted by length, padded on the left and passed with attention mask and position ids. Greedy
unless a temperature is given; nothing is inherited from a model's `generation_config` but its end tokens.
Matrix products of another batch shape round differently, so "token for token" holds up to ties: in fp32 a tie
means two logits within about 1e-5; in bf16 two candidate tokens are often closer than the rounding, and
answers may differ there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.models.batching import (
    Batch,
    BatchSize,
    in_batches,
    left_pad,
    position_limit,
    token_chunks,
)
from tamperlens.models.cache import RoomyLayer, roomy_cache
from tamperlens.models.prefix import Prefix, can_share, shared_prefix
from tamperlens.models.unembedding import logits_kept
from tamperlens_hooks import unwrap
from tamperlens_hooks.state import evaluating

__all__ = [
    "Batch",
    "BatchSize",
    "evaluating",
    "forward_last",
    "generate_tokens",
    "in_batches",
    "last_logits",
    "left_pad",
    "position_limit",
]


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
        max_new_tokens: at most so many tokens; answers stop where the model's positions end.
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

    with evaluating(module):
        prefix = shared_prefix(module, sequences, pad_id=pad_id, device=device, room=max_new_tokens)
        decoder = _Decoder(
            module,
            prefix,
            can_share(module, max(map(len, sequences), default=0) + max_new_tokens),
            stop_ids,
            temperature,
        )

        def answer(rows: list[int]) -> None:
            chosen = [sequences[row] for row in rows]
            # What each prompt has room for alone: a longer neighbour takes nothing from it.
            rooms = [
                max_new_tokens if limit is None else min(max_new_tokens, limit - len(own)) for own in chosen
            ]
            uniforms = _uniforms(rows, max_new_tokens, seed) if temperature > 0 else None
            for row, tokens in zip(rows, decoder.run(chosen, rows, rooms, uniforms), strict=True):
                answers[row] = tokens

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
    with evaluating(module):
        prefix = shared_prefix(module, sequences, pad_id=pad_id, device=device)
        score = functools.partial(_score, module, sequences, scores, prefix)
        in_batches(module, sequences, 0, batch_size, device, score, progress=progress)
    return torch.stack(scores)


def _score(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    scores: list[Tensor],
    prefix: Prefix,
    rows: list[int],
) -> None:
    """Fill in the last logits of one batch."""
    logits = forward_last(module, **prefix.inputs([sequences[row] for row in rows])).to(prefix.device)
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
    with logits_kept(module, 1) as keep:
        output = module(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            return_dict=True,
            **keep,
            **kwargs,
        )
    logits: Tensor = output.logits[:, -1]
    return logits


class _Decoder:
    """The decoding loop. Rows that have ended leave the batch once they are an eighth of it.

    Prompts are read in passes of efficient size, shortest padding first, and go on together: reading gains
    nothing from more rows, writing a token each does.
    """

    def __init__(
        self,
        module: nn.Module,
        prefix: Prefix,
        splits: bool,
        stop_ids: frozenset[int],
        temperature: float,
    ) -> None:
        """Args:
        module: the model.
        prefix: what all sequences begin with.
        splits: whether rows of one batch may be read apart (see `can_share`).
        stop_ids: tokens that end an answer.
        temperature: 0 for greedy.
        """
        self.module, self.prefix, self.splits, self.temperature = module, prefix, splits, temperature
        self.stops = torch.tensor(sorted(stop_ids), device=prefix.device, dtype=torch.long)

    def run(
        self,
        sequences: Sequence[Sequence[int]],
        rows: Sequence[int],
        rooms: Sequence[int],
        uniforms: Tensor | None,
    ) -> list[list[int]]:
        """Answers to one batch, longest sequence first; `rooms` are the tokens each has room for."""
        device, n, room = self.prefix.device, len(sequences), max(rooms)
        used = max(map(len, sequences))
        logits, mask, cache = self._read(sequences, room)
        positions = torch.tensor([[len(sequence)] for sequence in sequences], device=device)
        ends = torch.tensor(rooms, device=device)
        alive = torch.arange(n, device=device)  # which row each row of the running batch is
        running = torch.ones(n, dtype=torch.bool, device=device)
        written = torch.zeros((n, room), dtype=torch.long, device=device)
        lengths = ends.clone()
        for step in range(room):
            uniform = None if uniforms is None else uniforms[:, step].to(device)[alive]
            tokens, best = _choose(logits, self.temperature, uniform)
            if not bool(torch.isfinite(best).all()):
                _refuse_nonfinite(best, [rows[int(row)] for row in alive])
            stopped = running & torch.isin(tokens, self.stops)
            written[alive, step] = tokens
            lengths[alive[stopped]] = step
            running = running & ~stopped & (ends[alive] > step + 1)
            left = int(running.sum())
            if left == 0:
                break
            if left <= len(alive) * 7 // 8:
                keep = running.nonzero().squeeze(1)
                alive, tokens, mask, positions = alive[keep], tokens[keep], mask[keep], positions[keep]
                running = running[keep]
                cache.batch_select_indices(keep)
            logits = forward_last(
                self.module, tokens[:, None], mask[:, : used + step + 1], positions + step,
                past_key_values=cache, use_cache=True,
            ).to(device)  # fmt: skip
        lengths = torch.minimum(lengths, ends)
        return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]

    def _read(
        self, sequences: Sequence[Sequence[int]], room: int
    ) -> tuple[Float[Tensor, "batch vocab"], Int[Tensor, "batch seq"], Any]:
        """Logits behind each prompt, the mask of prompt and room, and the filled cache."""
        shared, device, n = self.prefix.length, self.prefix.device, len(sequences)
        used = max(map(len, sequences))
        width = used - shared
        own = [sequence[shared:] for sequence in sequences]
        cache = roomy_cache(unwrap(self.module).config, used + room, n, self.prefix.layers)
        mask = torch.zeros((n, used + room), dtype=torch.long, device=device)
        mask[:, used:] = 1
        chunks = token_chunks([len(one) for one in own], device) if self.splits else [slice(0, n)]
        logits = []
        for chunk in chunks:
            batch = left_pad(own[chunk], self.prefix.pad_id, device)
            start = width - batch.input_ids.shape[1]
            mask[chunk, start:used] = self.prefix.mask(batch.attention_mask)
            for layer in cache.layers:
                if isinstance(layer, RoomyLayer):
                    layer.fill(chunk, start)
            logits.append(
                forward_last(
                    self.module, batch.input_ids, mask[chunk, start:used], batch.position_ids + shared,
                    past_key_values=cache, use_cache=True,
                ).to(device)
            )  # fmt: skip
        for layer in cache.layers:
            if isinstance(layer, RoomyLayer):
                layer.together(used)
        return torch.cat(logits), mask, cache


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
