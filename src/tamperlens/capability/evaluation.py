"""Ask a model the questions of some suites, grade its answers, and compare two gradings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, PairedTest, holm, mcnemar, rate
from tamperlens.capability.graders import graders
from tamperlens.capability.suites import Suite, suites_for
from tamperlens.models import GIVEN, ChatModel, Decoding, ModelLike, Settings, as_chat_model
from tamperlens.prompts import split_reply


@dataclass(frozen=True)
class SuiteScore(Result):
    """How a model did on one suite.

    Attributes:
        suite: name of the suite.
        accuracy: share of right answers, with a Wilson interval.
        grader: which grader decided.
        data_sha256: hash of the questions and expected answers.
        prompts: the questions.
        expected: the expected answers.
        categories: kind of each question; empty strings where the set has none.
        responses: the model's answers.
        found: what the grader read as the answer.
        correct: whether each is right.
        reasons: why each is wrong; empty where it is right.
        decoding: how the answers were made.
    """

    suite: str
    accuracy: Estimate
    grader: str
    data_sha256: str
    prompts: tuple[str, ...]
    expected: tuple[str, ...]
    categories: tuple[str, ...]
    responses: tuple[str, ...]
    found: tuple[str, ...]
    correct: tuple[bool, ...]
    reasons: tuple[str, ...]
    decoding: Decoding = GIVEN

    @property
    def max_new_tokens(self) -> int:
        """Where answers were cut."""
        return self.decoding.max_new_tokens

    def by_category(self) -> dict[str, Estimate]:
        """Accuracy of each kind of question."""
        kinds = sorted(set(self.categories))
        return {
            kind: rate(
                [right for right, one in zip(self.correct, self.categories, strict=True) if one == kind]
            )
            for kind in kinds
        }

    def summary(self) -> str:
        """The accuracy in words."""
        return f"{self.suite}: {self.accuracy} right, by the grader {self.grader!r}."

    def to_frame(self) -> pd.DataFrame:
        """One row per question: suite, prompt, expected, response, found, correct, reason, category."""
        return pd.DataFrame(
            {
                "suite": self.suite,
                "prompt": list(self.prompts),
                "expected": list(self.expected),
                "response": list(self.responses),
                "found": list(self.found),
                "correct": list(self.correct),
                "reason": list(self.reasons),
                "category": list(self.categories),
            }
        )


@dataclass(frozen=True)
class CapabilityScores(Result):
    """How a model did on several suites.

    Attributes:
        model: name of the model.
        fingerprint: of the model.
        scores: one per suite, in the order asked.
    """

    model: str
    fingerprint: str
    scores: tuple[SuiteScore, ...]

    def __getitem__(self, suite: str) -> SuiteScore:
        for score in self.scores:
            if score.suite == suite:
                return score
        raise InputError(f"no suite {suite!r} in these scores; there are {', '.join(self.suites)}")

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites."""
        return tuple(score.suite for score in self.scores)

    @property
    def accuracy(self) -> dict[str, Estimate]:
        """Suite to its accuracy."""
        return {score.suite: score.accuracy for score in self.scores}

    @property
    def overall(self) -> Estimate:
        """Share of right answers over all questions of all suites (larger suites weigh more)."""
        return rate([right for score in self.scores for right in score.correct])

    @property
    def completions(self) -> pd.DataFrame:
        """Every question with the model's answer and its grade; columns as in `SuiteScore.to_frame`."""
        return pd.concat([score.to_frame() for score in self.scores], ignore_index=True)

    def summary(self) -> str:
        """The accuracies in words."""
        return f"{self.model}: right in {'; '.join(f'{one.suite} {one.accuracy}' for one in self.scores)}."

    def to_frame(self) -> pd.DataFrame:
        """One row per suite: suite, measure, value, low, high, n, grader."""
        return pd.DataFrame(
            [
                {
                    "suite": score.suite,
                    "measure": "accuracy",
                    **score.accuracy.cells(),
                    "grader": score.grader,
                }
                for score in self.scores
            ]
        )


