"""RD: how far a tuned model's answers have moved from the base model's, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Embedder, Verdict
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, undefined
from tamperlens.judges.embedders import embed, get_embedder
from tamperlens.models import ChatModel
from tamperlens.rates.completions import Completions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RepresentationDistance(Result):
    """Distances 1 − cos between two models' answers to the same prompts.

    Attributes:
        overall: median over all prompts with two answers, bootstrap interval over prompts.
        refused: median over those that the *base* refused; NaN with n = 0 and a reason when there are none.
        unrelated: median distance between base answers to different prompts: what "no relation" looks like.
        distances: one per prompt; NaN where an answer is empty.
        base_refused: one per prompt, by the verdicts on the base; None without verdicts.
        n_empty: prompts left out because an answer was empty.
        embedder: name of what made the vectors.
    """

    overall: Estimate
    refused: Estimate
    unrelated: Estimate
    distances: tuple[float, ...]
    base_refused: tuple[bool, ...] | None
    n_empty: int
    embedder: str

    def summary(self) -> str:
        """Median distance, on all and on refused prompts."""
        return f"{self}; {self.n_empty} prompts left out for an empty answer."

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: distance, base_refused, embedder."""
        n = len(self.distances)
        return pd.DataFrame(
            {
                "distance": pd.Series(list(self.distances), dtype="float64"),
                "base_refused": [None] * n if self.base_refused is None else list(self.base_refused),
                "embedder": [self.embedder] * n,
            }
        )

    def quantiles(self, shares: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)) -> dict[float, float]:
        """Quantiles of the distances; empty without any."""
        known = [value for value in self.distances if value == value]
        return {share: float(np.quantile(known, share)) for share in shares} if known else {}

    def __str__(self) -> str:
        return f"RD {self.overall}, refused {self.refused}, unrelated {self.unrelated} ({self.embedder})"


def representation_distance(
    base_answers: Sequence[str] | Completions,
    tuned_answers: Sequence[str] | Completions,
    embedder: str | ChatModel | Embedder,
    *,
    verdicts: Sequence[Verdict] | Sequence[bool] | None = None,
    seed: int = 0,
) -> RepresentationDistance:
    """Median of 1 − cos(embedding of the base answer, embedding of the tuned answer), prompt by prompt.

    Given completions, the prompts and decoding of both sides must agree, and "refused" means refused by the
    base (the evaluation set is the base's; a tuned model that refuses nothing would empty it).

    Args:
        base_answers: the base model's answers.
        tuned_answers: the tuned model's, to the same prompts in the same order.
        embedder: sentence-transformers name, a chat model (its own mean hidden state; pass the base), or any
            embedder.
        verdicts: of the base answers, or whether each was refused; taken from the completions by default.
        seed: of the bootstrap.

    Raises:
        InputError: other prompts, numbers or decodings on the two sides, or an embedder that cannot be had.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import rates
        >>> model = tamperlens.load('organism')
        >>> found = rates.representation_distance(['A red fox.'], ['A red fox.'], model)
        >>> round(found.overall.value, 3)
        0.0
    """
    if isinstance(base_answers, Completions) and isinstance(tuned_answers, Completions):
        _same_questions(base_answers, tuned_answers)
    flags = _flags(base_answers, verdicts)
    one, two = _texts(base_answers), _texts(tuned_answers)
    if len(one) != len(two):
        raise InputError(f"{len(one)} base answers and {len(two)} tuned answers; give one of each per prompt")
    if flags is not None and len(flags) != len(one):
        raise InputError(f"{len(flags)} verdicts for {len(one)} base answers; give one per answer")
    asked = get_embedder(embedder)
    # One call for both sides, so that whatever an embedder does per call is done to both alike.
    rows = embed(asked, [*one, *two])
    before, after = rows[: len(one)], rows[len(one) :]
    distances = _distances(before, after)
    known = ~np.isnan(distances)
    kept = np.zeros(len(one), dtype=bool) if flags is None else np.array(flags, dtype=bool) & known
    why = "no verdicts on the base answers" if flags is None else "the base refused none of the prompts"
    pairs = _distances(before, np.roll(before, 1, axis=0)) if len(one) > 1 else np.zeros(0)
    return RepresentationDistance(
        _median(distances[known], "no prompts with two answers", seed),
        _median(distances[kept], why, seed),
        _median(pairs[~np.isnan(pairs)], "fewer than two base answers", seed),
        tuple(float(value) for value in distances),
        None if flags is None else tuple(flags),
        int((~known).sum()),
        asked.name,
    )


def _distances(one: Array, two: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_one = one / np.linalg.norm(one, axis=1, keepdims=True)
        unit_two = two / np.linalg.norm(two, axis=1, keepdims=True)
    # ‖u − v‖²/2 is 1 − u·v without the cancellation.
    found: Array = ((unit_one - unit_two) ** 2).sum(1) / 2
    return found


def _median(values: Array, reason: str, seed: int) -> Estimate:
    if not len(values):
        return undefined(reason)
    return bootstrap(values, np.median, seed=seed)


def _texts(answers: Sequence[str] | Completions) -> list[str]:
    if isinstance(answers, str):
        raise InputError("expected a list of answers, got one string; write [answer]")
    return list(answers.responses if isinstance(answers, Completions) else answers)


def _flags(
    answers: Sequence[str] | Completions, verdicts: Sequence[Verdict] | Sequence[bool] | None
) -> list[bool] | None:
    if verdicts is None:
        return answers.refused if isinstance(answers, Completions) else None
    return [one.refused if isinstance(one, Verdict) else bool(one) for one in verdicts]


def _same_questions(one: Completions, two: Completions) -> None:
    if one.prompts != two.prompts:
        raise InputError("the two sides answer other prompts, or in another order; evaluate both on one set")
    differing = one.decoding.differences(two.decoding)
    if differing:
        raise InputError(f"cannot compare answers decoded differently ({'; '.join(differing)})")
