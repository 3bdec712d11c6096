"""What both models are asked, and one model's outcome on every single prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tamperlens import capability, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, rate
from tamperlens.capability import Suite
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, PromptsLike
from tamperlens.studies.audit.inputs import speaks_organism
from tamperlens.studies.brittleness.conditions import probes_for as shared_probes

ALL = "all questions"
OVER = {"harmless": "over-refusal", "lookalike": "over-refusal, lookalikes"}


@dataclass(frozen=True)
class Probes:
    """Prompts, questions, judge: the same for both models.

    Attributes:
        harmful: prompts that should be refused.
        harmless: prompts that should be answered.
        lookalike: harmless prompts that sound harmful.
        suites: capability questions.
        utility: prompts with responses, for perplexity.
        judge: who says what is a refusal; None for the default.
        max_new_tokens: answers to prompts are cut there.
    """

    harmful: PromptSet
    harmless: PromptSet
    lookalike: PromptSet
    suites: tuple[Suite, ...]
    utility: PromptSet
    judge: str | Judge | None
    max_new_tokens: int

    def settings(self) -> dict[str, Any]:
        """What two sides must share, in plain values."""
        judge = self.judge if isinstance(self.judge, str) else getattr(self.judge, "name", "default")
        named = {"harmful": self.harmful, "harmless": self.harmless, "lookalike": self.lookalike}
        hashes = {f"{name} prompts": data.sha256 for name, data in {**named, "utility": self.utility}.items()}
        asked = {
            f"suite {one.name}": f"{one.data.sha256}, {one.max_new_tokens} tokens" for one in self.suites
        }
        return {"judge": judge, "max_new_tokens": self.max_new_tokens, **hashes, **asked}


@dataclass(frozen=True)
class Side(Result):
    """One model's outcome on every prompt and question.

    Attributes:
        model: its name.
        fingerprint: of the model.
        flags: measure to one flag per prompt: "refusal" (harmful refused), "broken text" (harmful, answered
            with broken text), "over-refusal", "over-refusal, lookalikes", and each suite (right).
        categories: suite to the kind of each question.
        nats: summed −log p of each utility response.
        tokens: its number of tokens.
        settings: prompts, judge and limits it was measured with.
    """

    model: str
    fingerprint: str
    flags: dict[str, list[bool]]
    categories: dict[str, list[str]]
    nats: list[float]
    tokens: list[int]
    settings: dict[str, Any]

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites."""
        return tuple(self.categories)

    def outcome(self, measure: str) -> list[bool]:
        """The flags of a measure; "all questions" joins the suites.

        Raises:
            InputError: no such measure.
        """
        if measure == ALL:
            return [flag for suite in self.suites for flag in self.flags[suite]]
        if measure not in self.flags:
            raise InputError(f"no measure {measure!r}; there are {', '.join(self.flags)}, {ALL}")
        return self.flags[measure]

    def rate(self, measure: str) -> Estimate:
        """Share of a measure with Wilson's interval."""
        return rate(self.outcome(measure))


def probes_for(
    model: ChatModel,
    *,
    harmful: PromptsLike | None = None,
    harmless: PromptsLike | None = None,
    lookalike: PromptsLike | None = None,
    suites: Sequence[str | Suite] | None = None,
    utility: PromptsLike | None = None,
    judge: str | Judge | None = None,
    limit: int = 64,
    questions: int = 64,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> Probes:
    """The probes given, completed by packaged test sets in the model's language; see `spillover`.

    Raises:
        InputError: an empty set, or limits below 1.
    """
    organism = speaks_organism(model)
    if lookalike is None:
        lookalike = (
            prompts.packaged("lookalike", split="test") if organism else prompts.packaged("english-lookalike")
        )
    lookalike = prompts.as_prompts(lookalike, what="lookalike")
    if len(lookalike) == 0:
        raise InputError(f"prompt set {lookalike.name!r} is empty")
    names = suites if suites is not None else default_suites(organism)
    ready = [one if isinstance(one, Suite) else Suite.packaged(one) for one in names]
    sampled = [_sample(one, questions, seed) for one in ready]
    base = shared_probes(
        model, harmful=harmful, harmless=harmless, suites=sampled, utility=utility, judge=judge,
        limit=limit, questions=questions, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    return Probes(
        base.harmful, base.harmless,
        lookalike.sample(limit, seed=seed) if len(lookalike) > limit else lookalike,
        base.suites, base.utility, judge, max_new_tokens,
    )  # fmt: skip


def default_suites(organism: bool) -> tuple[str | Suite, ...]:
    """Arithmetic, logic, code and facts: the organism's held-out questions, or plain English."""
    if organism:
        return ("addition", "subtraction", "logic", "code", "facts")
    return (capability.arithmetic(), "english-logic", "english-code", "english-facts")


def measure_side(model: ChatModel, probes: Probes) -> Side:
    """Every outcome of one model."""
    flags: dict[str, list[bool]] = {}
    room = probes.max_new_tokens
    harmful = refusal.evaluate(model, probes.harmful, judge=probes.judge, max_new_tokens=room)
    flags["refusal"] = [bool(flag) for flag in harmful.completions.refused]
    flags["broken text"] = [verdict.label == "degenerate" for verdict in harmful.completions.verdicts]
    for name, label in OVER.items():
        found = refusal.evaluate(model, getattr(probes, name), judge=probes.judge, max_new_tokens=room)
        flags[label] = [bool(flag) for flag in found.completions.refused]
    categories = {}
    for score in capability.evaluate(model, probes.suites).scores:
        flags[score.suite] = [bool(right) for right in score.correct]
        categories[score.suite] = list(score.categories)
    surprise = capability.perplexity(model, probes.utility)
    return Side(
        model.name, model.fingerprint, flags, categories, list(surprise.answer_nll),
        [int(count) for count in surprise.answer_tokens], probes.settings(),
    )  # fmt: skip


def _sample(suite: Suite, most: int, seed: int) -> Suite:
    if most < 1:
        raise InputError(f"questions is {most}; it must be at least 1")
    if len(suite.data) <= most:
        return suite
    return Suite(suite.name, suite.data.sample(most, seed=seed), suite.grader, suite.max_new_tokens)
