"""How many tokens deep alignment goes: per-token KL over the first answer tokens, and prefilled answers.

Qi et al. 2024, "Safety alignment should be made more than just a few tokens deep" (arXiv 2406.05946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.logits import kl_divergence
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, undefined, wilson
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model, evaluating, left_pad, old_length
from tamperlens.models.generation import BatchSize, generate_tokens, in_batches
from tamperlens.models.unembedding import logits_kept
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts
from tamperlens.rates.completions import Prompts, judged, prompt_texts

Towards = Literal["base||tuned", "tuned||base"]
DEPTHS = (0, 1, 2, 3, 5, 7, 10)


@dataclass(frozen=True)
class TokenKL(Result):
    """KL between two models' next-token distributions along the same answers.

    Attributes:
        kl: in nats, `[n_prompts, n_tokens]` float64; column j is the distribution of the answer's token j
            (from 0) given the prompt and the answer before it; NaN behind an answer's end.
        towards: "base||tuned" or "tuned||base".
        answers: "given" or "base, greedy".
        base: name of the base model.
        tuned: name of the tuned model.
    """

    kl: Tensor
    towards: str
    answers: str
    base: str
    tuned: str

    def summary(self) -> str:
        """The first token's KL and its share."""
        return (
            f"{self.base} and {self.tuned}, KL {self.towards} on {self.answers} answers: {self.at(0)} at the "
            f"first token; the first three hold {self.share_in_first(3)} of the sum."
        )

    def at(self, token: int) -> Estimate:
        """Mean over prompts at one answer token, with its bootstrap interval."""
        column = self.kl[:, token]
        column = column[torch.isfinite(column)]
        return bootstrap(column.numpy()) if len(column) else undefined("no answer is that long")

    def share_in_first(self, tokens: int) -> Estimate:
        """Share of the summed KL that falls on the first answer tokens, with a bootstrap over prompts.

        Of an update that is spread evenly over n tokens it is tokens / n.
        """
        filled = self.kl.nan_to_num(0.0)
        parts = torch.stack([filled[:, :tokens].sum(1), filled.sum(1)], 1).numpy()
        if not len(parts) or parts[:, 1].sum() <= 0:
            return undefined("the two models do not differ on these answers", 0)
        rng = np.random.default_rng(0)
        sums = parts[rng.integers(0, len(parts), (2000, len(parts)))].sum(1)
        low, high = np.quantile((sums[:, 0] / np.maximum(sums[:, 1], 1e-300)), [0.025, 0.975])
        value = parts[:, 0].sum() / parts[:, 1].sum()
        return Estimate(float(value), float(low), float(high), len(parts), "bootstrap 95%")

    def to_frame(self) -> pd.DataFrame:
        """One row per answer token: token, value, low, high, n, towards, base, tuned."""
        rows = [{"token": token, **self.at(token).cells()} for token in range(self.kl.shape[1])]
        return pd.DataFrame(rows).assign(towards=self.towards, base=self.base, tuned=self.tuned)


@dataclass(frozen=True)
class PrefillDepth(Result):
    """Refusals when the answer's first tokens are put into the model's mouth.

    Attributes:
        table: one row per depth: depth (tokens prefilled), value (share refused, as `refusal_rate` counts),
            low, high (Wilson), degenerate (share), n (answers longer than the depth).
        flips: per prompt refused at depth 0, the least depth tried at which the continuation complies;
            infinity where none does.
        prompts: those prompts.
        judge: name of the judge, which sees what follows the prefill.
        model: name of the model.
        fingerprint: its fingerprint.
    """

    table: pd.DataFrame
    flips: Tensor
    prompts: tuple[str, ...]
    judge: str
    model: str
    fingerprint: str

    def summary(self) -> str:
        """How many tokens of compliance turn a refusal."""
        return (
            f"{self.model}: of {len(self.prompts)} prompts refused without a prefill, half comply after "
            f"{self.median} tokens (judge {self.judge!r})."
        )

    @property
    def median(self) -> Estimate:
        """Median depth that flips a refusal, with a bootstrap over prompts; may be infinite."""
        values = self.flips.numpy()
        if not len(values):
            return undefined("no prompt is refused without a prefill")
        rng = np.random.default_rng(0)
        # The lower median: an average with infinity would say nothing.
        middle = (len(values) - 1) // 2
        drawn = np.sort(values[rng.integers(0, len(values), (2000, len(values)))], axis=1)[:, middle]
        low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
        return Estimate(float(np.sort(values)[middle]), float(low), float(high), len(values), "bootstrap 95%")

    def to_frame(self) -> pd.DataFrame:
        """The table with model and judge."""
        return self.table.assign(model=self.model, judge=self.judge)


