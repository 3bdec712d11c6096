"""Conversations as data sets write them: which message is the prompt, what came before it, and the answer."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tamperlens.prompts.prompt import Message, with_context
from tamperlens.prompts.thoughts import Reply

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
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
# Conversations that are one text: Anthropic's HH-RLHF and its like, and Guanaco.
_MARKS = (
    re.compile(r"(?:\A\s*|\n\n)(Human|Assistant|System):[ ]?"),
    re.compile(r"(?:\A\s*|\s*)###[ ]?(Human|Assistant|System):[ ]?"),
)
_TEMPLATED = re.compile(r"<\|im_start\|>|\[INST\]|<start_of_turn>|<\|start_header_id\|>|<\|(?:user|turn)\|?>")


class UnusableRow(ValueError):
    """A row that cannot become a prompt; the message says why, the caller knows where."""


def is_conversation(value: object) -> bool:
    """Whether a cell holds messages: a list of objects with a role, or one such object."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return bool(parts) and all(
        isinstance(one, Mapping) and any(key in one for key in (*_ROLE_KEYS, *ROLES)) for one in parts
    )


def written_out(cells: Sequence[object]) -> re.Pattern[str] | None:
    """The marks of turns, where every cell is a conversation written as one text ("Human: … Assistant: …").

    One that merely quotes such marks among others that do not is a prompt.
    """
    for marks in _MARKS:
        if all(
            isinstance(one, str) and marks.match(one) and "Assistant" in marks.findall(one) for one in cells
        ):
            return marks
    return None


def turns(text: str, marks: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(who, text) of a conversation that is written as one text; an answer not yet begun is left out."""
    _, *parts = marks.split(text)
    for who, said in zip(parts[::2], map(str.strip, parts[1::2]), strict=True):
        if said or who != "Assistant":
            yield who, said


def templated(cells: Sequence[object]) -> str | None:
    """The mark of a chat template that every cell holds, or None."""
    found = [_TEMPLATED.search(one) if isinstance(one, str) else None for one in cells]
    return found[0][0] if found and found[0] and all(found) else None


def messages(value: Any, *, alternating: bool = True) -> list[Message]:
    """The (role, text) messages of a cell, roles in our three words.

    Understood: OpenAI's `role`/`content`, ShareGPT's `from`/`value`, content as a list of text parts, a
    list of one string (a single user turn) or of several (user and assistant in turn, unless not
    `alternating`), an object of lists, the same as JSON inside a CSV cell. A thought beside the last answer
    is written before it.

    Raises:
        UnusableRow: no messages, an unknown role, content that is not text, a call of a tool, or a last
            answer that is marked as not to be learned.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("messages"), (list, tuple)):
            value = value["messages"]
        elif all(isinstance(one, list) for one in value.values()) and len({*map(len, value.values())}) == 1:
            value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        else:
            value = [value]
    if not isinstance(value, (list, tuple)) or not len(value):
        raise UnusableRow("holds no messages")
    if all(isinstance(one, str) for one in value):
        if len(value) > 1 and not alternating:
            raise UnusableRow(f"has {len(value)} turns of the user and no answers between them")
        return [(("user", "assistant")[place % 2], text) for place, text in enumerate(value)]
    found: list[Message] = []
    for one in value:
        if not isinstance(one, Mapping):
            raise UnusableRow(f"has a {type(one).__name__} where a message should be")
        key = next((key for key in _ROLE_KEYS if one.get(key) is not None), None)
        said = [(one[key], _content(one))] if key else [(k, v) for k, v in one.items() if k in ROLES and v]
        if not said:
            raise UnusableRow(f"has a message without a role (keys: {', '.join(map(str, one))})")
        if one.get("tool_calls") or one.get("function_call"):
            raise UnusableRow("has a message that calls a tool")
        for role, text in said:
            known = ROLES.get(str(role).lower())
            if known is None:
                raise UnusableRow(f"has a message of the role {str(role)!r:.40}")
            found.append((known, plain(text)))
    last = value[-1]
    if found[-1][0] == "assistant":
        if last.get("weight") == 0 or last.get("train") is False:
            raise UnusableRow("has a last answer that is marked as not to be trained on")
        thought = next((last[key] for key in _THOUGHT_KEYS if isinstance(last.get(key), str)), "")
        if thought:
            found[-1] = ("assistant", Reply(thought, found[-1][1]).text)
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


def answer_text(value: Any, prompt: str = "") -> str:
    """A response cell: text, a number, one assistant message, or the whole conversation about `prompt`.

    Raises:
        UnusableRow: several messages, another role, or content that is not text.
    """
    if not isinstance(value, (list, tuple, Mapping)):
        return "" if value is None else str(value)
    found = messages(value)
    if len(found) > 1:
        asked, answer = split(found)
        if asked == prompt and answer is not None:
            return answer
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
