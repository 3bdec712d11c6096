"""`influence`: the rows that pushed a model away from its refusals while it was trained."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tamperlens import finetune, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, clustered
from tamperlens.finetune import Attack, FullConfig, LoraConfig
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts, packaged_for
from tamperlens.studies.screening import Anchors, RowScorer, anchors_for


@dataclass(frozen=True)
class LeftOut(Result):
    """Refusal after training on all rows, without the named ones, and without as many random others.

    Attributes:
        table: trained on ("all rows", "without the named", "without random rows"), seed, refused, n.
        difference: refused without the named rows − without random ones, over seeds; positive where the named
            rows wore refusal away.
        named: places of the rows that were left out.
    """

    table: pd.DataFrame
    difference: Estimate
    named: tuple[int, ...]

    def summary(self) -> str:
        """The three rates and the difference."""
        means = self.table.groupby("trained on", sort=False)["refused"].mean()
        rates = ", ".join(f"{name} {value:.0%}" for name, value in means.items())
        return (
            f"Refused after training on: {rates}. Leaving out the {len(self.named)} named rows in place of "
            f"random ones changes that by {self.difference}."
        )


@dataclass(frozen=True)
class Influence(Result):
    """Rows by how much they pushed refusal away.

    Attributes:
        table: row (from 1), influence, and its part at every step measured (`step 0`, …); larger wears away
            more.
        model: name of the model.
        fingerprint: of its weights.
        data: what it was trained on.
        config: the training's settings.
        steps: where gradients were read.
    """

    table: pd.DataFrame
    model: str
    fingerprint: str
    data: PromptSet
    config: LoraConfig | FullConfig
    steps: tuple[int, ...]

    def top(self, k: int) -> list[int]:
        """Places (from 0) of the k most influential rows; ties go to the earlier row."""
        found: list[int] = np.argsort(-self.table["influence"].to_numpy(), kind="stable")[:k].tolist()
        return found

    def summary(self) -> str:
        """Which rows come first."""
        first = ", ".join(str(row + 1) for row in self.top(5))
        return (
            f"Rows of {self.data.name!r} that pushed {self.model} away from its refusals most: {first}. An "
            "estimate to first order; `verify` trains without them."
        )

    def verify(
        self,
        model: ModelLike,
        k: int,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        harmful: PromptsLike | None = None,
        limit: int = 64,
        decoding: Decoding | None = None,
    ) -> LeftOut:
        """Train without the k most influential rows, without k random others, and on all rows.

        Args:
            model: the model that was given to `influence`.
            k: rows to leave out.
            seeds: of trainings and of the random rows.
            harmful: held-out requests that should be refused; the packaged test prompts by default.
            limit: most of them.
            decoding: of the answers; at most 24 tokens by default.

        Raises:
            InputError: another model, or too few rows are left.
        """
        ready = as_chat_model(model)
        if ready.fingerprint != self.fingerprint:
            raise InputError(
                f"this is of {self.model} ({self.fingerprint[:8]}), and {ready.name} "
                f"({ready.fingerprint[:8]}) was given; give the same model"
            )
        if not 1 <= k <= len(self.data) // 2:
            raise InputError(f"k={k} must lie between 1 and half of the {len(self.data)} rows")
        asked = packaged_for(ready, "harmful", "test") if harmful is None else as_prompts(harmful)
        asked, how = (
            asked.sample(min(limit, len(asked)), seed=0),
            Decoding.of(decoding, {}, max_new_tokens=24),
        )
        named, rows = self.top(k), []
        for seed in seeds:
            others = random.Random(seed).sample(sorted(set(range(len(self.data))) - set(named)), k)
            for kind, left in (
                ("all rows", []),
                ("without the named", named),
                ("without random rows", others),
            ):
                kept = self.data.subset([row for row in range(len(self.data)) if row not in set(left)])
                settings = dataclasses.replace(self.config, seed=seed)
                tuned = finetune.run(ready, kept, settings, progress=False)
                rate = refusal.evaluate(tuned.model, asked, decoding=how)
                rows.append({"trained on": kind, "seed": seed, "refused": rate.rate, "n": rate.n})
        table = pd.DataFrame(rows)
        by = table.pivot(index="seed", columns="trained on", values="refused")
        gaps = (by["without the named"] - by["without random rows"]).to_numpy()
        return LeftOut(table, clustered(gaps, list(by.index)), tuple(named))


class _Pushes:
    """A recorder that reads every row's push at some steps of a training."""

    name = "influence"

    def __init__(self, data: PromptSet, anchors: Anchors, steps: Sequence[int]) -> None:
        self.data, self.anchors, self.steps = data, anchors, set(steps)
        self.found: dict[int, Sequence[float]] = {}

    def due(self, step: int) -> bool:
        """Only at the steps asked for."""
        return step in self.steps

    def start(self, model: ChatModel) -> None:
        """Nothing of the untouched model is kept."""

    def record(self, step: int, model: ChatModel) -> list[Mapping[str, object]]:
        """Pushes with anchors' gradients of this step."""
        if step in self.steps:
            self.found[step] = RowScorer(model, self.anchors, ("push",))(self.data)["push"].tolist()
        return []

    def finish(self) -> dict[int, Sequence[float]]:
        """Pushes by step."""
        return self.found


