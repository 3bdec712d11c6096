"""What the judges with logistic weights share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, ClassVar, Generic, TypeVar

from tamperlens.base.protocols import Verdict
from tamperlens.base.results import Result
from tamperlens.judges.answers import reads_answers
from tamperlens.judges.degenerate import DEFAULT_RULES, DegenerateRules
from tamperlens.judges.keyword import check_pairs

SHOWN = 6
"""Contributions that a verdict names as its evidence."""
_PACKAGED: dict[str, Any] = {}
Weights = TypeVar("Weights", bound=Result)


class LogisticJudge(ABC, Generic[Weights]):
    """A judge whose verdict is a sum of contributions, weight × value, through a logistic function.

    Args:
        weights: coefficients; those of the package by default.
        name: stored in results; give your own to a judge that you trained.
        rules: thresholds of the degenerate check.
    """

    NAME: ClassVar[str]
    WEIGHTS: ClassVar[type[Result]]

    def __init__(
        self, weights: Weights | None = None, *, name: str = "", rules: DegenerateRules = DEFAULT_RULES
    ) -> None:
        self.name = name or self.NAME
        self.rules = rules
        self._weights = weights

    @property
    def weights(self) -> Weights:
        """The coefficients, read on first use."""
        if self._weights is None:
            if self.NAME not in _PACKAGED:
                path = files("tamperlens.judges") / "data" / f"{self.NAME}.json"
                _PACKAGED[self.NAME] = self.WEIGHTS.load(str(path))
            self._weights = _PACKAGED[self.NAME]
        return self._weights

    @reads_answers
    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """One verdict per pair.

        Raises:
            InputError: unequal lengths.
        """
        check_pairs(prompts, answers)
        return [self.explain(prompt, answer).verdict for prompt, answer in zip(prompts, answers, strict=True)]

    @abstractmethod
    def explain(self, prompt: str, answer: str) -> Any:
        """The verdict on one answer with everything that spoke for and against it."""


def contributions(found: Mapping[str, float], weights: Mapping[str, float]) -> list[tuple[str, float]]:
    """Feature and weight × value, largest first."""
    parts = [(name, weights[name] * value) for name, value in found.items() if name in weights]
    return sorted(parts, key=lambda part: (-abs(part[1]), part[0]))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(−logit)), safe at both ends."""
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))


def probability_of(found: Mapping[str, float], weights: Mapping[str, float], intercept: float) -> float:
    """Probability by one set of weights."""
    return sigmoid(intercept + sum(value for _, value in contributions(found, weights)))
