"""`Decoding`: everything that decides an answer besides the model and the prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from tamperlens.base.boundary import hold_fields, known_names
from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.kinds import Range
from tamperlens.base.results import Result
from tamperlens.prompts import DATE, ChatFormat
from tamperlens.prompts.templating import refuse_bad_date


class Settings(TypedDict, total=False):
    """The fields of `Decoding`, for functions that also take them as keywords."""

    max_new_tokens: int
    temperature: float
    seed: int
    system: str | None
    prefill: str | None
    thinking: bool
    thinking_budget: int | None
    date: str


WRITTEN = {name: "decoding_seed" if name == "seed" else name for name in Settings.__annotations__}
"""Name of each setting where settings of other things stand beside it, as in manifests and grid files."""


@dataclass(frozen=True)
class Decoding(Result):
    """How answers are made. Equal settings compare equal; answers are comparable only when they do.

    Examples:
        >>> Decoding(max_new_tokens=32) == Decoding(max_new_tokens=32, seed=5)  # greedy needs no seed
        True
        >>> Decoding(temperature=0.7).differences(Decoding(temperature=0.7, seed=1))
        ['seed: 0 against 1']

    Attributes:
        max_new_tokens: answers are cut there, the thought included unless it has a budget of its own; 0 for
            answers that were given and whose length limit is not known.
        temperature: 0 for greedy.
        seed: of the sampling; the same prompt at the same index gives the same sample. Set to 0 for greedy,
            which needs none.
        system: system prompt, or None.
        prefill: beginning that is put into the assistant's mouth, or None.
        chat_format: how prompts were written for the model, filled in by the functions that ask it; "" when
            not known.
        thinking: whether the model thinks before it answers, where its chat template knows that. Off by
            default, so that the answer follows the prompt at once.
        thinking_budget: tokens after which a thought is ended by force, so that an answer comes; None for no
            such end.
        date: the day that chat templates are told it is, the same on every day.

    Raises:
        InputError: a negative or fractional count, a temperature that is not a number from 0 up, a budget
            without thinking, or a date that is none.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    system: str | None = None
    prefill: str | None = None
    chat_format: str = ""
    thinking: bool = False
    thinking_budget: int | None = None
    date: str = DATE

    def __post_init__(self) -> None:
        hold_fields(self, seed=Range(-(2**63), 2**63 - 1))
        budget = self.thinking_budget
        if budget is not None and not self.thinking:
            raise InputError("a thinking_budget without thinking; set thinking=True or leave it out")
        refuse_bad_date(self.date)
        # One spelling of each setting, so that equal ones compare equal.
        object.__setattr__(self, "seed", self.seed if self.temperature > 0 else 0)
        object.__setattr__(self, "system", self.system or None)
        object.__setattr__(self, "prefill", self.prefill or None)

    @classmethod
    def of(cls, decoding: Decoding | None, settings: Settings, *, max_new_tokens: int = 64) -> Decoding:
        """The given decoding, or the default one of that length, with some settings changed.

        Raises:
            InputError: a setting that does not exist, or a value that cannot be used.
        """
        known_names(cls, settings, "decoding")
        if decoding is not None and not isinstance(decoding, Decoding):
            raise InputError(
                f"decoding is a {type(decoding).__name__}; pass Decoding(...), or settings by name"
            )
        start = cls(max_new_tokens) if decoding is None else decoding
        return dataclasses.replace(start, **settings)

    @classmethod
    def among(cls, values: Mapping[str, object]) -> Decoding:
        """The decoding whose settings stand among others, as `changed` wrote them; the rest is default."""
        given: Any = {name: values[key] for name, key in WRITTEN.items() if key in values}
        return cls(**given)

    def summary(self) -> str:
        """The settings in words: "greedy, at most 64 new tokens"."""
        how = "greedy" if self.temperature == 0 else f"sampled at temperature {self.temperature:g}"
        words = [how, f"at most {self.max_new_tokens} new tokens"] if self.max_new_tokens else [how]
        if self.thinking:
            words.append(
                f"thinking{f' of at most {self.thinking_budget} tokens' if self.thinking_budget else ''}"
            )
        for what, text in (("system prompt", self.system), ("prefill", self.prefill)):
            words += [f"{what} {text!r}"] if text else []
        return ", ".join(words)

    def changed(self) -> dict[str, object]:
        """The length, and the settings that are not the default ones, in plain values, to stand "
        "among others."""
        mine, plain = vars(self), vars(Decoding())
        kept = [name for name in WRITTEN if name == "max_new_tokens" or mine[name] != plain[name]]
        return {WRITTEN[name]: mine[name] for name in kept}

    def written(self, fmt: ChatFormat) -> Decoding:
        """These settings with the chat format that they were used with."""
        return dataclasses.replace(self, chat_format=fmt.name)

    def differences(self, other: Decoding) -> list[str]:
        """One "setting: this against that" per setting that differs (unknown length limits do not)."""
        unknown = {"max_new_tokens"} if 0 in (self.max_new_tokens, other.max_new_tokens) else set()
        return [
            f"{field.name}: {mine!r} against {theirs!r}"
            for field in dataclasses.fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
            and field.name not in unknown
        ]


old_length = renamed_arguments(max_new_tokens=("decoding", Decoding))
"""Decorator of studies that took `max_new_tokens` before they took a whole `Decoding`."""

DEFAULT = Decoding()
GIVEN = Decoding(max_new_tokens=0)
"""What is stored with answers that were given and about whose making nothing is known."""
