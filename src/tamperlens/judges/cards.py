"""How good a judge is, by people's verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
from scipy import stats as sps

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, cohen_kappa, undefined, wilson
from tamperlens.judges import registry
from tamperlens.judges.labelled import LabelledAnswers

ALL = "all"


@dataclass(frozen=True)
class CardRow(Result):
    """Agreement of a judge with people on some answers; "yes" is a refusal, full or partial.

    Attributes:
        model: whose answers; "all" for all of them.
        true_positive: refused by people and judge.
        false_negative: refused by people alone.
        false_positive: refused by the judge alone.
        true_negative: by neither (what the judge calls degenerate counts as not refused).
        degenerate: answers that the judge called degenerate.
        sensitivity: true_positive / refused by people, Wilson.
        specificity: true_negative / not refused by people, Wilson.
        kappa: Cohen's kappa, bootstrap over answers.
        brier: mean squared error of the judge's probability of refusal; 0 is perfect.
    """

    model: str
    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int
    degenerate: int
    sensitivity: Estimate
    specificity: Estimate
    kappa: Estimate
    brier: float

    def summary(self) -> str:
        """Sensitivity, specificity and agreement."""
        return (
            f"{self.model} (n={self.n}): sensitivity {self.sensitivity}, specificity {self.specificity}, "
            f"kappa {self.kappa}."
        )

    @property
    def n(self) -> int:
        """Number of answers."""
        return self.true_positive + self.false_negative + self.false_positive + self.true_negative

    @property
    def informative(self) -> float:
        """Youden's J = sensitivity + specificity − 1; a judge that guesses has 0. NaN when undefined."""
        return self.sensitivity.value + self.specificity.value - 1


@dataclass(frozen=True)
class JudgeCard(Result):
    """What a judge's verdicts are worth.

    Attributes:
        judge: its name.
        labelled: name of the human-labelled answers.
        sha256: hash of their prompts, answers and labels.
        overall: over all answers.
        by_model: one per model that answered, in order of appearance.
        p_sensitivity: chi-square test that the models share one sensitivity; small
            means that one number does not fit all models. NaN with fewer than two models that refuse.
        p_specificity: likewise of the specificity.
    """

    judge: str
    labelled: str
    sha256: str
    overall: CardRow
    by_model: tuple[CardRow, ...]
    p_sensitivity: float
    p_specificity: float

    def summary(self) -> str:
        """One line for all answers and one per model."""
        return str(self)

    def row(self, model: str = ALL) -> CardRow:
        """The row of a model.

        Raises:
            InputError: the card has no such model.
        """
        for row in (self.overall, *self.by_model):
            if row.model == model:
                return row
        known = ", ".join(row.model for row in self.by_model)
        raise InputError(f"the card of {self.judge!r} has no model {model!r}; it has {ALL}, {known}")

    def to_frame(self) -> pd.DataFrame:
        """One row per model and measure (sensitivity, specificity, kappa): value, low, high, n, judge."""
        rows = [
            {"judge": self.judge, "model": row.model, "measure": measure}
            | getattr(row, measure).cells("reason")
            for row in (self.overall, *self.by_model)
            for measure in ("sensitivity", "specificity", "kappa")
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.judge} on {row.model} (n={row.n}): sensitivity {row.sensitivity}, specificity "
            f"{row.specificity}, kappa {row.kappa}"
            for row in (self.overall, *self.by_model)
        )


def calibrate(judge: str | Judge, labelled: LabelledAnswers) -> JudgeCard:
    """Measure a judge against people.

    Sensitivity and specificity depend on whose answers are judged; calibrate on answers like those that you
    will judge, and look at the rows per model and at `p_sensitivity` before you correct with one number.

    Args:
        judge: a judge or its name.
        labelled: human-labelled answers, e.g. `read_labelled("completions_gpt4.csv", ...)`.

    Raises:
        InputError: no answers, or an unknown judge.
    """
    asked = registry.get(judge)
    return card_of(asked.name, labelled, asked(labelled.prompts, labelled.answers))


def agreement(judge: str) -> dict[str, float]:
    """Cohen's kappa of a packaged judge with people, by model of XSTest's answers; empty for other judges.

    450 answers a model (docs/judge-card.md, whose script writes them). `acts` is measured on each model left
    out of its training; the others as they are, whatever they were made on.

    Examples:
        >>> sorted(agreement("acts"))
        ['gpt4', 'llama2orig', 'mistralguard']
    """
    table = json.loads((files("tamperlens.judges") / "data" / "agreement.json").read_text(encoding="utf-8"))
    return dict(table.get(judge, {}))


def card_of(judge: str, labelled: LabelledAnswers, verdicts: Sequence[Verdict]) -> JudgeCard:
    """The card of verdicts that are there already, one per labelled answer.

    Raises:
        InputError: no answers, or another number of verdicts.
    """
    if len(verdicts) != len(labelled):
        raise InputError(f"judge {judge!r} gave {len(verdicts)} verdicts on {len(labelled)} labelled answers")
    if not len(labelled):
        raise InputError(f"{labelled.name} holds no labelled answers; a card needs some")
    rows = [_row(ALL, labelled.refused.tolist(), verdicts)]
    for model in labelled.model_names:
        picks = [i for i, name in enumerate(labelled.models) if name == model]
        rows.append(_row(model, [bool(labelled.refused[i]) for i in picks], [verdicts[i] for i in picks]))
    hits = [(row.true_positive, row.false_negative) for row in rows[1:]]
    passes = [(row.true_negative, row.false_positive) for row in rows[1:]]
    return JudgeCard(
        judge,
        labelled.name,
        labelled.sha256,
        rows[0],
        tuple(rows[1:]),
        _same_share(hits),
        _same_share(passes),
    )


def _row(model: str, human: Sequence[bool], verdicts: Sequence[Verdict]) -> CardRow:
    judged = [verdict.refused for verdict in verdicts]
    pairs = list(zip(human, judged, strict=True))
    hit, missed, alarm, passed = (
        pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))
    )
    error = [(verdict.probability - truth) ** 2 for verdict, truth in zip(verdicts, human, strict=True)]
    return CardRow(
        model, hit, missed, alarm, passed,
        sum(verdict.label == "degenerate" for verdict in verdicts),
        wilson(hit, hit + missed) if hit + missed else undefined("no refusals among the labels"),
        wilson(passed, passed + alarm) if passed + alarm else undefined("no answers among the labels"),
        cohen_kappa(hit, missed, alarm, passed),
        float(np.mean(error)),
    )  # fmt: skip


def _same_share(counts: Sequence[tuple[int, int]]) -> float:
    table = np.array([row for row in counts if sum(row)])
    if len(table) < 2:
        return math.nan
    if not table.sum(0).all():
        return 1.0
    return float(sps.chi2_contingency(table).pvalue)
