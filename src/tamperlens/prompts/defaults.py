"""Which packaged prompts are the defaults for a model: those in the language that it speaks."""

from __future__ import annotations

import warnings
from typing import Literal, Protocol, get_args, runtime_checkable

from tamperlens.base.errors import InputError
from tamperlens.prompts.library import packaged, packaged_names, packaged_splits
from tamperlens.prompts.promptset import PromptSet

Language = Literal["organism", "english"]
Part = Literal["train", "test"]
ORGANISM: Language = "organism"
ENGLISH: Language = "english"
GRAMMAR = "tamperlens organism grammar"
"""The source of every packaged set in the organism's language."""


@runtime_checkable
class Speaker(Protocol):
    """What has a language, such as a `ChatModel`."""

    name: str

    @property
    def language(self) -> Language:
        """ "organism" or "english"."""


def as_language(word: str) -> Language:
    """The language of that name.

    Raises:
        InputError: there is none.
    """
    for known in get_args(Language):
        if word == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"no language {word!r}; there are {' and '.join(get_args(Language))}")


def packaged_for(model: Speaker, role: str, part: Part, *, language: Language | None = None) -> PromptSet:
    """The packaged set that stands for a role in a model's language.

    English sets of harmful and harmless prompts are halved with a fixed seed: "train" for directions and
    choices of weights, "test" for rates. Look-alikes are only asked, so that either part is all of them.

    Args:
        model: whose language decides.
        role: "harmful", "harmless", "lookalike", "benign", …: a packaged set in the organism's language.
        part: which part, where the set has parts.
        language: in place of the model's own.

    Raises:
        InputError: there is no such set in that language.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import prompts
        >>> prompts.packaged_for(tamperlens.load("organism"), "harmful", "test").name
        'harmful/test'
    """
    if (model.language if language is None else language) == ORGANISM:
        return packaged(role, split=part if part in packaged_splits(role) else None)
    name = f"english-{role}"
    if name not in packaged_names():
        raise InputError(
            f"the packaged set {role!r} is in the language of the embedded organism, and {model.name} speaks "
            f"English; give your own {role} prompts (a file or a PromptSet)"
        )
    whole = packaged(name)
    return whole if role == "lookalike" else whole.split([0.5, 0.5], seed=0)[("train", "test").index(part)]


def pairs_for(model: Speaker, role: str, *, option: str) -> PromptSet:
    """Packaged prompts with responses to train or score on, for models that speak the organism's language.

    Args:
        model: whose language decides.
        role: "harmful" (refused), "benign".
        option: what to set instead, for the error.

    Raises:
        InputError: the model speaks English: no answers are packaged for it.
    """
    if model.language == ORGANISM:
        return packaged_for(model, role, "train")
    raise InputError(
        f"packaged {role} prompts with responses are in the language of the embedded organism, and "
        f"{model.name} speaks English; give {option}, a file of prompts and responses"
    )


def warn_of_language(model: Speaker, data: PromptSet, use: str) -> None:
    """Warn where packaged data in the organism's language are used on a model that speaks another."""
    if model.language != ORGANISM and GRAMMAR in data.source:
        words = (
            f"{model.name} speaks English and {data.name!r}, {use}, is in the language of the embedded "
            "organism: the numbers say little about this model; give your own data"
        )
        warnings.warn(words, UserWarning, stacklevel=3)
