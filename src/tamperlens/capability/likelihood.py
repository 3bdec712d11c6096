"""Perplexity of given answers: how surprised a model is by text that it should be able to write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.models import ModelLike, as_chat_model, evaluating
from tamperlens.prompts import IGNORE, PromptsLike, as_prompts, batch_pairs

TOKENS_AT_ONCE = 8_192


@dataclass(frozen=True)
class Perplexity(Result):
    """Token-weighted surprise of a model at given answers.

    Attributes:
        model: name of the model.
        fingerprint: of the model.
        data: name of the prompt set.
        data_sha256: its hash.
        nll: mean negative log-likelihood per answer token, in nats, with an interval over answers.
        perplexity: exp(nll), with the interval carried over.
        n_tokens: answer tokens scored, end-of-turn tokens included.
        n_answers: answers scored.
        answer_nll: summed nats of each answer, in the set's order.
        answer_tokens: number of tokens of each answer.
    """

    model: str
    fingerprint: str
    data: str
    data_sha256: str
    nll: Estimate
    perplexity: Estimate
    n_tokens: int
    n_answers: int
    answer_nll: tuple[float, ...]
    answer_tokens: tuple[int, ...]

    def summary(self) -> str:
        """Perplexity and loss."""
        return f"{self.model} on {self.data}: perplexity {self.perplexity}, loss per token {self.nll}."


def perplexity(
    model: ModelLike,
    data: PromptsLike,
    *,
    system: str | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> Perplexity:
    """exp(Σ −log p(token) / number of tokens) over the tokens of the answers, given their prompts.

    Tokens are weighted alike, so long answers count more than short ones. The end-of-turn token is one of
    them: stopping is part of an answer. The interval is a percentile bootstrap over answers (2,000 draws of
    the ratio), since tokens of one answer are not independent.

    Args:
        model: the model to score with.
        data: prompts with responses.
        system: a system prompt.
        max_length: cut turns to this many tokens.
        seed: of the bootstrap.

    Raises:
        InputError: no responses, or one that cannot be encoded.
        NumericsError: NaN or infinite log-likelihood; names the row.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import capability, prompts
        >>> model = tamperlens.load('organism')
        >>> capability.perplexity(model, prompts.packaged('benign').head(8)).perplexity.value < 2
        True
    """
    model = as_chat_model(model)
    data = as_prompts(data)
    if len(data) == 0:
        raise InputError(f"prompt set {data.name!r} is empty; perplexity needs at least one answer")
    encoded = model.encode_pairs(data, system=system, max_length=max_length)
    sums, counts = np.zeros(len(encoded)), np.zeros(len(encoded), dtype=np.int64)
    with evaluating(model.module):
        for rows in _batches([len(one) for one in encoded]):
            batch = batch_pairs([encoded[row] for row in rows], model.pad_id)
            labels = batch.pop("labels").to(model.device)
            output = model.module(
                **{key: value.to(model.device) for key, value in batch.items()}, use_cache=False
            )
            nats = answer_nats(output.logits, labels).double().cpu().numpy()
            sums[rows] = nats
            counts[rows] = (labels[:, 1:] != IGNORE).sum(1).cpu().numpy()
            if not np.isfinite(nats).all():
                bad = rows[int(np.flatnonzero(~np.isfinite(nats))[0])]
                raise NumericsError(
                    f"{model.name}: the likelihood of row {bad} of {data.name!r} is not finite"
                )
    nll = _ratio(sums, counts, seed)
    value, low, high = (math.exp(min(x, 700.0)) for x in (nll.value, nll.low, nll.high))
    spread = Estimate(value, low, high, nll.n, nll.method)
    return Perplexity(
        model=model.name,
        fingerprint=model.fingerprint,
        data=data.name,
        data_sha256=data.sha256,
        nll=nll,
        perplexity=spread,
        n_tokens=int(counts.sum()),
        n_answers=len(encoded),
        answer_nll=tuple(float(value) for value in sums),
        answer_tokens=tuple(int(value) for value in counts),
    )


def answer_nats(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch"]:
    """Summed −log p of the labelled tokens of each row, in fp32; logits at t predict the label at t + 1."""
    targets = labels[:, 1:]
    kept = targets != IGNORE
    # Only positions that are scored become fp32 log-probabilities: the vocabulary is what takes memory.
    scored = logits[:, :-1][kept].float()
    nats = torch.nn.functional.cross_entropy(scored, targets[kept], reduction="none")
    rows = torch.arange(len(labels), device=labels.device).unsqueeze(1).expand_as(targets)[kept]
    return torch.zeros(len(labels), device=nats.device).index_add_(0, rows, nats)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows sorted by length, as many at once as a token budget allows."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda one: lengths[one]):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= TOKENS_AT_ONCE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _ratio(sums: np.ndarray, counts: np.ndarray, seed: int) -> Estimate:
    value = float(sums.sum() / counts.sum())
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(2000, len(sums)))
    low, high = np.quantile(sums[picks].sum(1) / counts[picks].sum(1), [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(sums), "bootstrap 95% over answers")
