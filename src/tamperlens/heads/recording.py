"""`HeadRecorder`: head scores while a model is being fine-tuned, and how they move between checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.heads.attribution import Method, attribute
from tamperlens.heads.inputs import Prompts
from tamperlens.heads.scores import HeadScores
from tamperlens.models import ChatModel
from tamperlens.prompts import as_prompts


@dataclass(frozen=True)
class HeadTrace(Result):
    """Head scores at checkpoints of one run.

    Attributes:
        steps: optimizer steps, ascending.
        scores: [step, layer, head], mean over prompts, fp32.
        metric: [step], mean target, fp64.
        method: of the scores.
        target: what was measured.
        convention: formula and sign.
        n: prompts.
        model: name of the model that the run began with.
        fingerprint: of that model.
    """

    steps: tuple[int, ...]
    scores: Float[Tensor, "step layer head"]
    metric: Float[Tensor, " step"]
    method: str
    target: str
    convention: str
    n: int
    model: str
    fingerprint: str

    def summary(self) -> str:
        """How the target and the order of heads moved over the run."""
        moved = change(self.scores[0], self.scores[-1], "first", "last")
        return (
            f"{self.model}, {self.target} ({self.method}): {float(self.metric[0]):.3g} at step "
            f"{self.steps[0]}, {float(self.metric[-1]):.3g} at step {self.steps[-1]}; head scores of the "
            f"two: cosine {moved.cosine:.2f}, rank correlation {moved.spearman:.2f} (n={self.n})."
        )

    def ranks(self) -> Float[Tensor, "step layer head"]:
        """Rank of each head at each step, 1 for the largest score; ties share their mean rank."""
        flat = self.scores.flatten(1).double().numpy()
        return torch.from_numpy(sps.rankdata(-flat, axis=1)).reshape(self.scores.shape)

    def compare(self, before: int, after: int) -> HeadChange:
        """What changed between two recorded steps.

        Raises:
            InputError: a step was not recorded.
        """
        for step in (before, after):
            if step not in self.steps:
                raise InputError(f"step {step} was not recorded; there are {list(self.steps)}")
        i, j = self.steps.index(before), self.steps.index(after)
        return change(self.scores[i], self.scores[j], f"step {before}", f"step {after}")

    def to_frame(self) -> pd.DataFrame:
        """One row per step and head: step, layer, head, score, rank."""
        ranks = self.ranks()
        return pd.DataFrame(
            [
                {
                    "step": step, "layer": layer, "head": head, "score": float(self.scores[i, layer, head]),
                    "rank": float(ranks[i, layer, head]),
                }
                for i, step in enumerate(self.steps)
                for layer in range(self.scores.shape[1])
                for head in range(self.scores.shape[2])
            ]
        )  # fmt: skip


@dataclass(frozen=True)
class HeadChange(Result):
    """Head scores of two models, or of one model at two steps.

    Attributes:
        cosine: of the two tables of scores; NaN when one is all zero.
        spearman: their rank correlation; NaN when all heads of one score alike.
        difference: [layer, head], after − before.
        rank_change: [layer, head], rank before − rank after: positive moved up.
        before: what the first is called.
        after: what the second is called.
    """

    cosine: float
    spearman: float
    difference: Float[Tensor, "layer head"]
    rank_change: Float[Tensor, "layer head"]
    before: str
    after: str

    def summary(self) -> str:
        """How alike the two are, and which heads moved most."""
        most = ", ".join(f"{layer}.{head}" for layer, head in self.most_changed(3))
        return (
            f"{self.before} → {self.after}: head scores have cosine {self.cosine:.2f} and rank correlation "
            f"{self.spearman:.2f}; most changed (layer.head): {most}."
        )

    def most_changed(self, k: int) -> list[tuple[int, int]]:
        """The k heads with the largest |difference|, largest first."""
        order = self.difference.abs().double().flatten().sort(descending=True, stable=True).indices[:k]
        heads = self.difference.shape[1]
        return [(int(i) // heads, int(i) % heads) for i in order]


def compare(before: HeadScores, after: HeadScores) -> HeadChange:
    """What changed between two models' head scores.

    Raises:
        InputError: they were not made alike (method, target, convention, prompts or shape).
    """
    for name in ("method", "target", "convention", "prompts"):
        one, two = getattr(before, name), getattr(after, name)
        if one != two:
            raise InputError(f"the two scores differ in {name}: {one!r} and {two!r}; make them alike")
    if before.scores.shape != after.scores.shape:
        raise InputError(f"{before.model} and {after.model} do not have the same heads")
    return change(before.scores, after.scores, before.model, after.model)


def change(one: Tensor, two: Tensor, before: str, after: str) -> HeadChange:
    """`HeadChange` of two tables [layer, head]."""
    a, b = one.double().flatten(), two.double().flatten()
    size = float(a.norm() * b.norm())
    ranks = [torch.from_numpy(sps.rankdata(-x.numpy())) for x in (a, b)]
    varied = bool(a.std() > 0) and bool(b.std() > 0)
    spearman = float(sps.spearmanr(a.numpy(), b.numpy()).statistic) if varied else float("nan")
    return HeadChange(
        float(a @ b) / size if size else float("nan"), spearman, (two - one).float(),
        (ranks[0] - ranks[1]).reshape(one.shape).float(), before, after,
    )  # fmt: skip


class HeadRecorder:
    """A recorder for `finetune.run`: head scores at step 0, at every `every`-th step and at the end.

    Rows are step × layer × head with score and rank, and one row a step with layer −1, head −1: the mean
    target and the cosine and rank correlation with step 0.
    """

    name = "heads"

    def __init__(
        self, prompts: Prompts, every: int = 50, *, method: Method = "gradient", **settings: object
    ) -> None:
        """See the class.

        Args:
            prompts: what heads are scored on.
            every: steps between records.
            method: as in `attribute`; "gradient" costs two to three forward passes.
            settings: further arguments of `attribute`, such as target and direction.

        Raises:
            InputError: every below 1.
        """
        prompts = as_prompts(prompts, what="prompts")
        if every < 1:
            raise InputError(f"every is {every}; it must be at least 1")
        self.prompts, self.every, self.method, self.settings = prompts, every, method, settings
        self.found: list[tuple[int, HeadScores]] = []
        self._model: Any = None

    def start(self, model: ChatModel) -> None:
        """Remember the untouched model."""
        self._model, self.found = (model.name, model.fingerprint), []

    def record(self, step: int, model: ChatModel) -> Sequence[Mapping[str, object]]:
        """Score the model as it is now."""
        given: Any = self.settings
        scores = attribute(model, self.prompts, method=self.method, **given)
        self.found.append((step, scores))
        moved = change(self.found[0][1].scores, scores.scores, "", "")
        frame = scores.to_frame()[["layer", "head", "score", "rank"]]
        rows: list[dict[str, Any]] = [
            {"step": step, **{str(key): value for key, value in row.items()}}
            for row in frame.to_dict("records")
        ]
        summary = {"layer": -1, "head": -1, "score": _mean(scores.metric), "rank": float("nan")}
        rows.append({"step": step, **summary, "cosine": moved.cosine, "spearman": moved.spearman})
        return rows

    def finish(self) -> HeadTrace:
        """Everything recorded.

        Raises:
            InputError: nothing was recorded.
        """
        if not self.found:
            raise InputError("nothing was recorded; hand the recorder to finetune.run(recorders=[...])")
        first = self.found[0][1]
        name, fingerprint = self._model
        return HeadTrace(
            tuple(step for step, _ in self.found),
            torch.stack([scores.scores for _, scores in self.found]),
            torch.tensor([_mean(scores.metric) for _, scores in self.found], dtype=torch.float64),
            first.method, first.target, first.convention, first.n, name, fingerprint,
        )  # fmt: skip


def _mean(metric: Tensor) -> float:
    return float(metric.mean()) if len(metric) else float("nan")