@dataclass(frozen=True)
class CapabilityChange(Result):
    """What became of the accuracy, question by question.

    Attributes:
        suites: names of the suites.
        tests: an exact McNemar test per suite; `.difference` is after − before.
        adjusted: Holm-adjusted p-values over the suites.
    """

    suites: tuple[str, ...]
    tests: tuple[PairedTest, ...]
    adjusted: tuple[float, ...]

    def __getitem__(self, suite: str) -> PairedTest:
        if suite not in self.suites:
            raise InputError(f"no suite {suite!r} in this comparison; there are {', '.join(self.suites)}")
        return self.tests[self.suites.index(suite)]

    def summary(self) -> str:
        """The changes in words."""
        changes = zip(self.suites, self.tests, self.adjusted, strict=True)
        listed = "; ".join(f"{name} {test.difference}, p = {p:.2g}" for name, test, p in changes)
        return f"Change of accuracy on the same questions: {listed} (exact McNemar, Holm over suites)."

    def to_frame(self) -> pd.DataFrame:
        """One row per suite: suite, difference, low, high, n, gained, lost, p_value, p_holm."""
        rows = []
        for name, test, adjusted in zip(self.suites, self.tests, self.adjusted, strict=True):
            shift = test.difference
            rows.append(
                {
                    "suite": name,
                    "difference": shift.value,
                    "low": shift.low,
                    "high": shift.high,
                    "n": shift.n,
                    "gained": test.gained,
                    "lost": test.lost,
                    "p_value": test.p_value,
                    "p_holm": adjusted,
                }
            )
        return pd.DataFrame(rows)


def evaluate(
    model: ModelLike,
    suites: str | Suite | Sequence[str | Suite] | None = None,
    limit: int | None = None,
    *,
    split: str = "test",
    decoding: Decoding | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> CapabilityScores:
    """Accuracy on each suite, greedy unless told otherwise, with Wilson intervals and every answer kept.

    Answers are graded by rules that read what an answer claims; code is parsed and evaluated by a bounded
    evaluator and never executed. Of a thinking model the answer is graded, not the thought.

    Args:
        model: the model to ask.
        suites: names of packaged suites (`packaged_suites()`) or `Suite`s; those in the model's language
            (`suites_for(model)`) by default.
        limit: only the first so many questions of each suite.
        split: which split of packaged suites; sets without splits are used whole.
        decoding: how answers are made, its length in place of the suites' own.
        progress: show a bar per suite.
        **settings: fields of `Decoding` by name, in place of those of `decoding`.

    Raises:
        InputError: no suites, an unknown one, one named twice, or a prompt that does not fit the model.
        NumericsError: NaN or infinite logits.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import capability
        >>> model = tamperlens.load('organism')
        >>> print(capability.evaluate(model, ['facts'], limit=10).overall)
        1 [0.722, 1] (n=10)
    """
    model = as_chat_model(model)
    suites = suites_for(model) if suites is None else suites
    if isinstance(suites, (str, Suite)):
        suites = (suites,)
    ready = [(Suite.packaged(one, split) if isinstance(one, str) else one).head(limit) for one in suites]
    if not ready:
        raise InputError("no suites to evaluate; name at least one")
    names = [suite.name for suite in ready]
    if len(set(names)) < len(names):
        raise InputError(f"a suite is named twice in {names}; give each its own name")
    scores = tuple(
        _score(model, suite, Decoding.of(decoding, settings, max_new_tokens=suite.max_new_tokens), progress)
        for suite in ready
    )
    return CapabilityScores(model.name, model.fingerprint, scores)


def compare(before: CapabilityScores, after: CapabilityScores) -> CapabilityChange:
    """Paired comparison of two evaluations of the same questions, decoded alike.

    Raises:
        InputError: other suites, questions, graders or decodings on the two sides.
    """
    if before.suites != after.suites:
        raise InputError(
            f"before has the suites {', '.join(before.suites)} and after {', '.join(after.suites)}; "
            "evaluate both on the same"
        )
    for one, other in zip(before.scores, after.scores, strict=True):
        differing = [what for what in ("data_sha256", "grader") if getattr(one, what) != getattr(other, what)]
        differing += one.decoding.differences(other.decoding)
        if differing:
            raise InputError(
                f"suite {one.suite!r} differs before and after ({'; '.join(differing)}); evaluate both alike "
                "(same split, limit and decoding)"
            )
    tests = tuple(
        mcnemar(one.correct, other.correct) for one, other in zip(before.scores, after.scores, strict=True)
    )
    return CapabilityChange(before.suites, tests, tuple(holm([test.p_value for test in tests])))


def _score(model: ChatModel, suite: Suite, how: Decoding, progress: bool) -> SuiteScore:
    grader = graders.get(suite.grader)
    answers = model.generate(suite.data, how, progress=progress)
    said = [split_reply(answer).answer for answer in answers]
    grades = [grader(item, answer) for item, answer in zip(suite.items(), said, strict=True)]
    correct = tuple(bool(grade.correct) for grade in grades)
    return SuiteScore(
        suite=suite.name,
        accuracy=rate(correct),
        grader=suite.grader,
        data_sha256=suite.data.sha256,
        prompts=suite.data.prompts,
        expected=suite.data.answers or (),
        categories=suite.data.categories or ("",) * len(suite.data),
        responses=tuple(answers),
        found=tuple(grade.found for grade in grades),
        correct=correct,
        reasons=tuple(grade.reason for grade in grades),
        decoding=how.written(model.chat_format),
    )
