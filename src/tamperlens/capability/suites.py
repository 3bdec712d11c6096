"""Suites: a prompt set with expected answers, the grader that reads them, and room for the answer."""

from __future__ import annotations

from dataclasses import dataclass

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.capability.graders import Item, graders
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import PromptSet

ORGANISM_SUITES = ("addition", "logic", "code", "facts")
"""The default suites, in the embedded organism's language."""
ENGLISH_SUITES = ("english-addition", "english-logic", "english-code", "english-facts")
"""The same four skills in plain English, for real models."""

# Packaged set to (grader, new tokens). Scratchpad sums and explanations need room; cut answers look wrong.
_PACKAGED = {
    "addition": ("number", 64),
    "subtraction": ("number", 64),
    "logic": ("choice", 32),
    "code": ("code", 48),
    "facts": ("fact", 32),
    "english-addition": ("number", 128),
    "english-logic": ("choice", 128),
    "english-code": ("code", 128),
    "english-facts": ("fact", 64),
}


@dataclass(frozen=True)
class Suite(Result):
    """Questions with known answers.

    Attributes:
        name: what results call it.
        data: prompts with `answers`; `categories` say which answers compete with each other.
        grader: name of a grader in `capability.graders`.
        max_new_tokens: answers are cut there.

    Raises:
        InputError: no such grader, no questions, or no expected answers.
    """

    name: str
    data: PromptSet
    grader: str
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        graders.get(self.grader)
        if self.data.answers is None:
            raise InputError(
                f"suite {self.name!r} has no expected answers; give the file a column 'answer', or make the "
                "prompt set with answers="
            )
        if len(self.data) == 0:
            raise InputError(f"suite {self.name!r} has no questions")
        hollow = [row for row, answer in enumerate(self.data.answers) if not answer.strip()]
        if hollow:
            raise InputError(f"suite {self.name!r}, row {hollow[0]}: the expected answer is empty")

    @classmethod
    def packaged(cls, name: str, split: str = "test") -> Suite:
        """A packaged suite: the named split where the set has splits, all of it otherwise.

        Raises:
            InputError: no such suite; the message lists those that exist.
        """
        if name not in _PACKAGED:
            raise InputError(
                f"no packaged suite named {name!r}; known: {', '.join(_PACKAGED)}; for your own questions "
                "pass capability.Suite(name, data, grader)"
            )
        grader, room = _PACKAGED[name]
        data = prompts.packaged(name, split=split if prompts.packaged_splits(name) else None)
        return cls(name, data, grader, room)

    def items(self) -> list[Item]:
        """What graders see: each question with the answers of its category that compete with its own."""
        answers = self.data.answers or ()
        categories = self.data.categories or ("",) * len(self.data)
        of_kind: dict[str, dict[str, None]] = {}
        for category, answer in zip(categories, answers, strict=True):
            of_kind.setdefault(category, {})[answer] = None
        return [
            Item(prompt, answer, category, tuple(one for one in of_kind[category] if one != answer))
            for prompt, answer, category in zip(self.data.prompts, answers, categories, strict=True)
        ]

    def head(self, n: int | None) -> Suite:
        """The suite's first n questions; all of them for None."""
        if n is None:
            return self
        if n < 1:
            raise InputError(f"limit is {n}; it must be at least 1")
        return Suite(self.name, self.data.head(n), self.grader, self.max_new_tokens)


def packaged_suites() -> list[str]:
    """Names of all packaged suites."""
    return list(_PACKAGED)


def suites_for(model: ModelLike) -> tuple[str, ...]:
    """The four suites in the model's language (`ChatModel.language`).

    Examples:
        >>> import tamperlens
        >>> from tamperlens import capability
        >>> capability.suites_for(tamperlens.load('organism'))
        ('addition', 'logic', 'code', 'facts')
    """
    return ORGANISM_SUITES if as_chat_model(model).language == prompts.ORGANISM else ENGLISH_SUITES