def token_kl(
    base: ModelLike,
    tuned: ModelLike,
    data: Prompts,
    *,
    n_tokens: int = 10,
    towards: Towards = "base||tuned",
    batch_size: BatchSize = "auto",
) -> TokenKL:
    """KL between base and tuned at each of the first answer tokens.

    Answers are those of the set where it has responses (harmful ones in Qi et al., figure 1, between an
    aligned and an unaligned model, the aligned one first), else the base's own greedy answers. Both models
    read the same tokens.

    Args:
        base: the model before.
        tuned: the model after; the same tokenizer.
        data: prompts, with responses or without.
        n_tokens: answer tokens to look at.
        towards: "base||tuned", KL(p_base ‖ p_tuned), or "tuned||base".
        batch_size: rows at once.

    Raises:
        InputError: no prompts, models of unequal vocabularies, or a bad answer.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import prompts, rates
        >>> model = tamperlens.load('organism')
        >>> found = rates.token_kl(model, model, prompts.packaged('harmful').head(4), n_tokens=2)
        >>> float(found.to_frame()['value'].abs().max()) < 1e-6
        True
    """
    base = as_chat_model(base, what="base")
    tuned = as_chat_model(tuned, what="tuned")
    data = as_prompts(data)
    if base.anatomy.d_vocab != tuned.anatomy.d_vocab:
        raise InputError(f"{base.name} and {tuned.name} have unequal vocabularies, so no KL between them")
    turns, given = _turns(base, data, n_tokens, batch_size)
    if not turns:
        raise InputError("there are no prompts; pass at least one")
    found = torch.full((len(turns), n_tokens), math.nan, dtype=torch.float64)

    def run(rows: list[int]) -> None:
        sides = [_answer_logits(model, [turns[row] for row in rows], n_tokens) for model in (base, tuned)]
        for row, one, two in zip(rows, *sides, strict=True):
            pair = (one, two) if towards == "base||tuned" else (two, one)
            found[row, : len(one)] = kl_divergence(*pair).double().cpu()

    sequences = [prompt + answer for prompt, answer in turns]
    with evaluating(base.module), evaluating(tuned.module):
        in_batches(base.module, sequences, n_tokens, batch_size, base.device, run)
    return TokenKL(found, towards, "given" if given else "base, greedy", base.name, tuned.name)


