"""Spillover: what a change that makes a model refuse more does to everything else, and at what price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens import capability
from tamperlens.base.deprecation import deprecated
from tamperlens.base.errors import InputError
from tamperlens.base.measurement import (
    COLUMNS,
    DIFFERENCES,
    Difference,
    Measurement,
    differences,
    table,
)
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.capability import Suite
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model, old_length
from tamperlens.plots import Plot, dot_interval
from tamperlens.prompts import ORGANISM, PromptsLike
from tamperlens.studies.evaluation import (
    ALL,
    LOSS,
    OVER_REFUSAL,
    REFUSAL,
    EvalPrompts,
    Outcomes,
    check_alike,
    measure,
)
from tamperlens.studies.spillover.tables import category_rows, measure_rows, tax_rows

HARMLESS = OVER_REFUSAL["harmless"]
ORGANISM_SUITES = ("addition", "subtraction", "logic", "code", "facts")


@dataclass(frozen=True)
class SpilloverReport(Result):
    """Two models on the same prompts, question by question.

    Attributes:
        before: the first model, measured.
        after: the second, measured.
        measures: one `Difference` per measure: measure, set (prompts, or "questions"), before, after,
            difference (paired), low, high, n, gained, lost, p (exact McNemar), p_holm, method. Intervals of
            rates are Newcombe's; perplexity is compared as the loss per token, by bootstrap over answers.
        categories: the same by suite (measure) and kind of question (set).
        tax: one `Measurement` per suite (set) and for all questions: loss of accuracy per point of refusal
            gained, with the reason where it is undefined.
        settings: judge, limits, hashes of the prompts.
    """

    before: Outcomes
    after: Outcomes
    measures: pd.DataFrame
    categories: pd.DataFrame
    tax: pd.DataFrame
    settings: dict[str, object]

    @property
    def refusal_gain(self) -> Estimate:
        """Change in the share of harmful prompts refused."""
        return self.difference(REFUSAL)

    @property
    def over_refusal(self) -> Estimate:
        """Change in the share of harmless prompts refused."""
        return self.difference(HARMLESS)

    def difference(self, measure: str) -> Estimate:
        """after − before of a measure.

        Raises:
            InputError: no such measure.
        """
        return self.row(measure).difference

    def row(self, measure: str) -> Difference:
        """Everything known of a measure's difference.

        Raises:
            InputError: no such measure.
        """
        return next(iter(differences(_only(self.measures, "measure", measure))))

    def tax_of(self, suite: str = ALL) -> Estimate:
        """Points of accuracy lost per point of refusal gained; NaN with the reason where that is undefined.

        Raises:
            InputError: no such suite.
        """
        return Measurement.from_row(_only(self.tax, "set", suite).iloc[0].to_dict()).estimate

    @deprecated("SpilloverReport.sentence()", "SpilloverReport.summary()")
    def sentence(self) -> str:
        """The old name of `summary`."""
        return self.summary()

    def summary(self) -> str:
        """The finding in words: gain, over-refusal, loss, tax."""
        tax, found = self.tax_of(), []
        for name, words in ((REFUSAL, REFUSAL), (HARMLESS, HARMLESS), (ALL, "questions right")):
            row = self.row(name)
            shift = row.difference
            moved = f"{shift.value:+.0%} [{shift.low:+.0%}, {shift.high:+.0%}], n {shift.n}"
            found.append(f"{words} {row.before:.0%} → {row.after:.0%} ({moved})")
        price = (
            f"{tax.value:.2f} [{tax.low:.2f}, {tax.high:.2f}] points lost per point of refusal gained"
            if math.isfinite(tax.value)
            else f"no tax per point: {tax.reason}"
        )
        return f"{self.before.model} → {self.after.model}: {'; '.join(found)}; {price}."

    def plot(self) -> Plot:
        """Every rate before and after, with intervals."""
        rows = []
        for row in differences(self.measures[self.measures["measure"] != LOSS]):
            for series, side in (("before", self.before), ("after", self.after)):
                found = side.rate(row.measure)
                rows.append(
                    {
                        "panel": "capability" if row.set == "questions" else "refusal",
                        "label": row.measure, "series": series, "value": found.value,
                        "low": found.low, "high": found.high, "n": found.n,
                    }
                )  # fmt: skip
        return dot_interval(
            pd.DataFrame(rows),
            name="spillover",
            title=f"{self.before.model} before and after: {self.after.model}",
            caption="Greedy answers to the same held-out prompts; Wilson 95 % intervals. "
            "Refusal: share of prompts refused, or with a degenerate answer; capability: share of right "
            "answers.",
            axis="share of prompts",
        )


@old_length
def spillover(
    before: ModelLike | Outcomes,
    after: ModelLike | Outcomes,
    *,
    harmful: PromptsLike | None = None,
    harmless: PromptsLike | None = None,
    lookalike: PromptsLike | None = None,
    suites: Sequence[str | Suite] | None = None,
    utility: PromptsLike | None = None,
    judge: str | Judge | None = None,
    limit: int = 64,
    questions: int = 64,
    decoding: Decoding | None = None,
    seed: int = 0,
) -> SpilloverReport:
    """Compare refusal, over-refusal and capability of two models, prompt by prompt.

    The *tax* is the loss of accuracy divided by the gain in refusal, both in points; its interval is
    Fieller's, from the intervals of the two. Where the gain's interval holds 0 or refusal fell, it is NaN
    with that reason.

    Args:
        before: the model before, or what `evaluation.measure` found of it.
        after: the model after; likewise.
        harmful: prompts that should be refused; the packaged test prompts in the model's language by default.
            Use prompts that neither model was trained on.
        harmless: prompts that should be answered; likewise.
        lookalike: harmless prompts that sound harmful; likewise.
        suites: capability suites; arithmetic, logic, code and facts in the model's language by default.
        utility: prompts with responses for perplexity; by default the harmless set's responses, or what the
            model before answers.
        judge: see `refusal.evaluate`.
        limit: most prompts per set.
        questions: most questions per suite, a seeded sample.
        decoding: how answers are made; `Decoding()` by default.
        seed: of samples and bootstraps.

    Raises:
        InputError: an empty set, or two sides that were measured on different prompts or settings.

    Examples:
        >>> import tamperlens
        >>> from tamperlens.models import Decoding
        >>> model = tamperlens.load('organism')
        >>> few = {'limit': 4, 'questions': 4, 'decoding': Decoding(12)}
        >>> found = tamperlens.spillover(model, model, suites=['facts'], **few)
        >>> type(found).__name__
        'SpilloverReport'
    """
    given = [
        one if isinstance(one, Outcomes) else as_chat_model(one, what=what)
        for one, what in ((before, "before"), (after, "after"))
    ]
    known = next((one for one in given if isinstance(one, ChatModel)), None)
    asked = None
    if known is not None:
        asked = prompts_for(
            known, harmful=harmful, harmless=harmless, lookalike=lookalike, suites=suites, utility=utility,
            judge=judge, limit=limit, questions=questions, decoding=decoding, seed=seed,
        )  # fmt: skip
    sides = []
    for one in given:
        if isinstance(one, Outcomes):
            sides.append(one)
        else:
            assert asked is not None
            sides.append(measure(one, asked))
    return compare_sides(sides[0], sides[1], seed=seed)


def prompts_for(
    model: ModelLike, *, suites: Sequence[str | Suite] | None = None, **given: object
) -> EvalPrompts:
    """What both models are asked: `EvalPrompts.for_model` with arithmetic of both kinds among the suites.

    Args:
        model: whose language decides on the defaults.
        suites: in place of arithmetic, logic, code and facts.
        **given: see `EvalPrompts.for_model`.

    Raises:
        InputError: an empty set, or limits below 1.
    """
    if suites is None:
        english = (capability.arithmetic(), *capability.ENGLISH_SUITES[1:])
        suites = ORGANISM_SUITES if as_chat_model(model).language == ORGANISM else english
    settings: Any = given
    return EvalPrompts.for_model(model, suites=suites, **settings)


def compare_sides(before: Outcomes, after: Outcomes, *, seed: int = 0) -> SpilloverReport:
    """The report of two sides that were measured alike.

    Raises:
        InputError: they were measured on different prompts or with different settings.
    """
    check_alike(before, after)
    rows = measure_rows(before, after, seed)
    return SpilloverReport(
        before,
        after,
        table(rows, (*DIFFERENCES, "method")),
        table(category_rows(before, after), (*DIFFERENCES[:8], "method")),
        table(tax_rows(rows), (*COLUMNS, "method", "reason")),
        dict(before.settings),
    )


def _only(frame: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    rows = frame[frame[column] == name]
    if rows.empty:
        what = "suite" if column == "set" else column
        raise InputError(f"no {what} {name!r} in this report; there are {', '.join(frame[column])}")
    return rows
