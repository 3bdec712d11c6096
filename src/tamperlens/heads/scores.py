"""`HeadScores`: a number for every attention head, with what was measured, how, and in which sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, undefined
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.plots import Plot

DRAWS = 1000
By = Literal["score", "magnitude"]


@dataclass(frozen=True)
class HeadScores(Result):
    """A score for every attention head of a model.

    Attributes:
        scores: [layer, head], fp32, the mean over prompts (for "sahara" one number for all of them).
        per_prompt: [n, layer, head], fp32; [0, layer, head] where a method has no value per prompt.
        method: "direct", "gradient", "integrated", "ablate", "patch", "path", "ships", "sahara",
            or another tool's.
        target: what was measured, in words.
        convention: formula, sign and the choices made.
        metric: [n], the target on each prompt in the untouched run ("patch": in the corrupt run); for
            "sahara" the shift reached at each greedy step; empty for "ships".
        parts: direct attribution only: what is not a head, "embedding", "attention bias", "mlp" and
            "constant", each [n, k], so that heads and parts sum to `metric`.
        order: heads in the order of a greedy search ("sahara"); empty otherwise.
        prompts: name of each prompt set to its hash.
        n: number of prompts or pairs.
        model: its name.
        fingerprint: of the model.
    """

    scores: Float[Tensor, "layer head"]
    per_prompt: Float[Tensor, "n layer head"]
    method: str
    target: str
    convention: str
    metric: Float[Tensor, " values"]
    n: int
    model: str
    fingerprint: str
    parts: dict[str, Tensor] = field(default_factory=dict)
    order: tuple[tuple[int, int], ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)

    def check_model(self, model: ChatModel) -> None:
        """Scores name layers and heads of the model that they were made of.

        Raises:
            InputError: the model has other ones.
        """
        theirs = (model.n_layers, model.anatomy.n_heads)
        if tuple(self.scores.shape) != theirs:
            raise InputError(
                f"the scores are of {self.model} ({self.scores.shape[0]} layers, {self.scores.shape[1]} "
                f"heads), and {model.name} has {theirs[0]} and {theirs[1]}; score that model"
            )

    def summary(self) -> str:
        """The heads that score highest."""
        listed = ", ".join(
            f"{layer}.{head} {float(self.scores[layer, head]):.3g}"
            for layer, head in self.top(min(3, self.scores.numel()))
        )
        return (
            f"{self.model}, {self.target} by {self.method} (n={self.n}): highest heads (layer.head) {listed}."
        )

    @classmethod
    def from_values(
        cls,
        model: ModelLike,
        values: Tensor | npt.ArrayLike,
        *,
        method: str,
        target: str,
        convention: str,
        prompts: Mapping[str, str] | None = None,
    ) -> HeadScores:
        """Scores that another tool computed, such as a table of `transformer_lens.patching`.

        Args:
            model: the model that they are of.
            values: [layer, head], or [n, layer, head] with one value per prompt.
            method: name of the method.
            target: what was measured.
            convention: formula and sign.
            prompts: name and hash of what they were measured on.

        Raises:
            InputError: another shape.
            NumericsError: NaN or infinite scores.
        """
        model = as_chat_model(model)
        table = torch.as_tensor(values).detach().float().cpu()
        heads = (model.anatomy.n_layers, model.anatomy.n_heads)
        if table.shape[-2:] != heads or table.ndim not in (2, 3):
            raise InputError(
                f"scores must be [{heads[0]}, {heads[1]}] (or one table per prompt); got {list(table.shape)}"
            )
        per_prompt = table if table.ndim == 3 else torch.zeros(0, *heads)
        return make_scores(
            model, per_prompt, method=method, target=target, convention=convention,
            metric=torch.zeros(0), prompts=dict(prompts or {}),
            scores=table if table.ndim == 2 else None,
        )  # fmt: skip

    @classmethod
    def from_transformer_lens(
        cls,
        model: ModelLike,
        result: object,
        *,
        target: str,
        baseline: float = 0.0,
        prompts: Mapping[str, str] | None = None,
    ) -> HeadScores:
        """Scores of what `transformer_lens` found on the model's bridge (`hooks.to_transformer_lens`).

        Args:
            model: the model that the bridge was made of.
            result: a table of `patching` [layer, head], or what `tools.analysis.attribution_patch` or
                `direct_logit_attribution(unit="head")` returned; see `heads.lens.head_table`.
            target: what the metric measures.
            baseline: of a patching table: the metric of the corrupt run, which is subtracted.
            prompts: name and hash of what it was measured on.

        Raises:
            InputError: the result does not hold exactly the heads of this model.
        """
        model = as_chat_model(model)
        from tamperlens.heads.lens import head_table

        table, method, convention = head_table(
            result, model.anatomy.n_layers, model.anatomy.n_heads, baseline
        )
        return cls.from_values(
            model, table, method=method, target=target, convention=convention, prompts=prompts
        )

    def ranking(self, by: By = "score") -> list[tuple[int, int]]:
        """All (layer, head), best first; ties go to the lower layer and head.

        Args:
            by: "score" (largest first) or "magnitude" (largest |score| first).
        """
        values = (self.scores.abs() if by == "magnitude" else self.scores).double().flatten()
        order = values.sort(descending=True, stable=True).indices
        heads = self.scores.shape[1]
        return [(int(i) // heads, int(i) % heads) for i in order]

    def top(self, k: int, by: By = "score") -> list[tuple[int, int]]:
        """The first k of `ranking`.

        Raises:
            InputError: k is not between 1 and the number of heads.
        """
        if not 1 <= k <= self.scores.numel():
            raise InputError(f"k is {k}; this model has {self.scores.numel()} heads")
        return self.ranking(by)[:k]

    def estimate(self, layer: int, head: int) -> Estimate:
        """A head's score with a bootstrap interval over prompts."""
        if not len(self.per_prompt):
            value = float(self.scores[layer, head])
            return Estimate(value, float("nan"), float("nan"), self.n, "", "one value for all prompts")
        return bootstrap(self.per_prompt[:, layer, head].double().numpy())

    def to_frame(self) -> pd.DataFrame:
        """One row per head: layer, head, score, low, high, n, rank (1 is the largest), method, target."""
        rank = {at: i + 1 for i, at in enumerate(self.ranking())}
        low, high = self._intervals()
        layers, heads = self.scores.shape
        return pd.DataFrame(
            [
                {
                    "layer": at,
                    "head": head,
                    "score": float(self.scores[at, head]),
                    "low": float(low[at, head]),
                    "high": float(high[at, head]),
                    "n": self.n,
                    "rank": rank[at, head],
                    "method": self.method,
                    "target": self.target,
                }
                for at in range(layers)
                for head in range(heads)
            ]
        )

    def plot(self, *, name: str | None = None, title: str | None = None) -> Plot:
        """A `tamperlens.plots.Plot`: layer × head heat map."""
        from tamperlens.plots import head_map

        best = self.top(1, "magnitude")[0]
        return head_map(
            self.scores.numpy(),
            label=f"{self.method}: {self.target}",
            name=name or f"heads-{self.method}",
            title=title or f"Heads by {self.method}",
            caption=f"{self.convention} Mean over {self.n} prompts of {self.model}.",
            outline=[best],
        )

    def _intervals(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self.per_prompt) < 2:
            empty = np.full(tuple(self.scores.shape), np.nan)
            return empty, empty
        values = self.per_prompt.double().numpy()
        means = np.einsum("dn,nlh->dlh", _weights(len(values), 0), values)
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        return low, high


