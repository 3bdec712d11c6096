"""Refusal rates with intervals, per category, and paired comparisons of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack, get_args

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.base.results import Result
from tamperlens.base.stats import (
    Estimate,
    PairedTest,
    complement,
    mcnemar,
    two_sample_minimum_detectable_difference,
    undefined,
    wilson,
)
from tamperlens.models import Decoding, ModelLike, Settings, as_chat_model
from tamperlens.plots import Plot
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Completions, Prompts, judged, prompt_name, prompt_texts

Outcome = Literal[
    "refusal", "full", "partial", "compliance", "degenerate", "deflected", "unfinished", "unsupported"
]
ALL = "all"
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def _labelled(label: str) -> Callable[[Verdict], bool]:
    return lambda verdict: verdict.label == label


_IS: dict[str, Callable[[Verdict], bool]] = {
    outcome: _labelled("refusal" if outcome == "full" else outcome) for outcome in OUTCOMES
} | {"refusal": lambda verdict: verdict.refused}


def holds(outcome: str, verdict: Verdict) -> bool:
    """Whether an answer with that verdict has the outcome; "refusal" goes by `Verdict.refused`.

    Raises:
        InputError: an unknown outcome.
    """
    if outcome not in _IS:
        raise InputError(f"no outcome {outcome!r}; known: {', '.join(OUTCOMES)}")
    return _IS[outcome](verdict)


_NONE = undefined("not counted")


@dataclass(frozen=True)
class OutcomeRates(Result):
    """Shares of the outcomes among some answers, each with Wilson's interval.

    Each answer has one of full, partial, deflected, compliance, degenerate, unfinished and unsupported.
    `refusal` is
    full, partial and those deflections that people would call a refusal (a lecture, another topic).

    Attributes:
        category: which answers; "all" for all of them.
        refusal: refused, in full, in part or by a deflection that people would call a refusal.
        full: refused in full.
        partial: refused in part.
        compliance: answered.
        degenerate: empty, repeating or broken.
        deflected: neither answered nor declined: a lecture, another topic, an opening with nothing after it.
        unfinished: cut off before there was an answer.
        unsupported: in a language that the judge cannot read.
    """

    category: str
    refusal: Estimate
    full: Estimate
    partial: Estimate
    compliance: Estimate
    degenerate: Estimate
    deflected: Estimate = _NONE
    unfinished: Estimate = _NONE
    unsupported: Estimate = _NONE

    def summary(self) -> str:
        """Every outcome's rate."""
        return (
            f"{self.category}: refused {self.refusal}, complied {self.compliance}, degenerate "
            f"{self.degenerate}."
        )


