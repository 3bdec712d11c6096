"""Perplexity of fixed answers: how likely a model still finds what the base answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.stats import Estimate, undefined
from tamperlens.models import ChatModel, evaluating
from tamperlens.prompts import IGNORE, batch_pairs, encode_pair, padding_id


def answer_losses(
    model: ChatModel, pairs: Sequence[tuple[str, str]], *, batch_size: int = 16
) -> Float[Tensor, "n two"]:
    """Summed negative log-likelihood (nats) and number of the answer's tokens, per pair that can be scored.

    Empty answers, and answers whose text does not survive a round trip through the tokenizer, are left out.

    Raises:
        NumericsError: a loss is NaN or infinite.
    """
    rows: list[Tensor] = []
    encoded = []
    for prompt, answer in pairs:
        with suppress(InputError):
            encoded.append(encode_pair(model.tokenizer, prompt, answer, fmt=model.chat_format))
    pad = padding_id(model.tokenizer)
    with torch.no_grad(), evaluating(model.module):
        for start in range(0, len(encoded), batch_size):
            batch = batch_pairs(encoded[start : start + batch_size], pad_id=pad)
            labels = batch.pop("labels").to(model.device)
            logits = model.module(**{k: v.to(model.device) for k, v in batch.items()}, use_cache=False).logits
            wanted = labels[:, 1:]
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none"
            )
            rows.append(
                torch.stack([losses.double().sum(1), (wanted != IGNORE).sum(1).double()], dim=1).cpu()
            )
    found = torch.cat(rows) if rows else torch.zeros(0, 2, dtype=torch.float64)
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{model.name}: the loss is NaN or infinite; load the model in float32 or bfloat16"
        )
    return found


def perplexity(losses: Float[Tensor, "n two"], *, seed: int = 0, draws: int = 2000) -> Estimate:
    """exp(summed loss / tokens), with a percentile bootstrap over pairs.

    Args:
        losses: from `answer_losses`.
        seed: of the resampling.
        draws: number of resamples.
    """
    table = losses.numpy()
    if not len(table) or table[:, 1].sum() == 0:
        return undefined("no answers to score")
    value = float(np.exp(table[:, 0].sum() / table[:, 1].sum()))
    picks = np.random.default_rng(seed).integers(0, len(table), size=(draws, len(table)))
    sums = table[picks].sum(axis=1)
    low, high = np.quantile(np.exp(sums[:, 0] / sums[:, 1]), [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(table), "bootstrap 95% over answers")
