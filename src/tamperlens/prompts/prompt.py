"""`Prompt`: what a user says last, with the conversation that came before it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tamperlens.base.errors import InputError

Message = tuple[str, str]


class Prompt(str):
    """The user's last message, which knows the messages before it.

    It is the text itself wherever text is wanted (tables, judges, reports), and equal to it; every function
    that writes a prompt for a model (`render`, `encode_pair`, `ChatModel.generate`, ...) writes the whole
    conversation. `content` tells two conversations apart that end in the same words.

        >>> Prompt("And in French?", [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")]).system
        'Be brief.'

    Attributes:
        context: (role, text) of the messages before, in order; roles are "system" (only first), "user" and
            "assistant".
    """

    context: tuple[Message, ...]

    def __new__(cls, text: str, context: Iterable[Message] = ()) -> Prompt:
        """A prompt after the messages of `context`.

        Raises:
            InputError: roles that are none, or not in this order.
        """
        made = super().__new__(cls, text)
        made.context = tuple((str(role), str(said)) for role, said in context)
        roles = [role for role, _ in made.context]
        turns = roles[roles[:1] == ["system"] :]
        if turns != ["user", "assistant"] * (len(turns) // 2):
            raise InputError(
                f"the messages before {text!r:.60} are of the roles {', '.join(roles)!s:.120}; give an "
                "optional system message, then user and assistant in turn"
            )
        return made

    @property
    def system(self) -> str | None:
        """The system message of the conversation, or None."""
        return self.context[0][1] if self.context and self.context[0][0] == "system" else None

    @property
    def history(self) -> tuple[Message, ...]:
        """The user's and assistant's earlier messages."""
        return self.context if self.system is None else self.context[1:]

    def __getnewargs__(self) -> Any:
        return str(self), self.context


def context_of(prompt: object) -> tuple[Message, ...]:
    """The messages before a prompt; none for plain text."""
    return prompt.context if isinstance(prompt, Prompt) else ()


def with_context(prompt: str, context: Iterable[Message]) -> str:
    """A prompt after these messages, as plain text when there are none."""
    before = tuple(context)
    return Prompt(prompt, before) if before else str(prompt)


def content(prompt: str) -> bytes:
    """What a hash of prompts covers, and what makes two prompts the same: the text, and the conversation
    before it where there is one.
    """
    before = context_of(prompt)
    text = str(prompt).encode("utf-8", "surrogatepass")
    return text + b"\0" + json.dumps(before).encode() if before else text