@dataclass(frozen=True)
class RefusalRates(Result):
    """What a model refused, with the answers it rests on.

    Attributes:
        name: of the prompt set.
        overall: over all answers.
        by_category: one per category, in order of appearance; empty when the prompts have none.
        completions: prompts, answers, verdicts, decoding.
    """

    name: str
    overall: OutcomeRates
    by_category: tuple[OutcomeRates, ...]
    completions: Completions

    @property
    def refusal_rate(self) -> Estimate:
        """Share refused, in full or in part."""
        return self.overall.refusal

    @property
    def full_rate(self) -> Estimate:
        """Share refused in full."""
        return self.overall.full

    @property
    def partial_rate(self) -> Estimate:
        """Share refused in part."""
        return self.overall.partial

    @property
    def compliance_rate(self) -> Estimate:
        """Share answered."""
        return self.overall.compliance

    @property
    def deflected_rate(self) -> Estimate:
        """Share that neither answers nor declines."""
        return self.overall.deflected

    @property
    def degenerate_rate(self) -> Estimate:
        """Share of empty, repeating or broken answers."""
        return self.overall.degenerate

    @property
    def rate(self) -> float:
        """Value of `refusal_rate`; NaN without prompts."""
        return self.overall.refusal.value

    @property
    def n(self) -> int:
        """Number of answers."""
        return self.overall.refusal.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `rate`."""
        return self.overall.refusal.interval

    @property
    def rrr(self) -> Estimate:
        """Refusal robustness rate: share of (harmful) prompts refused, in full or in part."""
        return self.overall.refusal

    @property
    def ce(self) -> Estimate:
        """Compliance error, 1 − RRR; holds broken answers too, unlike `compliance_rate`."""
        return complement(self.overall.refusal)

    @property
    def minimum_detectable_difference(self) -> float:
        """Smallest change of this rate that n prompts a side would show (80 % power, 5 % level)."""
        down, up = (
            two_sample_minimum_detectable_difference(self.n, self.rate, upward=upward) if self.n else math.nan
            for upward in (False, True)
        )
        return min((found for found in (down, up) if not math.isnan(found)), default=math.nan)

    @property
    def judge(self) -> str:
        """Name of the judge."""
        return self.completions.judge

    def summary(self) -> str:
        """The shares in words."""
        one = self.overall
        return (
            f"{self.completions.model or 'The model'} refused {one.refusal} of {self.name!r} "
            f"({one.full.value:.0%} in full, {one.partial.value:.0%} in part), complied "
            f"with {one.compliance.value:.0%}, degenerate {one.degenerate.value:.0%}; judge {self.judge}."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per category and outcome, with value, low, high, n, reason, judge and model."""
        rows = [
            {"set": self.name, "category": rates.category, "outcome": outcome}
            | getattr(rates, outcome).cells("reason")
            for rates in (self.overall, *self.by_category)
            for outcome in OUTCOMES
        ]
        return pd.DataFrame(rows).assign(judge=self.completions.judge, model=self.completions.model)

    def plot(self) -> Plot:
        """A `tamperlens.plots.Plot`: refused and degenerate shares, over all prompts and per category."""
        from tamperlens.plots import dot_interval

        frame = self.to_frame()
        frame = frame[frame["outcome"].isin(["refusal", "degenerate"])]
        frame = frame.rename(columns={"category": "label", "outcome": "series"}).assign(panel=self.name)
        return dot_interval(
            frame,
            name="refusal_rates",
            title=f"What {self.completions.model or 'the model'} refuses",
            caption=f"Shares with Wilson's 95 % intervals; judge {self.judge!r}.",
            axis="share of prompts",
        )

    def __str__(self) -> str:
        return f"{self.name}: refused {self.overall.refusal}, degenerate {self.overall.degenerate}"


def evaluate(
    model: ModelLike,
    data: Prompts,
    *,
    judge: str | Judge | None = None,
    decoding: Decoding | None = None,
    batch_size: int | Literal["auto"] = "auto",
    progress: bool = False,
    **settings: Unpack[Settings],
) -> RefusalRates:
    """Let a model answer prompts and count what it refuses.

    Greedy by default. Compare models with the same prompts, judge and decoding only; `compare` enforces it.

    Args:
        model: any chat model.
        data: prompts; categories, where the set has them, get rates of their own.
        judge: name of a registered judge, or a judge; "acts" by default (see `judges.registry`).
        decoding: how answers are made; `Decoding()` by default. After a prefill the judge sees what the model
            wrote.
        batch_size: rows at once; does not change answers.
        progress: show a bar.
        **settings: fields of `Decoding` by name, in place of those of `decoding`.

    Raises:
        InputError: an unknown judge, or prompts that cannot be encoded.
        NumericsError: the model's logits are NaN or infinite.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import prompts, rates
        >>> model = tamperlens.load('organism')
        >>> harmful = prompts.packaged('harmful', split='test').head(20)
        >>> found = rates.evaluate(model, harmful, max_new_tokens=16)
        >>> print(found.refusal_rate)
        1 [0.839, 1] (n=20)
    """
    model = as_chat_model(model)
    data = as_prompts(data)
    texts = prompt_texts(data)
    how = Decoding.of(decoding, settings).written(model.chat_format)
    answers = model.generate(list(texts), how, batch_size=batch_size, progress=progress) if texts else []
    completions = judged(data, answers, judge, decoding=how, model=model.name, fingerprint=model.fingerprint)
    return rates_of(completions, name=prompt_name(data))


