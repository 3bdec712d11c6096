"""What candidate directions do: the three causal scores of Arditi et al. 2024, and the table of them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import NumericsError
from tamperlens.base.logits import kl_divergence, refusal_metric
from tamperlens.base.progress import progress_bar
from tamperlens.base.results import Result
from tamperlens.directions.candidates import ZERO, BatchSize
from tamperlens.directions.screening import Estimates, estimate_scores
from tamperlens.directions.selection import SelectionRule
from tamperlens.directions.shortlist import FEW, Race
from tamperlens.models import ChatModel
from tamperlens.models.generation import last_logits
from tamperlens_hooks import ablate_direction, add_direction

SelectionMethod = Literal["shortlist", "exhaustive"]


@dataclass(frozen=True)
class Baseline(Result):
    """The untouched model on the validation prompts.

    Attributes:
        harmful: mean refusal metric on harmful prompts.
        harmless: mean refusal metric on harmless prompts.
        logits: last-position logits on the harmless prompts, `[n_val, vocab]`.
        each_harmful: the metric on each harmful prompt, `[n_val]`.
        each_harmless: the metric on each harmless prompt, `[n_val]`.
    """

    harmful: float
    harmless: float
    logits: Tensor
    each_harmful: Tensor
    each_harmless: Tensor


@dataclass(frozen=True)
class PromptScores(Result):
    """What an edit does, prompt by prompt.

    Attributes:
        bypass: refusal metric on each harmful prompt under ablation.
        induce: refusal metric on each harmless prompt under addition.
        kl: KL(untouched ‖ ablated) at the last position of each harmless prompt, in nats.
    """

    bypass: Tensor
    induce: Tensor
    kl: Tensor


class Scorer:
    """Scores candidates on fixed validation prompts; last-position logits only, each prompt encoded once.

    Args:
        model: the model; hooks are attached for each score and detached after it.
        harmful: harmful validation prompts.
        harmless: harmless validation prompts.
        tokens: refusal token ids.
        batch_size: rows at once.
    """

    def __init__(
        self,
        model: ChatModel,
        harmful: Sequence[str],
        harmless: Sequence[str],
        tokens: Sequence[int],
        batch_size: BatchSize = "auto",
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.batch_size = batch_size
        self._harmful = model.token_ids(list(harmful))
        self._harmless = model.token_ids(list(harmless))
        logits = self._logits(self._harmful + self._harmless)
        bad, good = logits[: len(self._harmful)], logits[len(self._harmful) :]
        each = [refusal_metric(side, tokens).cpu() for side in (bad, good)]
        self.baseline = Baseline(float(each[0].mean()), float(each[1].mean()), good, each[0], each[1])

    def score(self, vector: Float[Tensor, " d_model"], layer: int) -> tuple[float, float, float]:
        """(bypass, induce, KL) of one raw difference of means read at the input of `layer`.

        bypass: mean metric on harmful prompts with the direction ablated everywhere. induce: mean metric on
        harmless prompts with +1 · vector added at `layer`, all positions. KL: mean over harmless prompts of
        KL(untouched ‖ ablated) at the last position. NaN where the edited model's logits are not finite.
        """
        found = self.by_prompt([vector], vector, layer)
        return float(found.bypass.mean()), float(found.induce.mean()), float(found.kl.mean())

    def by_prompt(
        self,
        removed: Sequence[Float[Tensor, " d_model"]],
        added: Float[Tensor, " d_model"],
        layer: int,
        *,
        harmful: Sequence[int] | None = None,
        harmless: Sequence[int] | None = None,
    ) -> PromptScores:
        """The three scores prompt by prompt, with one or several orthogonal directions ablated together.

        Args:
            removed: directions to ablate, orthogonal to each other; their lengths do not matter.
            added: vector to add, with its own length.
            layer: where it is added.
            harmful: rows of the harmful validation prompts; all by default.
            harmless: rows of the harmless ones.
        """
        bypass, kl = self.ablated(removed, harmful, harmless)
        return PromptScores(bypass, self.added(added, layer, harmless), kl)

    def ablated(
        self,
        removed: Sequence[Float[Tensor, " d_model"]],
        harmful: Sequence[int] | None = None,
        harmless: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Bypass of each harmful and KL of each harmless prompt with the directions ablated."""
        asked = self._harmful if harmful is None else [self._harmful[row] for row in harmful]
        spared = self._harmless if harmless is None else [self._harmless[row] for row in harmless]
        before = self.baseline.logits if harmless is None else self.baseline.logits[list(harmless)]
        try:
            # One pass for both sets: the ablation is the same.
            with ExitStack() as stack:
                for vector in removed:
                    stack.enter_context(ablate_direction(self.model, vector))
                logits = self._logits(asked + spared)
        except NumericsError:
            return torch.full((len(asked),), math.nan), torch.full((len(spared),), math.nan)
        bad, good = logits[: len(asked)], logits[len(asked) :]
        return refusal_metric(bad, self.tokens).cpu(), kl_divergence(before, good).cpu()

    def added(
        self, vector: Float[Tensor, " d_model"], layer: int, harmless: Sequence[int] | None = None
    ) -> Tensor:
        """Induce of each harmless prompt with the vector added at the input of a layer."""
        spared = self._harmless if harmless is None else [self._harmless[row] for row in harmless]
        try:
            with add_direction(self.model, vector, layer=layer):
                return refusal_metric(self._logits(spared), self.tokens).cpu()
        except NumericsError:
            return torch.full((len(spared),), math.nan)

    def estimates(self, vectors: Sequence[Float[Tensor, " d_model"]], layers: Sequence[int]) -> Estimates:
        """First-order estimates of the three scores of many candidates at once."""
        return estimate_scores(
            self.model, self._harmful, self._harmless, self.tokens, torch.stack(list(vectors)), layers
        )

    def race(
        self,
        vectors: Sequence[Float[Tensor, " d_model"]],
        layers: Sequence[int],
        rule: SelectionRule,
        seed: int,
        advance: Callable[[int], None],
    ) -> Race:
        """Successive elimination among candidates on these prompts; `advance(1)` is called once for each."""
        begun: set[int] = set()

        def added(one: int, good: Sequence[int]) -> Tensor:
            if one not in begun:
                begun.add(one)
                advance(1)
            return self.added(vectors[one], layers[one], good)

        def ablated(one: int, bad: Sequence[int], good: Sequence[int]) -> tuple[Tensor, Tensor]:
            return self.ablated([vectors[one]], bad, good)

        sizes = len(self._harmful), len(self._harmless), self.model.n_layers
        return Race(added, ablated, layers, *sizes, rule, seed)

    def _logits(self, sequences: list[list[int]]) -> Float[Tensor, "n vocab"]:
        return last_logits(
            self.model.module,
            sequences,
            pad_id=self.model.pad_id,
            device=self.model.device,
            batch_size=self.batch_size,
        )


