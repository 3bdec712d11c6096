"""`screen`: which rows of a data set would wear refusal away."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.progress import progress_bar
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts
from tamperlens.refusal import Direction
from tamperlens.studies.screening.anchors import Anchors, anchors_for
from tamperlens.studies.screening.scoring import SCORES, RowScorer
from tamperlens.studies.screening.stream import portions
from tamperlens.studies.trajectory.setup import direction_for

LEVEL = 0.9
"""Of the interval of a predicted loss."""
LEAST_SETS = 9
"""Data sets below which the left-out errors have no interval of that level."""


@dataclass(frozen=True)
class Calibration(Result):
    """Data sets that a model was trained on: what they scored, and what they cost.

    Attributes:
        model: name of the model.
        fingerprint: of its weights; a prediction is made for no other model.
        settings: of the trainings, in words.
        statistic: what a data set's number is: mean `push` of its rows.
        values: that number, by data set.
        lost: share of harmful requests that were refused before and not after, by data set.
    """

    model: str
    fingerprint: str
    settings: str
    statistic: str
    values: tuple[float, ...]
    lost: tuple[float, ...]

    def predict(self, value: float) -> Estimate:
        """Loss of refusal at a value, by monotone regression; the interval is of left-out sets' errors."""
        if len(self.values) < LEAST_SETS:
            return undefined(f"{len(self.values)} data sets were trained on; an interval needs {LEAST_SETS}")
        fitted = _monotone(self.values, self.lost, [value])[0]
        errors = sorted(
            abs(_monotone(_without(self.values, i), _without(self.lost, i), [x])[0] - self.lost[i])
            for i, x in enumerate(self.values)
        )
        place = math.ceil((len(errors) + 1) * LEVEL) - 1
        low, high = max(0.0, fitted - errors[place]), min(1.0, fitted + errors[place])
        return Estimate(
            fitted, low, high, len(errors), f"monotone regression, left-out errors, {LEVEL:.0%}", ""
        )


@dataclass(frozen=True)
class Screening(Result):
    """A data set before training.

    Attributes:
        table: row (from 1), score (that of `by`), p, and every score; see `RowScorer`.
        by: the score that ranks.
        model: name of the model.
        fingerprint: of its weights.
        anchors: what rows were held against.
        reference: scores of the reference rows.
        predicted: share of refusals that training on the set would cost, where that was calibrated.
        notes: what a reader should know.
        seconds: wall time of scoring.
    """

    table: pd.DataFrame
    by: str
    model: str
    fingerprint: str
    anchors: Anchors
    reference: pd.DataFrame
    predicted: Estimate
    notes: tuple[str, ...] = ()
    seconds: float = math.nan

    def top(self, k: int) -> list[int]:
        """Places (from 0) of the k rows closest to harm; ties go to the earlier row."""
        order = self.table["score"].fillna(-np.inf).to_numpy()
        found: list[int] = np.argsort(-order, kind="stable")[:k].tolist()
        return found

    def flagged(self, p: float = 0.01) -> list[int]:
        """Places (from 0) of the rows whose p is at most this."""
        return self.table.index[self.table["p"] <= p].tolist()

    def summary(self) -> str:
        """How many rows stand out, and what the set is predicted to cost where that was calibrated."""
        n, found = len(self.table), len(self.flagged())
        return " ".join(
            [
                f"{found} of {n} rows score higher by {self.by!r} than 99 % of ordinary requests with "
                f"{self.model}'s own answers would (p ≤ .01; {n / 100:.0f} expected of harmless rows that "
                f"are like those).",
                *(
                    []
                    if math.isnan(self.predicted.value)
                    else [f"Predicted loss of refusal: {self.predicted}."]
                ),
                *self.notes,
            ]
        )


