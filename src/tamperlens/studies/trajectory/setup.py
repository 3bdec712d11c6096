"""`Setup`: the fixed prompts, direction and tokens by which every step of every seed is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tamperlens import refusal
from tamperlens.base.deprecation import renamed_arguments, warn
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, sha256_bytes
from tamperlens.base.masks import WeightMask
from tamperlens.base.protocols import Judge
from tamperlens.models import ChatModel, Decoding, old_length
from tamperlens.prompts import ORGANISM, PromptsLike, packaged_for
from tamperlens.refusal import Direction
from tamperlens.studies.evaluation import EvalPrompts

CHEAP = ("drift", "direction", "log-odds", "kl", "loss", "heads")
SAMPLED = ("rates", "rd", "capability")
MEASURES = (*CHEAP, *SAMPLED)


@dataclass(frozen=True)
class Setup:
    """What is measured, on what.

    Attributes:
        asked: fixed prompts, questions and judge; held out from training and from finding the direction.
        direction: the base's refusal direction; its layer and position stay.
        tokens: ids that open refusals.
        measures: some of `MEASURES`.
        groups: named weights whose drift is followed, besides all weights.
        answer_tokens: first answer tokens of the per-token KL.
        head_prompts: harmful prompts that heads are scored on.
        draws: bootstrap resamples of prompts; the same ones for every step, measure and seed.
        seed: of the resamples.
    """

    asked: EvalPrompts
    direction: Direction
    tokens: tuple[int, ...]
    measures: tuple[str, ...] = MEASURES
    groups: Mapping[str, WeightMask] | None = None
    answer_tokens: int = 4
    head_prompts: int = 8
    draws: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.measures if name not in MEASURES]
        if unknown or not self.measures:
            raise InputError(f"no measure {', '.join(unknown) or 'given'}; there are {', '.join(MEASURES)}")
        if not self.direction.defined:
            raise InputError(f"the direction of {self.direction.model!r} is undefined: {self.direction.flag}")
        if min(len(self.asked.harmful), len(self.asked.harmless)) < 8:
            raise InputError("a trajectory needs at least 8 harmful and 8 harmless prompts for its null band")
        if self.draws < 2 or self.answer_tokens < 1 or self.head_prompts < 2:
            raise InputError("draws and head_prompts must be at least 2 and answer_tokens at least 1")

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the numbers; a folder belongs to one setup."""
        masks = [f"{name} {mask.definition} {mask.count}" for name, mask in (self.groups or {}).items()]
        words = [
            str(self.asked.settings()), self.direction.fingerprint,
            self.direction.vector.numpy().tobytes().hex(),
            f"{self.direction.layer} {self.direction.position} {self.tokens} {self.measures} {masks}",
            f"{self.answer_tokens} {self.head_prompts} {self.draws} {self.seed}",
        ]  # fmt: skip
        return sha256_bytes(*(word.encode() for word in words))


def measures_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of measures; all for None. "loss" was called "nats"."""
    named = tuple(MEASURES if given is None else given)
    if "nats" in named:
        warn('measures="nats"', '"loss"')
    return tuple("loss" if name == "nats" else name for name in named)


@renamed_arguments(n="limit")
@old_length
def setup_for(
    model: ChatModel,
    *,
    harmful: PromptsLike | None = None,
    harmless: PromptsLike | None = None,
    lookalike: PromptsLike | None = None,
    direction: Direction | PathLike | None = None,
    measures: Sequence[str] | None = None,
    groups: Mapping[str, WeightMask] | None = None,
    judge: str | Judge | None = None,
    limit: int = 16,
    questions: int = 4,
    decoding: Decoding | None = None,
    n_train: int = 64,
    n_val: int = 16,
    progress: bool = False,
    **settings: object,
) -> Setup:
    """A setup for a base model, completed by packaged sets in its language.

    Args:
        model: the untouched model.
        harmful: prompts that should be refused; the packaged test prompts by default.
        harmless: prompts that should be answered; likewise.
        lookalike: harmless prompts that sound harmful; likewise.
        direction: the base's refusal direction, or the file of one (`Direction.save`); found on packaged
            training prompts by default.
        measures: some of `MEASURES`; all by default.
        groups: see `drift.groups`.
        judge: of generated answers.
        limit: most prompts per set, a seeded sample.
        questions: per capability suite.
        decoding: of generated answers; at most 24 tokens by default.
        n_train: prompts per kind for the means, where the direction is to be found.
        n_val: prompts per kind for its choice.
        progress: show how far that is.
        settings: further fields of `Setup`.

    Raises:
        InputError: an unknown measure, too few prompts, no usable direction.
    """
    # The organism adds on a scratchpad, which would double the length of all answers.
    wanted = measures_of(measures)
    suites = ("logic", "code", "facts") if model.language == ORGANISM else None
    asked = EvalPrompts.for_model(
        model, harmful=harmful, harmless=harmless, lookalike=lookalike, suites=suites, judge=judge,
        limit=limit, questions=questions, decoding=Decoding.of(decoding, {}, max_new_tokens=24), loss=False,
    )  # fmt: skip
    if direction is None:
        direction = direction_for(model, n_train, n_val, progress)
    found = direction if isinstance(direction, Direction) else Direction.load(direction)
    given: Any = settings
    return Setup(asked, found, tokens_for(model, found), wanted, groups, **given)


def direction_for(
    model: ChatModel, most_train: int = 32, most_val: int = 8, progress: bool = False
) -> Direction:
    """The refusal direction, found on packaged training prompts, at most so many a kind."""
    bad, good = (packaged_for(model, role, "train") for role in ("harmful", "harmless"))
    n_train, n_val = refusal.split_sizes(len(set(bad.prompts)), len(set(good.prompts)))
    n_train, n_val = min(n_train, most_train), min(n_val, most_val)
    return refusal.find_direction(model, bad, good, n_train=n_train, n_val=n_val, progress=progress)


def tokens_for(model: ChatModel, direction: Direction) -> tuple[int, ...]:
    """Ids that open a model's refusals: the direction's own, or found on packaged prompts."""
    if direction.tokens is not None:
        return direction.tokens.ids
    bad, good = (packaged_for(model, role, "train") for role in ("harmful", "harmless"))
    return refusal.find_refusal_tokens(model, bad.prompts, good.prompts).ids
