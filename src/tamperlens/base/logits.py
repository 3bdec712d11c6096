"""Numbers on last-position logits that several measures use: the refusal metric and the KL divergence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError


def refusal_metric(logits: Float[Tensor, "n vocab"], refusal_tokens: Sequence[int]) -> Float[Tensor, " n"]:
    """log P − log(1 − P), P the summed probability of the refusal tokens (Arditi et al. 2024, §2.4).

    Computed in float64 as logsumexp over the refusal tokens minus logsumexp over all others, which is the
    same number without the cancellation in 1 − P and without the ε = 1e-8 of the published code (which
    bounds it to ±18.4).

    Args:
        logits: of the answer's first token, `[n, vocab]`.
        refusal_tokens: token ids that open refusals; repeated ids count once.

    Returns:
        One number per row, `[n]` float64; above 0 when a refusal is the likelier beginning.

    Raises:
        InputError: no refusal tokens, all tokens, or an id outside the vocabulary.
    """
    ids = sorted({int(token) for token in refusal_tokens})
    vocab = logits.shape[-1]
    if not ids or len(ids) >= vocab:
        raise InputError(
            f"{len(ids)} refusal tokens of {vocab}: pass at least one and not the whole vocabulary"
        )
    if ids[0] < 0 or ids[-1] >= vocab:
        raise InputError(
            f"refusal token {ids[0] if ids[0] < 0 else ids[-1]} is outside the vocabulary of {vocab}"
        )
    exact = logits.double()
    chosen = torch.zeros(vocab, dtype=torch.bool, device=logits.device)
    chosen[ids] = True
    return torch.logsumexp(exact[:, chosen], -1) - torch.logsumexp(exact[:, ~chosen], -1)


def kl_divergence(base: Float[Tensor, "n vocab"], changed: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    """KL(base ‖ changed) of the next-token distributions, row by row, in nats and float64.

    Average it over prompts; the divergence of averaged distributions is another, smaller number.

    Args:
        base: logits of the untouched model, `[n, vocab]`.
        changed: logits of the edited model, `[n, vocab]`.
    """
    p, q = base.double().log_softmax(-1), changed.double().log_softmax(-1)
    # Tokens that the base model never says (logit −inf) add nothing; p·log p is 0 there, not NaN.
    terms = torch.where(p > -torch.inf, p.exp() * (p - q), torch.zeros_like(p))
    return terms.sum(-1)
