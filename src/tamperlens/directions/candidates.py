"""Candidate directions: splits of the prompts, differences of means, and how well each separates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.directions.cache import ActivationCache, fetch
from tamperlens.directions.geometry import auroc, tpr_at_fpr
from tamperlens.models import ChatModel, evaluating
from tamperlens.models.prefix import shared_prefix
from tamperlens.prompts import PromptSet, as_prompts, content, post_instruction_tokens
from tamperlens.rates.completions import Prompts, hash_prompts, prompt_texts
from tamperlens_hooks import read_positions, residual_means

# A difference of means this small against the means themselves is rounding: the token at that place does not
# see the prompt (a template token at the input of block 0, for one).
ZERO = 1e-6
# Tokens in a batch of the pass over the training prompts.
BATCH_TOKENS = 2048

BatchSize = int | Literal["auto"]


@dataclass(frozen=True)
class Split(Result):
    """Disjoint training and validation prompts of both kinds.

    Attributes:
        harmful_train: prompts behind the harmful mean.
        harmful_val: prompts that bypass is scored on.
        harmless_train: prompts behind the harmless mean.
        harmless_val: prompts that induce and KL are scored on.
    """

    harmful_train: tuple[str, ...]
    harmful_val: tuple[str, ...]
    harmless_train: tuple[str, ...]
    harmless_val: tuple[str, ...]

    def summary(self) -> str:
        """How many prompts each part has."""
        return (
            f"{len(self.harmful_train)} harmful and {len(self.harmless_train)} harmless prompts for the "
            f"means, {len(self.harmful_val)} and {len(self.harmless_val)} for the scores."
        )

    @property
    def harmful_sha256(self) -> str:
        """Hash of the harmful prompts used, training then validation."""
        return hash_prompts((*self.harmful_train, *self.harmful_val))

    @property
    def harmless_sha256(self) -> str:
        """Hash of the harmless prompts used, training then validation."""
        return hash_prompts((*self.harmless_train, *self.harmless_val))


def split_sizes(harmful: int, harmless: int) -> tuple[int, int]:
    """Sizes for sets smaller than the published 128 + 32: 4 to 1, at most 128 and 32.

    Args:
        harmful: distinct harmful prompts at hand.
        harmless: distinct harmless prompts at hand.

    Returns:
        (n_train, n_val) that both sets can give.
    """
    available = min(harmful, harmless)
    n_val = min(32, max(1, available // 5))
    return min(128, available - n_val), n_val


def split_prompts(harmful: Prompts, harmless: Prompts, n_train: int, n_val: int, seed: int) -> Split:
    """Seeded disjoint parts of both sets. Repeated prompts are used once, so no prompt is on both sides.

    Raises:
        InputError: fewer distinct prompts than needed, or a prompt that is in both sets.
    """
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    check_disjoint(harmful, harmless)
    parts: list[tuple[str, ...]] = []
    for kind, data in (("harmful", harmful), ("harmless", harmless)):
        # Two conversations that end in the same words are two prompts.
        distinct = PromptSet.from_prompts(
            {content(one): one for one in data.prompts}.values(), name=data.name
        )
        if len(distinct) < n_train + n_val:
            fits = split_sizes(len(distinct), len(distinct))
            raise InputError(
                f"{kind} prompts {data.name!r}: {len(distinct)} distinct ones, but {n_train} for "
                f"training and {n_val} for validation need {n_train + n_val}; add prompts or pass smaller "
                f"sizes, e.g. n_train={fits[0]}, n_val={fits[1]}"
            )
        train, validation = distinct.split([n_train, n_val], seed)
        parts += [train.prompts, validation.prompts]
    return Split(*parts)


def check_disjoint(harmful: Prompts, harmless: Prompts) -> None:
    """Refuse prompts that are called harmful and harmless at once.

    Raises:
        InputError: names how many and shows one.
    """
    bad = set(map(content, prompt_texts(harmful)))
    both = {str(one) for one in prompt_texts(harmless) if content(one) in bad}
    if both:
        example = min(both)
        raise InputError(
            f"{len(both)} prompts are in both the harmful and the harmless set, e.g. {example[:60]!r}; "
            "remove them from one"
        )


def candidate_positions(model: ChatModel) -> list[int]:
    """Every post-instruction template position, negative from the end; [-1] when the template has none."""
    count = len(post_instruction_tokens(model.tokenizer, fmt=model.chat_format))
    return list(range(-max(count, 1), 0))


def check_positions(positions: Sequence[int]) -> list[int]:
    """Positions as a list of different negative numbers, in increasing order.

    Raises:
        InputError: none, or one that is not negative: positions count from the end because prompts differ in
            length.
    """
    places = sorted({int(position) for position in positions})
    if not places or places[-1] >= 0:
        raise InputError(
            f"positions {list(positions)} must be negative, counted from the end of the prompt, e.g. [-1]"
        )
    return places


def mean_activations(
    model: ChatModel,
    prompts: Sequence[str],
    positions: Sequence[int],
    layers: Sequence[int] | None = None,
    *,
    cache: ActivationCache | None = None,
) -> Float64[Tensor, "pos layer d_model"]:
    """Mean block input over prompts at each position and layer, summed in float64 in one pass.

    Prompts go sorted by length, without the unembedding, and stop behind the last layer asked for, so that
    thousands of them cost about that share of a plain forward pass.

    Args:
        model: any chat model.
        prompts: at least one.
        positions: negative, from the end.
        layers: blocks; all by default.
        cache: where means are kept between calls.

    Raises:
        NumericsError: an activation is NaN or infinite.
    """

    def read() -> Tensor:
        return residual_means(
            model,
            batches(model, prompts, -min(positions))[0],
            positions=list(positions),
            layers=layers,
            site="resid_pre",
        )[0]

    means = fetch(cache, model, prompts, "means", read, layers=layers, positions=positions)
    if not bool(torch.isfinite(means).all()):
        raise NumericsError(
            f"{model.name}: activations are NaN or infinite; load the model in float32 or bfloat16"
        )
    return means


def batches(
    model: ChatModel, prompts: Sequence[str], keep: int = 1
) -> tuple[Iterator[dict[str, Any]], list[int]]:
    """Left-padded batches of prompts sorted by length, and which prompt each row is, over all batches.

    The tokens that all prompts begin with are run once, at the first batch, and each batch is made when it is
    asked for: use them once and in order.

    Args:
        model: that will read them, as it is now.
        prompts: at least one.
        keep: tokens at every prompt's end that must be read, not shared.
    """
    sequences = model.token_ids(list(prompts))
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    return _made(model, [sequences[row] for row in order], keep), order


def _made(model: ChatModel, rows: list[list[int]], keep: int) -> Iterator[dict[str, Any]]:
    with evaluating(model.module):
        prefix = shared_prefix(model.module, rows, pad_id=model.pad_id, device=model.device, keep=keep)
    start = 0
    while start < len(rows):
        end = start + 1
        # Sorted, so the next sequence is the longest of the batch that it would join.
        while end < len(rows) and (end + 1 - start) * (len(rows[end]) - prefix.length) <= BATCH_TOKENS:
            end += 1
        yield prefix.inputs(rows[start:end])
        start = end


def separation_table(
    model: ChatModel,
    differences: Float64[Tensor, "pos layer d_model"],
    scale: Float64[Tensor, "pos layer"],
    harmful: Sequence[str],
    harmless: Sequence[str],
    positions: Sequence[int],
) -> Float64[Tensor, "pos layer 2"]:
    """AUROC, and true positive rate at 1 % false positives, of each candidate on validation prompts.

    Each prompt is read at the candidate's own place and projected onto it; NaN where the candidate is zero.
    """
    read = []
    for prompts in (harmful, harmless):
        made, _ = batches(model, prompts, -min(positions))
        read.append(read_positions(model, made, positions=list(positions), site="resid_pre").double())
    found = torch.full((*differences.shape[:2], 2), math.nan, dtype=torch.float64)
    for p, layer in torch.cartesian_prod(*(torch.arange(n) for n in differences.shape[:2])).tolist():
        vector = differences[p, layer]
        if float(vector.norm()) <= ZERO * float(scale[p, layer]):
            continue
        bad, good = (rows[:, p, layer] @ vector for rows in read)
        if not bool(torch.isfinite(torch.cat([bad, good])).all()):
            continue
        above, _ = tpr_at_fpr(bad, good)
        found[p, layer] = torch.tensor([auroc(bad, good), above / len(bad)])
    return found
