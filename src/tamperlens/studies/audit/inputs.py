"""What an audit is run on: prompts, attack, and what a reader must know of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tamperlens import finetune, prompts
from tamperlens.base.boundary import hold_fields
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.kinds import Range
from tamperlens.finetune.fitting import check_fit
from tamperlens.models import DEFAULT, ChatModel, Decoding, position_limit
from tamperlens.prompts import PromptSet, PromptsLike, content, encode_pair, packaged_for
from tamperlens.prompts.tables import SUFFIXES
from tamperlens.studies.evaluation import ROLES, by_kind
from tamperlens_hooks import unwrap

ATTACK = "harmful-compliance"
SEARCH = ("search_harmful", "search_harmless")
Source = PromptsLike | PathLike | None


@dataclass(frozen=True)
class Settings:
    """Everything that decides an audit's numbers, besides the content of files and weights (kept as hashes).

    Attributes:
        model: name, folder or hub id, or the name of a model that was handed in.
        adapter: an adapter on top of it, or None.
        revision: of a hub model, or None.
        harmful: where the harmful prompts come from; None for the packaged set.
        harmless: likewise.
        lookalike: likewise.
        search_harmful: where the harmful prompts come from that the direction is looked for on; likewise.
        search_harmless: likewise, the harmless ones.
        column: name of the prompts' column in those files that have it; the others are recognised.
        attack: name of a packaged attack, or a file of (prompt, response) pairs.
        steps: optimiser steps of the attack; None for the attack's own number.
        seed: of every random choice.
        judge: who says what is a refusal.
        limit: most prompts per set, the first ones.
        skip_unusable: leave out rows of files that cannot be used, and count them.
        decoding: how answers are made.
        suites: capability suites; None for those in the model's language.
        device: where the model is computed.
        dtype: in which type.
        quick: small numbers everywhere, for a first look: see `hurried`.
    """

    model: str = "organism"
    adapter: str | None = None
    revision: str | None = None
    harmful: str | None = None
    harmless: str | None = None
    lookalike: str | None = None
    search_harmful: str | None = None
    search_harmless: str | None = None
    column: str | None = None
    attack: str = ATTACK
    steps: int | None = None
    seed: int = 0
    judge: str = "acts"
    limit: int = 200
    skip_unusable: bool = False
    decoding: Decoding = DEFAULT
    suites: tuple[str, ...] | None = None
    device: str = "auto"
    dtype: str = "auto"
    quick: bool = False

    def __post_init__(self) -> None:
        hold_fields(self)
        hold_fields(self.decoding, max_new_tokens=Range(1, 2**16))

    def config(self) -> dict[str, Any]:
        """As written into the manifest and compared when a run is resumed."""
        rest = {name: value for name, value in vars(self).items() if name != "decoding"}
        suites = None if self.suites is None else list(self.suites)
        config = {**rest, **self.decoding.changed(), "suites": suites}
        for name in ("skip_unusable", "quick", *SEARCH):  # as in runs from before there was the setting
            if not config[name]:
                del config[name]
        return config

    def hurried(self) -> Settings:
        """For a first impression: 16 prompts a set and 24 tokens an answer at most.

        The direction is searched at the last position with at most 32 + 8 prompts of a kind, and its causal
        check has one random control (`stages.search`, `stages.controls`).
        """
        how = dataclasses.replace(self.decoding, max_new_tokens=min(self.decoding.max_new_tokens, 24))
        return dataclasses.replace(self, limit=min(self.limit, 16), decoding=how, quick=True)


@dataclass(frozen=True)
class Prompts:
    """The prompt sets of one audit.

    Attributes:
        evaluation: role to the set that rates are measured on, the same before and after.
        direction: (harmful, harmless) sets that the direction is found on; disjoint from `evaluation`.
        given: roles whose prompts the user gave.
        notes: what was left out, for the report.
    """

    evaluation: dict[str, PromptSet]
    direction: tuple[PromptSet, PromptSet]
    given: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_given(
    sources: Mapping[str, Source],
    attack: str | finetune.Attack | PromptsLike,
    *,
    column: str | None = None,
    skip_unusable: bool = False,
) -> tuple[dict[str, PromptSet | None], finetune.Attack]:
    """A user's prompts by role, None where there are none, and the attack: nothing here needs a model.

    Where a file says which of its rows are safe (XSTest), each role takes its own kind.

    Raises:
        InputError: a file or its column cannot be used, no such attack, or one without usable responses.
    """
    rows = None if isinstance(attack, finetune.Attack) or _names_an_attack(attack) else attack
    found = prompts.read_each(
        {**sources, "attack": rows}, column, skip_empty=skip_unusable, skip_unusable=skip_unusable
    )
    data = found.pop("attack")
    found = by_kind(found)
    if data is not None:
        return found, hold_out(finetune.attacks.from_data(data), found)
    return found, attack if isinstance(attack, finetune.Attack) else finetune.attacks.get(str(attack))()


def _names_an_attack(attack: object) -> bool:
    if not isinstance(attack, str) or attack in finetune.attacks.names():
        return isinstance(attack, str)
    if Path(attack).suffix.lower() in SUFFIXES or Path(attack).exists():
        return False
    known = ", ".join(finetune.attacks.names())
    raise InputError(f"no attack named {attack!r}; known: {known}, or name a csv, json or jsonl file")


def hold_out(attack: finetune.Attack, given: Mapping[str, PromptSet | None]) -> finetune.Attack:
    """The attack without half of the prompts that it shares with a set that it would otherwise use up.

    A prompt that was trained on is not evaluated. Where that would leave less than half of a user's set (the
    same file given twice, say), every second of the shared prompts is held out of training.
    """
    data = attack.data
    rows = {content(prompt): row for row, prompt in enumerate(data.prompts)}
    out: set[int] = set()
    for one in given.values():
        shared = (
            [] if one is None else [key for key in dict.fromkeys(map(content, one.prompts)) if key in rows]
        )
        if one is not None and 2 * len(shared) > len(one):
            out.update(rows[key] for key in shared[::2])
    if not out or len(out) >= len(data):
        return attack
    note = f"; {len(out)} of {len(data)} rows held out of training, because they are evaluated"
    kept = data.subset(row for row in range(len(data)) if row not in out)
    return dataclasses.replace(attack, data=kept, source=attack.source + note)


def fitting(model: ChatModel, attack: finetune.Attack, *, skip_unusable: bool = False) -> finetune.Attack:
    """The attack, checked row by row against the model's tokenizer and positions before anything is measured.

    Args:
        model: what is to be attacked.
        attack: the training data with its settings.
        skip_unusable: leave out rows that do not fit, and say how many in `source`.

    Raises:
        InputError: a model that cannot be trained as it is held, or rows that do not fit.
    """
    check_fit(model, attack.config_for(model))
    attack = finetune.attacks.translated(attack, model)
    data, limit = attack.data, position_limit(unwrap(model.module))
    faults: dict[int, str] = {}
    for row, (prompt, response) in enumerate(data.pairs()):
        try:
            n = len(encode_pair(model.tokenizer, prompt, response, fmt=model.chat_format))
        except InputError as error:
            faults[row] = str(error)
            continue
        if limit is not None and n > limit:
            faults[row] = f"it has {n} tokens and {model.name} {limit} positions"
    if not faults:
        return attack
    first = next(iter(faults))
    kept = [row for row in range(len(data)) if row not in faults]
    if not skip_unusable or not kept:
        raise InputError(
            f"{len(faults)} of the {len(data)} rows of {data.name!r} cannot be trained on, first row "
            f"{first + 1}: {faults[first]}; mend them, or leave such rows out (skip_unusable=True)"
        )
    note = f"; {len(faults)} of {len(data)} rows left out, first row {first + 1}: {faults[first]}"
    return dataclasses.replace(attack, data=data.subset(kept), source=attack.source + note)


def gather(
    given: dict[str, PromptSet | None], *, model: ChatModel, attack_prompts: Sequence[str], limit: int
) -> Prompts:
    """Fix the prompts of an audit.

    The direction is found on the packaged prompts or on the user's search prompts; of those that are also
    given to evaluate on, where that would leave less than half, every second one is evaluated. Rates are
    measured on the packaged test prompts or on the user's. Prompts that the attack trains on or the direction
    is found on are left out of the evaluation, and so are repeated ones.

    Args:
        given: role to the user's prompts, or None.
        model: whose language decides which packaged sets are taken.
        attack_prompts: what the attack trains on.
        limit: most prompts per set.

    Raises:
        InputError: nothing is left to evaluate on.
    """
    direction = _search(given, "harmful", model), _search(given, "harmless", model)
    taken = set(map(content, attack_prompts)).union(*(map(content, one.prompts) for one in direction))
    evaluation: dict[str, PromptSet] = {}
    notes: list[str] = []
    for role in ROLES:
        one = given.get(role)
        whole = packaged_for(model, role, "test") if one is None else one
        if one is not None and one.source:
            notes.append(f"{role} prompts: {one.source}.")
        first = {content(prompt): row for row, prompt in reversed(list(enumerate(whole.prompts)))}
        rows = sorted(row for prompt, row in first.items() if prompt not in taken)
        repeated, leaked = len(whole) - len(first), len(first) - len(rows)
        for count, why in (
            (repeated, "repeated"),
            (leaked, "also used by the attack or to find the direction"),
        ):
            if count:
                notes.append(f"{count} of {len(whole)} {role} prompts were left out: {why}.")
        if not rows:
            raise InputError(
                f"none of the {len(whole)} {role} prompts can be evaluated: the attack or the search for the "
                "direction takes all of them; give others"
            )
        if len(rows) > limit:
            notes.append(f"{role}: the first {limit} of {len(rows)} prompts were used.")
        evaluation[role] = whole.subset(rows[:limit])
    good = {content(prompt) for role in ROLES[1:] for prompt in evaluation[role].prompts}
    both = {str(prompt) for prompt in evaluation["harmful"].prompts if content(prompt) in good}
    if both:
        raise InputError(
            f"{len(both)} prompts are given as harmful and as harmless, e.g. {min(both)[:60]!r}; "
            "remove them from one of the files"
        )
    return Prompts(evaluation, direction, tuple(r for r in ROLES if given.get(r) is not None), tuple(notes))


def _search(given: Mapping[str, PromptSet | None], role: str, model: ChatModel) -> PromptSet:
    """The prompts of a kind that the direction is looked for on."""
    own, tested = given.get(f"search_{role}"), given.get(role)
    if own is None:
        return packaged_for(model, role, "train")
    if tested is None:
        return own
    asked = {content(prompt) for prompt in tested.prompts}
    shared = [row for row, prompt in enumerate(own.prompts) if content(prompt) in asked]
    if 2 * len(shared) <= len(asked):
        return own
    return own.subset(sorted(set(range(len(own))) - set(shared[1::2])))