def make_scores(
    model: ChatModel,
    per_prompt: Float[Tensor, "n layer head"],
    *,
    method: str,
    target: str,
    convention: str,
    metric: Float[Tensor, " values"],
    prompts: dict[str, str],
    scores: Float[Tensor, "layer head"] | None = None,
    n: int | None = None,
    **more: Any,
) -> HeadScores:
    """HeadScores of values per prompt, refused when they are not finite.

    Raises:
        NumericsError: NaN or infinite scores.
    """
    found = per_prompt.double().mean(0) if scores is None else scores
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(f"{method} scores of {model.name} are NaN or infinite; load it in float32")
    return HeadScores(
        found.float().cpu().contiguous(), per_prompt.float().cpu().contiguous(), method, target, convention,
        metric.double().cpu(), len(per_prompt) if n is None else n, model.name, model.fingerprint,
        prompts=prompts, **more,
    )  # fmt: skip


def rank_agreement(one: HeadScores, two: HeadScores, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Spearman's rank correlation of two methods over heads, with a bootstrap interval.

    Prompts are resampled, the same ones in both, where both have values for the same number of prompts;
    otherwise heads are, which asks how far the correlation depends on single heads. `method` says which.

    Raises:
        InputError: the scores are of models of different shape.
    """
    if one.scores.shape != two.scores.shape:
        raise InputError(
            f"{one.model} has {list(one.scores.shape)} heads and {two.model} {list(two.scores.shape)}"
        )
    a, b = one.scores.double().flatten().numpy(), two.scores.double().flatten().numpy()
    value = _spearman(a, b)
    if np.isnan(value):
        return undefined("all heads have the same score", a.size)
    same = one.prompts.get("prompts") == two.prompts.get("prompts")
    if same and len(one.per_prompt) == len(two.per_prompt) > 1:
        weights = _weights(len(one.per_prompt), seed, draws)
        left = weights @ one.per_prompt.double().flatten(1).numpy()
        right = weights @ two.per_prompt.double().flatten(1).numpy()
        found = [_spearman(x, y) for x, y in zip(left, right, strict=True)]
        n, unit = len(one.per_prompt), "prompts"
    else:
        picks = np.random.default_rng(seed).integers(0, a.size, size=(draws, a.size))
        found = [_spearman(a[pick], b[pick]) for pick in picks]
        n, unit = a.size, "heads"
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n, f"bootstrap 95% over {unit}")


def agreement(scores: Sequence[HeadScores], *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Rank correlation of every pair of methods: one, two, value, low, high, n, method."""
    rows = []
    for i, one in enumerate(scores):
        for two in scores[i + 1 :]:
            e = rank_agreement(one, two, draws=draws, seed=seed)
            rows.append({"one": one.method, "two": two.method, **e.cells("method")})
    return pd.DataFrame(rows)


def _weights(n: int, seed: int, draws: int = DRAWS) -> np.ndarray:
    """[draws, n]: the share of each unit in each resample."""
    picks = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    return np.stack([np.bincount(pick, minlength=n) for pick in picks]) / n


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    x, y = sps.rankdata(a), sps.rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y / size) if size > 0 else float("nan")
