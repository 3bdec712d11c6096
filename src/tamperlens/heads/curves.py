"""Cumulative ablation: the best k heads taken out together, against random heads of the same layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, rate
from tamperlens.heads.exact import mean_z
from tamperlens.heads.inputs import Prompts, batched, make_rows
from tamperlens.heads.scores import HeadScores
from tamperlens.heads.targets import HasIds, Target, TargetLike, resolve_target
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating
from tamperlens.plots import Plot
from tamperlens.prompts import as_prompts
from tamperlens_hooks import HasVector, ablate_heads

Head = tuple[int, int]
Measure = Callable[[ChatModel], Sequence[float]]


@dataclass(frozen=True)
class AblationCurve(Result):
    """The target as heads are ablated one after the other.

    Attributes:
        k: how many heads are ablated; begins with 0.
        heads: the heads in the order in which they are taken out.
        values: the target with the first k ablated, mean over prompts with a bootstrap
            interval (Wilson's for a measure of zeros and ones).
        random: the same for random heads of the same layers: mean over draws, and the range that holds 95 %
            of them.
        share: of the random draws, how many lie above the chosen heads' value (1: all of them).
        target: what is measured.
        mode: what the heads' z is replaced with.
        method: of the scores that gave the order.
        draws: random sets for each k.
        seed: of the draws.
        n: prompts.
        model: its name.
        fingerprint: of the model.
        prompts: hash of the prompts.
    """

    k: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]
    values: tuple[Estimate, ...]
    random: tuple[Estimate, ...]
    share: tuple[float, ...]
    target: str
    mode: str
    method: str
    draws: int
    seed: int
    n: int
    model: str
    fingerprint: str
    prompts: str

    def summary(self) -> str:
        """The target with all heads of the curve ablated, beside random heads."""
        return (
            f"{self.model}, {self.target}: {self.values[0]} untouched, {self.values[-1]} without the first "
            f"{self.k[-1]} heads by {self.method}; random heads of the same layers {self.random[-1]}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Two rows for each k, series "top" and "random": k, value, low, high, n, share, head added."""
        rows = []
        for i, k in enumerate(self.k):
            for series, e in (("top", self.values[i]), ("random", self.random[i])):
                rows.append(
                    {
                        "k": k,
                        "series": series,
                        **e.cells(),
                        "random_above": self.share[i],
                        "head": "" if k == 0 else "{}.{}".format(*self.heads[k - 1]),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, *, name: str | None = None) -> Plot:
        """A `tamperlens.plots.Plot`: both curves with their intervals."""
        from tamperlens.plots import ablation_curve

        return ablation_curve(
            self.to_frame(),
            label=self.target,
            name=name or f"ablation-{self.method}",
            title=f"Ablating the top heads by {self.method}",
            caption=f"Heads of {self.model} set to {self.mode}, best first. Line: mean over {self.n} "
            f"prompts, 95 % interval. Grey: {self.draws} draws of as many random heads of the same "
            "layers, 95 % of draws.",
        )


@renamed_arguments(tokens="refusal_tokens")
def ablation_curve(
    model: ModelLike,
    scores: HeadScores | Sequence[Head],
    prompts: Prompts,
    *,
    target: TargetLike = "refusal_direction",
    direction: Tensor | HasVector | None = None,
    layer: int | None = None,
    position: int | None = None,
    refusal_tokens: Sequence[int] | HasIds | None = None,
    measure: Measure | None = None,
    mode: Literal["zero", "mean"] = "zero",
    most: int | None = None,
    draws: int = 20,
    batch_size: int = 16,
    seed: int = 0,
) -> AblationCurve:
    """Ablate the best 1, 2, … heads together and measure; and as many random heads of the same layers.

    A random set has as many heads in every layer as the chosen one, drawn from all heads there, so that a
    difference is not one of depth. In a layer of which all heads are chosen there is nothing to draw, and
    the two curves meet where that is so everywhere.

    Args:
        model: the model.
        scores: whose ranking gives the order, or the heads themselves.
        prompts: to measure on; use others than the scores were made on.
        target: as in `attribute`.
        direction: as there.
        layer: as there.
        position: as there.
        refusal_tokens: as there.
        measure: instead of a target, a function that is called with the model while heads are ablated and
            returns one number per prompt, such as 1 for refused answers.
        mode: "zero", or "mean" (each head's mean over the prompts).
        most: how many heads to take out; half of them by default.
        draws: random sets for each k.
        batch_size: prompts at once.
        seed: of the draws.

    Raises:
        InputError: a value out of range, or a target that does not fit.
    """
    model = as_chat_model(model)
    prompts = as_prompts(prompts, what="prompts")
    everything = model.anatomy.n_layers * model.anatomy.n_heads
    order = scores.ranking() if isinstance(scores, HeadScores) else [(int(a), int(b)) for a, b in scores]
    last = min(len(order), everything // 2) if most is None else most
    if not 1 <= last <= len(order) or len(set(order)) != len(order):
        raise InputError(f"most is {last}; give different heads and 1 to {len(order)} of them")
    rows = make_rows(model, prompts, None)
    batches = batched(model, rows, batch_size)
    run: Callable[[ChatModel], Any]
    if measure is None:
        goal = resolve_target(
            model, target, direction=direction, layer=layer, position=position, refusal_tokens=refusal_tokens
        )
        words, run = goal.words, _Read(goal, batches, len(rows))
    else:
        words, run = getattr(measure, "__name__", "measure"), measure
    values: torch.Tensor | str = mean_z(model, batches) if mode == "mean" else "zero"

    def measured(heads: Sequence[Head]) -> np.ndarray:
        if not heads:
            return np.asarray(run(model), dtype=float)
        with ablate_heads(model, heads, values):  # type: ignore[arg-type]
            return np.asarray(run(model), dtype=float)

    untouched = measured([])
    mean = float(untouched.mean())
    top, share = [_summary(untouched)], [float("nan")]
    random = [Estimate(mean, mean, mean, draws, "95% of random draws")]
    generator = np.random.default_rng(seed)
    for k in range(1, last + 1):
        chosen = measured(order[:k])
        means = np.array(
            [measured(_random(generator, order[:k], model.anatomy.n_heads)).mean() for _ in range(draws)]
        )
        low, high = np.quantile(means, [0.025, 0.975])
        top.append(_summary(chosen))
        random.append(Estimate(float(means.mean()), float(low), float(high), draws, "95% of random draws"))
        share.append(float((means > chosen.mean()).mean()))
    return AblationCurve(
        tuple(range(last + 1)), tuple(order[:last]), tuple(top), tuple(random), tuple(share), words, mode,
        scores.method if isinstance(scores, HeadScores) else "given order", draws, seed, len(untouched),
        model.name, model.fingerprint, prompts.sha256,
    )  # fmt: skip


def _random(generator: np.random.Generator, heads: Sequence[Head], n_heads: int) -> list[Head]:
    """As many heads of each layer, any of them."""
    counts = Counter(layer for layer, _ in heads)
    return [
        (layer, int(head))
        for layer, count in sorted(counts.items())
        for head in generator.permutation(n_heads)[:count]
    ]


def _summary(values: np.ndarray) -> Estimate:
    """Mean with its interval; shares of yes and no by Wilson, where a bootstrap of 24 of 24 is a point."""
    if np.isin(values, (0.0, 1.0)).all():
        return rate([bool(value) for value in values])
    return bootstrap(values)


class _Read:
    """The target on all prompts, in their order."""

    def __init__(self, goal: Target, batches: Any, n: int) -> None:
        self.goal, self.batches, self.n = goal, batches, n

    def __call__(self, model: ChatModel) -> np.ndarray:
        found = np.zeros(self.n)
        with evaluating(model.module):
            for batch in self.batches:
                found[batch.rows] = self.goal.read(model, batch.clean).double().cpu().numpy()
        return found