def screen(
    data: PromptsLike | str,
    model: ModelLike,
    *,
    by: str = "push",
    scores: Sequence[str] | None = None,
    anchors: Anchors | None = None,
    direction: Direction | PathLike | None = None,
    layers: Sequence[int] | None = None,
    max_length: int | None = None,
    calibration: Calibration | None = None,
    portion: int = 256,
    progress: bool = False,
) -> Screening:
    """Score every row of a data set before any training.

    A row's p is the share of ordinary requests with the model's own answers that score at least as high (with
    itself counted): rows of harmless data of that kind get p ≤ .01 in one case of a hundred, rows of another
    kind (long answers, code) perhaps more often.

    Args:
        data: prompts with responses: a file (JSON Lines is read as it comes), a streamed `datasets` set, a
            PromptSet, pairs, a table.
        model: the model that is to be fine-tuned; it is only read.
        by: the score that ranks rows, of `SCORES` ("push", "gradient", "first token", "representation",
            "projection", "content"); see `RowScorer`.
        scores: which are computed; `by` and "content" by default, since each costs its pass.
        anchors: what rows are held against; see `anchors_for`.
        direction: the model's refusal direction, or its file, for "projection"; found where it is needed.
        layers: blocks whose gradients are taken; all by default.
        max_length: rows are cut to so many tokens; by default a row that is too long is refused.
        calibration: what trainings on data sets cost this model, for `predicted`; none is packaged.
        portion: rows in memory at once.
        progress: show how far it is.

    Raises:
        InputError: no rows, rows without responses, rows longer than the model takes, an unknown score, or a
            model that hardly refuses.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import prompts
        >>> data = prompts.packaged("benign").head(4)
        >>> model = tamperlens.load("organism:tiny")
        >>> found = tamperlens.screen(data, model, by="representation")
        >>> len(found.table)
        4
    """
    ready = as_chat_model(model)
    wanted = tuple(dict.fromkeys([by, *(("content",) if scores is None else scores)]))
    if by not in SCORES:
        raise InputError(f"by={by!r} is no score; there are {', '.join(SCORES)}")
    if hasattr(data, "__next__"):  # a generator, which cannot be read twice
        data = as_prompts(data, what="data")
    next(portions(data, portion))  # a bad file fails before anything is computed
    if direction is not None and not isinstance(direction, Direction):
        direction = Direction.load(direction)
    held = anchors_for(ready) if anchors is None else anchors
    notes = []
    if "projection" in wanted:
        direction = direction_for(ready) if direction is None else direction
        if direction.passed is False:
            notes.append(
                f"The direction did not pass its tests ({direction.flag}); projections may say little."
            )
    scorer = RowScorer(
        ready, held, wanted, direction=direction, layers=layers, max_length=max_length,
    )  # fmt: skip
    began = time.perf_counter()
    reference = scorer(held.reference)
    parts = []
    total = len(data) if isinstance(data, PromptSet) else 0
    with progress_bar(total, "rows", progress) as advance:
        for _, rows in portions(data, portion):
            parts.append(scorer(rows))
            advance(len(rows))
    table = pd.concat(parts, ignore_index=True)
    known = np.sort(reference[by].dropna().to_numpy())
    above = len(known) - np.searchsorted(known, table[by].to_numpy(), side="left")
    table.insert(0, "row", np.arange(1, len(table) + 1))
    table.insert(1, "score", table[by])
    table.insert(2, "p", np.where(table[by].isna(), np.nan, (above + 1) / (len(known) + 1)))
    if (table["p"] <= 0.01).mean() > 0.5:
        notes.append(
            "More than half of the rows stand out: the set is harmful throughout, or of another kind than "
            "the reference rows."
        )
    return Screening(
        table, by, ready.name, ready.fingerprint, held, reference, predicted(ready, table, calibration),
        tuple(notes),
        time.perf_counter() - began,
    )  # fmt: skip


def predicted(model: ChatModel, table: pd.DataFrame, calibration: Calibration | None = None) -> Estimate:
    """Loss of refusal that a scored data set is predicted to cost.

    Args:
        model: the model that is to be fine-tuned.
        table: scores of its rows.
        calibration: data sets that were trained on.
    """
    if calibration is None:
        return undefined("no data sets were trained on to calibrate a prediction; give a Calibration")
    if model.fingerprint != calibration.fingerprint:
        return undefined(
            f"calibrated on {calibration.model} alone; on another model the mean push compares data sets, "
            "and a short training says what they cost"
        )
    if table["push"].isna().all():
        return undefined("the score 'push' was not computed")
    return calibration.predict(float(table["push"].mean()))


def _monotone(x: Sequence[float], y: Sequence[float], at: Sequence[float]) -> list[float]:
    from sklearn.isotonic import IsotonicRegression

    found: list[float] = IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(at).tolist()
    return found


def _without(values: Sequence[float], place: int) -> list[float]:
    return [value for i, value in enumerate(values) if i != place]