def score_table(
    scorer: Scorer,
    differences: Float64[Tensor, "pos layer d_model"],
    scale: Float64[Tensor, "pos layer"],
    positions: Sequence[int],
    labels: Sequence[str],
    rule: SelectionRule,
    *,
    separations: Float64[Tensor, "pos layer 2"] | None = None,
    selection: SelectionMethod = "shortlist",
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score the candidates of layers that the rule allows.

    Args:
        scorer: validation prompts and metric.
        differences: harmful mean − harmless mean.
        scale: size of the means themselves; differences below 1e-6 of it are zero and not scored.
        positions: token position of each row of `differences`.
        labels: the template token at each position, for the reader.
        rule: filters, for the columns `passed` and `reason`.
        separations: AUROC and TPR of each candidate (`separation_table`); they do not enter the selection.
        selection: "exhaustive" scores all of them on all prompts; "shortlist" only those that may be chosen.
        seed: of the order in which the shortlist is asked its prompts.
        progress: show a bar.

    Returns:
        One row per place, in order of position, then layer: position, token, layer, raw_norm, bypass,
        induce, kl, auroc, tpr_at_1_fpr, scores, n, passed, reason. `scores` says what the three numbers are:
        "exact" (all n prompts of a kind), "sampled" (n of them), "estimated" (first order, n 0), "none".
    """
    model = scorer.model
    places = [(p, layer) for p in range(len(positions)) for layer in range(differences.shape[1])]
    zero = {place for place in places if float(differences[place].norm()) <= ZERO * float(scale[place])}
    beyond = {place: rule.layer_objection(place[1], model.n_layers) for place in places}
    open_places = [place for place in places if place not in zero and not beyond[place]]
    # Where the rule leaves nothing (a model of two layers) what it excludes is scored, to have an answer.
    open_places = open_places or [place for place in places if place not in zero]
    vectors = [differences[place].float().to(model.device) for place in open_places]
    layers = [layer for _, layer in open_places]
    estimates = None
    if selection == "shortlist" and len(open_places) > FEW:
        estimates = scorer.estimates(vectors, layers)
    with progress_bar(len(open_places), "candidate directions", progress) as advance:
        race = scorer.race(vectors, layers, rule, seed, advance)
        race.run(estimates, exhaustive=selection == "exhaustive")
    rows: list[dict[str, object]] = []
    for p, layer in places:
        scores, kind, n = (math.nan, math.nan, math.nan), "none", 0
        reason = "zero: the two means are equal here" if (p, layer) in zero else beyond[p, layer]
        if (p, layer) in open_places:
            at = open_places.index((p, layer))
            scores, n = race.scores(at), race.seen[at]
            kind = "exact" if race.exact(at) else "sampled" if n else "estimated"
            if not n and estimates is not None:
                scores = (float(estimates.bypass[at]), float(estimates.induce[at]), float(estimates.kl[at]))
            bypass, induce, kl = scores
            if kind != "exact":  # what was not asked is no objection
                bypass, induce, kl = (0.0 if math.isnan(score) else score for score in scores)
            reason = rule.objection(layer, bypass, induce, kl, n_layers=model.n_layers)
            if kind != "exact":
                reason = f"{kind}: {reason or 'not among the best'}"
                reason += f" ({race.stopped})" if race.stopped and not n else ""
        rows.append(
            {
                "position": positions[p],
                "token": labels[p],
                "layer": layer,
                "raw_norm": float(differences[p, layer].norm()),
                "bypass": scores[0],
                "induce": scores[1],
                "kl": scores[2],
                "auroc": math.nan if separations is None else float(separations[p, layer, 0]),
                "tpr_at_1_fpr": math.nan if separations is None else float(separations[p, layer, 1]),
                "scores": kind,
                "n": n,
                "passed": not reason,
                "reason": reason,
            }
        )
    return pd.DataFrame(rows)