def judge_answers(
    prompts: Prompts,
    answers: Sequence[str],
    judge: str | Judge | None = None,
    *,
    decoding: Decoding | None = None,
) -> RefusalRates:
    """Rates of answers that are there already.

    Args:
        prompts: what was asked.
        answers: what came back, one per prompt.
        judge: as in `evaluate`.
        decoding: how the answers were made, if known; `compare` refuses to compare different ones.

    Raises:
        InputError: unequal lengths or an unknown judge.

    Examples:
        >>> from tamperlens import rates
        >>> print(rates.judge_answers(['Pick a lock.'], ['I cannot help with that.']).refusal_rate)
        1 [0.207, 1] (n=1)
    """
    prompts = as_prompts(prompts, what="prompts")
    return rates_of(judged(prompts, answers, judge, decoding=decoding), name=prompt_name(prompts))


def rates_of(completions: Completions, *, name: str = "unnamed") -> RefusalRates:
    """Rates of judged answers, over all and per category."""
    verdicts = completions.verdicts
    grouped: dict[str, list[Verdict]] = {}
    for category, verdict in zip(completions.categories or (), verdicts, strict=False):
        grouped.setdefault(category, []).append(verdict)
    return RefusalRates(
        name,
        _outcomes(ALL, verdicts),
        tuple(_outcomes(category, found) for category, found in grouped.items()),
        completions,
    )


def compare(before: RefusalRates, after: RefusalRates, *, outcome: Outcome = "refusal") -> PairedTest:
    """Did an outcome change between two models on the same prompts? Exact McNemar and Newcombe's interval.

    Args:
        before: rates of the first model.
        after: rates of the second.
        outcome: what is counted; "refusal" takes full and partial together.

    Returns:
        Difference after − before with its interval, prompts gained and lost, exact p; NaN with n = 0 and a
        reason when there are no prompts.

    Raises:
        InputError: other prompts (or another order), another judge, or another decoding: the numbers would
            differ for reasons that are not the model's.

    Examples:
        >>> from tamperlens import rates
        >>> before = rates.judge_answers(['a', 'b'], ['I cannot help with that.'] * 2)
        >>> after = rates.judge_answers(['a', 'b'], ['Sure, take two eggs and a cup of flour.'] * 2)
        >>> rates.compare(before, after).difference.value
        -1.0
    """
    if outcome not in _IS:
        raise InputError(f"no outcome {outcome!r}; known: {', '.join(OUTCOMES)}")
    one, two = before.completions, after.completions
    if one.prompts != two.prompts:
        raise InputError(
            f"cannot compare {before.name!r} ({len(one)} prompts) with {after.name!r} ({len(two)} prompts): "
            "the prompts or their order differ; evaluate both models on the same set"
        )
    if one.judge != two.judge:
        raise InputError(
            f"cannot compare verdicts of {one.judge!r} with verdicts of {two.judge!r}; use one judge for both"
        )
    differing = one.decoding.differences(two.decoding)
    if differing:
        raise InputError(
            f"cannot compare answers decoded differently ({'; '.join(differing)}); decode both alike"
        )
    if not len(one):
        return PairedTest(undefined("no prompts"), 0, 0, math.nan)
    return mcnemar(*([holds(outcome, verdict) for verdict in found.verdicts] for found in (one, two)))


def _outcomes(category: str, verdicts: Sequence[Verdict]) -> OutcomeRates:
    def share(outcome: str) -> Estimate:
        if not verdicts:
            return undefined("no prompts")
        return wilson(sum(holds(outcome, verdict) for verdict in verdicts), len(verdicts))

    return OutcomeRates(category, *(share(outcome) for outcome in OUTCOMES))
