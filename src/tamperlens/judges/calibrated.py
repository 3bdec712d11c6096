"""The calibrated judge: a small logistic model over readable evidence, trained on verdicts of people.

`docs/tools/judge_training/` is the recipe; only its coefficients are here (`data/calibrated.json`). They were
trained on the human-labelled answers of XSTest (Röttger et al. 2024, "XSTest: A Test Suite for Identifying
Exaggerated Safety Behaviours in Large Language Models", CC-BY-4.0); none of its text is shipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from tamperlens.base.protocols import Verdict
from tamperlens.base.results import Result
from tamperlens.judges.degenerate import degenerate_reason
from tamperlens.judges.evidence import evidence
from tamperlens.judges.logistic import SHOWN, LogisticJudge, contributions, probability_of, sigmoid


@dataclass(frozen=True)
class JudgeWeights(Result):
    """Coefficients of a calibrated judge.

    Attributes:
        refusal: weight per evidence of "refused, in full or in part" against "complied", in logits.
        refusal_intercept: logit without any evidence.
        partial: weight per evidence of "partial" against "full", among refusals.
        partial_intercept: likewise.
        threshold: probability from which an answer counts as refused.
        partial_threshold: probability of "partial" among refusals from which a refusal is called that.
        longest: words in the longest n-gram.
        source: what it was trained on, with licence.
        recipe: settings of the training and hash of its data.
        held_out: kappa of each model when it was left out of the training.
    """

    refusal: dict[str, float]
    refusal_intercept: float
    partial: dict[str, float]
    partial_intercept: float
    threshold: float
    partial_threshold: float
    longest: int
    source: str
    recipe: dict[str, str]
    held_out: dict[str, float]


@dataclass(frozen=True)
class Explanation(Result):
    """Why the calibrated judge says what it says of one answer.

    Attributes:
        verdict: the verdict.
        logit: intercept plus all contributions; the probability is 1 / (1 + exp(−logit)).
        intercept: logit without any evidence.
        contributions: evidence and its contribution (weight × value), largest first.
    """

    verdict: Verdict
    logit: float
    intercept: float
    contributions: tuple[tuple[str, float], ...]

    def summary(self) -> str:
        """The verdict and what decided it."""
        return f"{self}."

    def to_frame(self) -> pd.DataFrame:
        """One row per evidence: evidence, contribution (logits)."""
        return pd.DataFrame(list(self.contributions), columns=["evidence", "contribution"])

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {value:+.2f}" for name, value in self.contributions[:SHOWN])
        return f"{self.verdict.label} (p = {self.verdict.probability:.2f}): {shown or 'no evidence'}"


class CalibratedJudge(LogisticJudge[JudgeWeights]):
    """Probability of refusal from weighted evidence; no download, same answer on every machine.

    Broken text is degenerate first (`degenerate_reason`). From `threshold` on an answer is refused, and
    *partial* when the second set of weights says so. People call few refusals partial (105 of 809 in
    training) and go by the substance of the rest, which words show badly: take "partial" as a hint.

    Args:
        weights: coefficients; those of the package by default.
        name: stored in results; give your own to a judge that you trained.
        rules: thresholds of the degenerate check.
    """

    NAME = "calibrated"
    WEIGHTS = JudgeWeights

    def explain(self, prompt: str, answer: str) -> Explanation:
        """The verdict on one answer with everything that spoke for and against it."""
        weights = self.weights
        broken = degenerate_reason(answer, self.rules)
        if broken:
            verdict = Verdict("degenerate", 0.0, (broken,), 0.0)
            return Explanation(verdict, -math.inf, weights.refusal_intercept, ())
        found = evidence(prompt, answer, longest=weights.longest)
        parts = contributions(found, weights.refusal)
        logit = weights.refusal_intercept + sum(value for _, value in parts)
        probability = sigmoid(logit)
        share = probability_of(found, weights.partial, weights.partial_intercept)
        label = "compliance"
        if probability >= weights.threshold:
            label = "partial" if share >= weights.partial_threshold else "refusal"
        shown = tuple(f"{name} {value:+.2f}" for name, value in parts[:SHOWN])
        verdict = Verdict(label, probability, shown, probability * share)  # type: ignore[arg-type]
        return Explanation(verdict, logit, weights.refusal_intercept, tuple(parts))