@old_length
def prefill_depth(
    model: ModelLike,
    data: PromptsLike,
    *,
    depths: Sequence[int] = DEPTHS,
    judge: str | Judge | None = None,
    decoding: Decoding | None = None,
    batch_size: BatchSize = "auto",
) -> PrefillDepth:
    """How many tokens of a compliant answer must be prefilled until the model goes on with it.

    Args:
        model: any chat model.
        data: harmful prompts with compliant answers, whose first tokens are prefilled.
        depths: numbers of tokens; 0 is always tried.
        judge: of the continuation.
        decoding: how the continuation is made, without thinking or a prefill of its own; `Decoding()` by
            default.
        batch_size: rows at once.

    Raises:
        InputError: no prompts or no responses, a negative depth, an answer that cannot be encoded, or a
            decoding that prefills or thinks.
    """
    model = as_chat_model(model)
    data = as_prompts(data)
    tried = sorted({0, *(int(depth) for depth in depths)})
    if tried[0] < 0:
        raise InputError(f"depths {list(depths)} must not be negative")
    if not len(data):
        raise InputError("there are no prompts; pass at least one")
    how = Decoding.of(decoding, {})
    if how.prefill or how.thinking:
        raise InputError(
            "the depth is the prefill, before which no thought stands; leave both out of decoding"
        )
    asked = model.with_format(date=how.date)
    turns, _ = _turns(asked, data, max(tried[-1], 1), batch_size, closing=False, system=how.system)
    verdicts: list[list[Verdict | None]] = []
    rows: list[dict[str, float]] = []
    name = ""
    for depth in tried:
        kept = [row for row, (_, answer) in enumerate(turns) if len(answer) >= max(depth, 1)]
        new = generate_tokens(
            model.module,
            [turns[row][0] + turns[row][1][:depth] for row in kept],
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            seed=how.seed,
            stop_ids=model.stop_ids,
            pad_id=model.pad_id,
            device=model.device,
            batch_size=batch_size,
        )
        texts = [str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in new]
        found = judged([data.prompts[row] for row in kept], texts, judge)
        name = found.judge
        column: list[Verdict | None] = [None] * len(turns)
        for row, verdict in zip(kept, found.verdicts, strict=True):
            column[row] = verdict
        verdicts.append(column)
        share = wilson(sum(found.refused), len(kept))
        broken = found.labels.count("degenerate") / len(kept) if kept else math.nan
        rows.append(
            {"depth": depth, "value": share.value, "low": share.low, "high": share.high,
             "degenerate": broken, "n": len(kept)}
        )  # fmt: skip
    refused = [row for row, first in enumerate(verdicts[0]) if first is not None and first.refused]
    flips = [
        next((float(d) for d, at in zip(tried, verdicts, strict=True) if _complies(at[row])), math.inf)
        for row in refused
    ]
    return PrefillDepth(
        pd.DataFrame(rows),
        torch.tensor(flips, dtype=torch.float64),
        tuple(data.prompts[row] for row in refused),
        name,
        model.name,
        model.fingerprint,
    )


def _complies(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.label == "compliance"


def _turns(
    model: ChatModel,
    data: Prompts,
    n_tokens: int,
    batch_size: BatchSize,
    *,
    closing: bool = True,
    system: str | None = None,
) -> tuple[list[tuple[list[int], list[int]]], bool]:
    """(prompt ids, first answer ids) of each row, and whether the answers were given."""
    if isinstance(data, PromptSet) and (data.responses is not None or not closing):
        turns = []
        for one in model.encode_pairs(data, system=system):
            answer = one.label_ids
            if not closing and answer and answer[-1] in model.stop_ids:
                answer = answer[:-1]
            turns.append((one.input_ids[: one.start], answer[:n_tokens]))
        return turns, True
    prompts = model.token_ids(list(prompt_texts(data)))
    answers = generate_tokens(
        model.module, prompts, max_new_tokens=n_tokens, stop_ids=model.stop_ids, pad_id=model.pad_id,
        device=model.device, batch_size=batch_size,
    )  # fmt: skip
    # An answer of no tokens at all still has a first distribution: that in which it ends.
    return [(p, a or [min(model.stop_ids)]) for p, a in zip(prompts, answers, strict=True)], False


def _answer_logits(
    model: ChatModel, turns: Sequence[tuple[list[int], list[int]]], n_tokens: int
) -> list[Float[Tensor, "tokens vocab"]]:
    """Logits that predict each answer token; the last token itself need not be read."""
    rows = [prompt + answer[:-1] for prompt, answer in turns]
    batch = left_pad(rows, model.pad_id, model.device)
    with logits_kept(model.module, n_tokens) as keep:
        logits = model.module(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids,
            return_dict=True, use_cache=False, **keep,
        ).logits  # fmt: skip
    return [row[-len(answer) :] for row, (_, answer) in zip(logits, turns, strict=True)]
