"""Conversations as data sets write them: which message is the prompt, what came before it, and the answer."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tamperlens.prompts.prompt import Message, with_context

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
LONGEST = 500_000  # characters of one text; more than any model here reads, and tokenizers slow down
_ROLE_KEYS, _TEXT_KEYS = ("role", "from", "speaker"), ("content", "value", "text", "parts", "message")


class UnusableRow(ValueError):
    """A row that cannot become a prompt; the message says why, the caller knows where."""


def is_conversation(value: object) -> bool:
    """Whether a cell holds messages: a list of objects with a role, or one such object."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return bool(parts) and all(
        isinstance(one, Mapping) and any(key in one for key in (*_ROLE_KEYS, *ROLES)) for one in parts
    )


def messages(value: Any) -> list[Message]:
    """The (role, text) messages of a cell, roles in our three words.

    Understood: OpenAI's `role`/`content`, ShareGPT's `from`/`value`, content as a list of text parts, a
    list of one string (a single user turn), the same as JSON inside a CSV cell.

    Raises:
        UnusableRow: no messages, an unknown role, or content that is not text.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if hasattr(value, "tolist"):  # an array, as Parquet readers make it
        value = value.tolist()
    if isinstance(value, Mapping):
        value = value["messages"] if isinstance(value.get("messages"), (list, tuple)) else [value]
    if not isinstance(value, (list, tuple)) or not len(value):
        raise UnusableRow("holds no messages")
    if all(isinstance(one, str) for one in value):
        if len(value) > 1:
            raise UnusableRow(f"has {len(value)} turns of the user and no answers between them")
        return [("user", value[0])]
    found: list[Message] = []
    for one in value:
        if not isinstance(one, Mapping):
            raise UnusableRow(f"has a {type(one).__name__} where a message should be")
        key = next((key for key in _ROLE_KEYS if one.get(key) is not None), None)
        said = [(one[key], _content(one))] if key else [(k, v) for k, v in one.items() if k in ROLES and v]
        if not said:
            raise UnusableRow(f"has a message without a role (keys: {', '.join(map(str, one))})")
        for role, text in said:
            known = ROLES.get(str(role).lower())
            if known is None:
                raise UnusableRow(f"has a message of the role {str(role)!r:.40}")
            found.append((known, plain(text)))
    return found


def split(found: Sequence[Message]) -> tuple[str, str | None]:
    """(prompt with what came before it, the last answer or None) of a conversation.

    Raises:
        UnusableRow: no user message, or turns that do not alternate.
    """
    systems = [text for role, text in found if role == "system"]
    rest = list(found[len(systems) :])
    wanted = ["user", "assistant"] * (len(rest) // 2 + 1)
    if not rest or [role for role, _ in rest] != wanted[: len(rest)]:
        roles = ", ".join(role for role, _ in found) or "none"
        raise UnusableRow(f"is not a conversation of user and assistant in turn (roles: {roles:.120})")
    answer = rest.pop()[1] if rest[-1][0] == "assistant" else None
    before = [("system", "\n\n".join(systems))] if any(text.strip() for text in systems) else []
    return with_context(rest[-1][1], [*before, *rest[:-1]]), answer


def answer_text(value: Any) -> str:
    """A response cell: text, a number, or one assistant message.

    Raises:
        UnusableRow: several messages, another role, or content that is not text.
    """
    if not isinstance(value, (list, tuple, Mapping)):
        return "" if value is None else str(value)
    found = messages(value)
    if [role for role, _ in found] != ["assistant"]:
        raise UnusableRow(f"has a response of the roles {', '.join(role for role, _ in found)}")
    return found[0][1]


def earlier(value: Any) -> list[Message]:
    """A history cell: messages, or [question, answer] pairs.

    Raises:
        UnusableRow: neither.
    """
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else []
    if value is None or not len(value):
        return []
    pairs = [one for one in value if isinstance(one, (list, tuple)) and len(one) == 2]
    if len(pairs) == len(value):
        return [
            (role, plain(text))
            for one in pairs
            for role, text in zip(("user", "assistant"), one, strict=True)
        ]
    return messages(value)


def plain(value: Any) -> str:
    """The text of a message's content.

    Raises:
        UnusableRow: there is none, or a part is something else (a picture, say).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise UnusableRow(
            f"has a message whose content is {'missing' if value is None else repr(value)[:40]}"
        )
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            kind = part.get("type", "object") if isinstance(part, Mapping) else type(part).__name__
            raise UnusableRow(f"has a message with a content part that is no text ({kind!s:.40})")
        texts.append(text)
    return "".join(texts)


def _content(message: Mapping[str, Any]) -> Any:
    return next((message[key] for key in _TEXT_KEYS if message.get(key) is not None), None)


def _parsed(text: str) -> Any:
    """Messages that stand as text in a table's cell: JSON, or what Python prints."""
    if len(text) > LONGEST:
        raise UnusableRow(f"has a conversation of {len(text):,} characters; at most {LONGEST:,} are read")
    for reader in (json.loads, ast.literal_eval):
        try:
            value = reader(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, (list, tuple, dict)):
            return value
    raise UnusableRow("holds text that is no list of messages")