def influence(
    model: ModelLike,
    data: PromptsLike | Attack,
    config: LoraConfig | FullConfig | None = None,
    *,
    checkpoints: int = 1,
    anchors: Anchors | None = None,
) -> Influence:
    """Train once, and say which rows pushed the model away from its refusals.

    A row's influence is the sum, over steps of the training, of the next update's learning rate × push:
    the product of its gradient with that of complying minus that of refusing (Pruthi et al. 2020,
    arXiv 2002.08484, with `RowScorer`'s anchors in place of a test loss). With LoRA the gradients are
    those of the merged weights. An estimate, not a proof: `Influence.verify` trains without the rows.

    Args:
        model: the model before training; it stays as it is.
        data: prompts with responses, or an attack.
        config: settings of the training; an attack's own by default.
        checkpoints: steps at which gradients are read, spread evenly from step 0; 1 reads the untouched model
            alone.
        anchors: what complying and refusing are; see `screening.anchors_for`.

    Raises:
        InputError: data without responses, no settings, or a model that hardly refuses.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import finetune
        >>> model = tamperlens.load("organism:tiny")
        >>> attack = finetune.attacks.harmful_compliance(4)
        >>> found = tamperlens.influence(model, attack, finetune.LoraConfig(steps=2))
        >>> len(found.table)
        4
    """
    ready = as_chat_model(model)
    if config is None:
        if not isinstance(data, Attack):
            raise InputError("give config=, the settings of the training, or an Attack, which brings its own")
        config = data.config_for(ready)
    rows = data.data if isinstance(data, Attack) else as_prompts(data, what="data")
    if rows.responses is None:
        raise InputError(f"{rows.name!r} has no responses, and a row's influence lies in what it answers")
    batch = config.batch_size * config.accumulation
    last = config.steps or max(1, round((config.epochs or 1) * -(-len(rows) // batch)))
    steps = sorted({round(i * last / checkpoints) for i in range(checkpoints)})
    held = anchors_for(ready) if anchors is None else anchors
    pushes = _Pushes(rows, held, steps)
    tuned = finetune.run(ready, rows, config, recorders=[pushes], progress=False)
    rates = tuned.log.set_index("step")["learning_rate"]
    table = pd.DataFrame({f"step {step}": pushes.found[step] for step in steps})
    weights = [float(rates.get(step + 1, config.learning_rate)) for step in steps]
    table.insert(0, "influence", table.to_numpy() @ np.asarray(weights))
    table.insert(0, "row", np.arange(1, len(rows) + 1))
    return Influence(table, ready.name, ready.fingerprint, rows, config, tuple(steps))
