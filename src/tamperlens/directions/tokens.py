"""Refusal tokens, found from the model: the first tokens by which its refusals differ from its harmless
answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.models import ChatModel, Decoding, ModelLike, Settings, as_chat_model
from tamperlens.prompts import PromptsLike, as_prompts
from tamperlens.rates.completions import judged

MOST = 8
COVER = 0.9
ENOUGH = 5


@dataclass(frozen=True)
class RefusalTokens(Result):
    """Token ids that open refusals, and how they were found.

    Attributes:
        ids: token ids, most characteristic first.
        texts: the tokens as text.
        gains: per token, its mean probability as first answer token after refused prompts minus that after
            harmless ones; NaN for tokens that were given.
        n_refused: how many refused prompts the means are over.
        n_harmless: how many harmless prompts.
        source: "found", "found without refusals" (the model refuses too little; all harmful prompts were
            used), "contrast" (all prompts of both sides, no judge), or "given".
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    gains: tuple[float, ...]
    n_refused: int
    n_harmless: int
    source: str

    def summary(self) -> str:
        """The tokens and how they were found."""
        return (
            f"Refusals open with {', '.join(map(repr, self.texts))} ({self.source}; {self.n_refused} refused "
            f"and {self.n_harmless} harmless prompts)."
        )


def find_refusal_tokens(
    model: ModelLike,
    harmful: PromptsLike,
    harmless: PromptsLike,
    *,
    judge: str | Judge | None = None,
    max_prompts: int = 48,
    decoding: Decoding | None = None,
    **settings: Unpack[Settings],
) -> RefusalTokens:
    """First answer tokens most characteristic of the model's own refusals against its harmless answers.

    The published code hard-codes one or two ids per model family ("I", "As"), which a new model or tokenizer
    does not share. Here the model answers up to `max_prompts` harmful prompts; over those that the judge
    calls refused, and over as many harmless ones, the next-token probabilities are averaged. The set of
    tokens with the largest difference refused − harmless is taken in order until it holds 90 % of all
    positive difference, 8 tokens at most. If fewer than 5 prompts are refused, all harmful prompts stand in
    for them and `source` says so.

    Args:
        model: any chat model.
        harmful: prompts that it is expected to refuse.
        harmless: prompts that it is expected to answer.
        judge: who says what is refused.
        max_prompts: prompts used per side.
        decoding: how the answers that are judged are made; `Decoding(max_new_tokens=32)` by default.
        **settings: fields of `Decoding` by name, in place of those of `decoding`.

    Raises:
        InputError: a side without prompts.
        NumericsError: the model's logits are NaN or infinite.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> found = directions.find_refusal_tokens(model, harmful.prompts, harmless.prompts)
        >>> len(found.ids) > 0
        True
    """
    model = as_chat_model(model)
    bad, good = _asked(harmful, max_prompts), _asked(harmless, max_prompts)
    if not bad or not good:
        raise InputError("refusal tokens need harmful and harmless prompts; one of the two sets is empty")
    answers = model.generate(bad, Decoding.of(decoding, settings, max_new_tokens=32))
    flags = judged(bad, answers, judge).refused
    refused = [prompt for prompt, flag in zip(bad, flags, strict=True) if flag]
    enough = len(refused) >= min(ENOUGH, len(bad))
    used = refused if enough else bad
    gain = _mean_probabilities(model, used) - _mean_probabilities(model, good)
    return _tokens(model, gain, len(refused), len(good), "found" if enough else "found without refusals")


def contrast_tokens(
    model: ModelLike, positive: PromptsLike, negative: PromptsLike, *, max_prompts: int = 48
) -> RefusalTokens:
    """First answer tokens that positive prompts bring about and negative ones do not; no judge is asked.

    The rule of `find_refusal_tokens` over all prompts, for concepts that have no judge. `source` is
    "contrast".

    Args:
        model: any chat model.
        positive: prompts with the concept.
        negative: prompts without it.
        max_prompts: prompts used per side.

    Raises:
        InputError: a side without prompts.
    """
    model = as_chat_model(model)
    bad, good = _asked(positive, max_prompts), _asked(negative, max_prompts)
    if not bad or not good:
        raise InputError("tokens of a contrast need prompts on both sides; one of the two is empty")
    gain = _mean_probabilities(model, bad) - _mean_probabilities(model, good)
    return _tokens(model, gain, len(bad), len(good), "contrast")


def _asked(prompts: PromptsLike, most: int) -> list[Any]:
    return list(as_prompts(prompts).prompts[:most])


def token_ids(model: ChatModel, given: Sequence[int] | RefusalTokens) -> tuple[int, ...]:
    """Ids of the refusal tokens, each once: a probability counted twice is none.

    Raises:
        InputError: see `given_tokens`.
    """
    return given.ids if isinstance(given, RefusalTokens) else given_tokens(model, given).ids


def given_tokens(model: ChatModel, tokens: Sequence[int]) -> RefusalTokens:
    """Wrap token ids that the caller chose.

    Raises:
        InputError: none, or an id outside the vocabulary.
    """
    ids = tuple(dict.fromkeys(int(token) for token in tokens))
    vocab = model.anatomy.d_vocab
    if not ids or min(ids) < 0 or max(ids) >= vocab:
        raise InputError(f"refusal tokens {list(ids)} must be ids between 0 and {vocab - 1}")
    texts = tuple(model.tokenizer.decode([token]) for token in ids)
    return RefusalTokens(ids, texts, (float("nan"),) * len(ids), 0, 0, "given")


def characteristic_tokens(
    gain: Float[Tensor, " vocab"], *, cover: float = COVER, most: int = MOST
) -> list[int]:
    """Tokens by falling gain until they hold `cover` of the positive gain; one at least, `most` at most."""
    values, order = gain.double().sort(descending=True, stable=True)
    positive = values.clamp(min=0)
    total = float(positive.sum())
    if total <= 0:
        return [int(order[0])]
    reached = int((positive.cumsum(0) < cover * total - 1e-12).sum()) + 1
    return [int(token) for token in order[: min(reached, most)]]


def _tokens(
    model: ChatModel, gain: Float[Tensor, " vocab"], n_refused: int, n_harmless: int, source: str
) -> RefusalTokens:
    ids = characteristic_tokens(gain)
    texts = tuple(model.tokenizer.decode([token]) for token in ids)
    gains = tuple(float(gain[token]) for token in ids)
    return RefusalTokens(tuple(ids), texts, gains, n_refused, n_harmless, source)


def _mean_probabilities(model: ChatModel, prompts: Sequence[str]) -> Float[Tensor, " vocab"]:
    return torch.softmax(model.logits_last(list(prompts)).double(), -1).mean(0)
