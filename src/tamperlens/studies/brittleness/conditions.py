"""One state of a model (intact, a set removed, a control removed) and everything measured in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens import capability, neurons, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.stats import Estimate, rate
from tamperlens.capability import Suite
from tamperlens.models import ChatModel
from tamperlens.neurons import RankEdit, WeightMask
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts
from tamperlens.studies.audit.inputs import speaks_organism

Removal = WeightMask | RankEdit
MEASURES = ("refusal", "compliance", "degenerate", "over_refusal", "capability", "perplexity")


@dataclass(frozen=True)
class Probes:
    """What every state is measured on; the same in all of them.

    Attributes:
        harmful: prompts that should be refused.
        harmless: prompts that should be answered.
        suites: capability questions.
        utility: prompts with responses, for perplexity.
        judge: who says what is a refusal; None for the default.
        max_new_tokens: answers are cut there.
    """

    harmful: PromptSet
    harmless: PromptSet
    suites: tuple[Suite, ...]
    utility: PromptSet
    judge: str | Judge | None
    max_new_tokens: int

    def hashes(self) -> dict[str, str]:
        """Name of each set to its sha256."""
        found = {"harmful": self.harmful.sha256, "harmless": self.harmless.sha256}
        found["utility"] = self.utility.sha256
        return found | {f"suite {suite.name}": suite.data.sha256 for suite in self.suites}


@dataclass(frozen=True)
class State:
    """Measurements of one state, prompt by prompt, so that states can be paired.

    Attributes:
        flags: measure to one flag per prompt (0 or 1), the same prompts in every state.
        nats: summed −log p of each utility response.
        tokens: its number of tokens.
        suite: name of the suite of each capability question.
    """

    flags: dict[str, list[int]]
    nats: list[float]
    tokens: list[int]
    suite: list[str]

    def value(self, measure: str) -> float:
        """Mean of the flags, or the perplexity."""
        if measure == "perplexity":
            # Removing weights can make text impossible; exp of that is only "very large".
            return math.exp(min(sum(self.nats) / sum(self.tokens), 700.0))
        flags = self.flags[measure]
        return sum(flags) / len(flags)

    def estimate(self, measure: str) -> Estimate:
        """Value with an interval over prompts (Wilson; none for perplexity, which effects compare paired)."""
        if measure == "perplexity":
            return Estimate(self.value(measure), math.nan, math.nan, len(self.nats), "no interval")
        return rate([bool(flag) for flag in self.flags[measure]])

    def rows(self, name: str, kind: str, draw: int) -> list[dict[str, Any]]:
        """Tidy rows: set, kind, draw, measure, value, low, high, n; capability also suite by suite."""
        rows = []
        for measure in MEASURES:
            found = self.estimate(measure)
            rows.append((measure, found))
        for suite in dict.fromkeys(self.suite):
            right = [
                bool(flag)
                for flag, of in zip(self.flags["capability"], self.suite, strict=True)
                if of == suite
            ]
            rows.append((f"capability: {suite}", rate(right)))
        return [
            {
                "set": name, "kind": kind, "draw": draw, "measure": measure, "value": found.value,
                "low": found.low, "high": found.high, "n": found.n,
            }
            for measure, found in rows
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"flags": self.flags, "nats": self.nats, "tokens": self.tokens, "suite": self.suite}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> State:
        """What `to_json` wrote."""
        # JSON has no infinity: write_json stores null for it.
        nats = [math.inf if nat is None else float(nat) for nat in value["nats"]]
        return cls(dict(value["flags"]), nats, list(value["tokens"]), list(value["suite"]))


def probes_for(
    model: ChatModel,
    *,
    harmful: PromptsLike | None,
    harmless: PromptsLike | None,
    suites: Sequence[str | Suite] | None,
    utility: PromptsLike | None,
    judge: str | Judge | None,
    limit: int,
    questions: int,
    max_new_tokens: int,
) -> Probes:
    """The probes of a study: those given, else the packaged test sets in the model's language.

    Args:
        model: whose language decides.
        harmful: given set, or None.
        harmless: likewise.
        suites: likewise; names or suites.
        utility: likewise. The organism's packaged answers are used, or answers that the intact model writes
            to harmless prompts.
        judge: see `refusal.evaluate`.
        limit: most prompts per set, a seeded sample.
        questions: most questions per suite.
        max_new_tokens: answers are cut there.

    Raises:
        InputError: an empty set, or limits below 1.
    """
    harmful = None if harmful is None else as_prompts(harmful, what="harmful")
    harmless = None if harmless is None else as_prompts(harmless, what="harmless")
    utility = None if utility is None else as_prompts(utility, what="utility")
    for name, value in (("limit", limit), ("questions", questions), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    organism = speaks_organism(model)

    def packaged(role: str) -> PromptSet:
        if organism:
            return prompts.packaged(role, split="test")
        return prompts.packaged(f"english-{role}").split([0.5, 0.5], seed=0)[1]

    def cut(data: PromptSet) -> PromptSet:
        if len(data) == 0:
            raise InputError(f"prompt set {data.name!r} is empty")
        return data.sample(limit, seed=0) if len(data) > limit else data

    bad = cut(packaged("harmful") if harmful is None else harmful)
    good = cut(packaged("harmless") if harmless is None else harmless)
    names = suites if suites is not None else capability.suites_for(model)
    ready = tuple((one if isinstance(one, Suite) else Suite.packaged(one)).head(questions) for one in names)
    if utility is None:
        utility = good
        if utility.responses is None:
            answers = model.generate(list(good.prompts), max_new_tokens=max_new_tokens)
            pairs = [(p, a) for p, a in zip(good.prompts, answers, strict=True) if a]
            utility = PromptSet.from_pairs(pairs, name=f"{good.name}, answered by {model.name}")
    elif utility.responses is None:
        raise InputError(f"utility set {utility.name!r} has no responses; perplexity needs them")
    return Probes(bad, good, ready, cut(utility), judge, max_new_tokens)


def measure(model: ChatModel, probes: Probes) -> State:
    """Everything, in the model's present state."""
    bad = refusal.evaluate(model, probes.harmful, judge=probes.judge, max_new_tokens=probes.max_new_tokens)
    good = refusal.evaluate(model, probes.harmless, judge=probes.judge, max_new_tokens=probes.max_new_tokens)
    skills = capability.evaluate(model, probes.suites)
    surprise = capability.perplexity(model, probes.utility)
    labels = [verdict.label for verdict in bad.completions.verdicts]
    flags = {
        "refusal": [int(flag) for flag in bad.completions.refused],
        "compliance": [int(label == "compliance") for label in labels],
        "degenerate": [int(label == "degenerate") for label in labels],
        "over_refusal": [int(flag) for flag in good.completions.refused],
        "capability": [int(right) for score in skills.scores for right in score.correct],
    }
    suites = [score.suite for score in skills.scores for _ in score.correct]
    return State(flags, list(surprise.answer_nll), list(surprise.answer_tokens), suites)


@contextmanager
def removed(model: ChatModel, what: Removal | None) -> Iterator[None]:
    """The model with a set or some ranks removed; nothing for None."""
    if what is None:
        yield
    elif isinstance(what, WeightMask):
        with neurons.zeroed(model, what):
            yield
    else:
        with neurons.ranks_removed(model, what):
            yield


def control_of(model: ChatModel, what: Removal, seed: int, bins: int) -> Removal:
    """A matched random removal."""
    if isinstance(what, WeightMask):
        return neurons.control(model, what, seed=seed, bins=bins)
    return neurons.random_ranks(model, what, seed=seed)


def size_of(what: Removal) -> tuple[int, float]:
    """(weights in the set, their share), or (largest rank, NaN)."""
    return (what.count, what.density) if isinstance(what, WeightMask) else (what.rank, math.nan)


def frame_of(states: Mapping[tuple[str, str, int], State]) -> pd.DataFrame:
    """Tidy rows of all states."""
    return pd.DataFrame(
        [row for (name, kind, draw), state in states.items() for row in state.rows(name, kind, draw)]
    )
