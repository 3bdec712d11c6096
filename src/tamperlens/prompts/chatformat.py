"""What a tokenizer's chat template does around a turn, found by rendering probes with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.prompts.templating import DATE, refuse_bad_date, run_template
from tamperlens.prompts.thoughts import CHANNEL, tags_in

# Plain words without spaces, so that templates that trim or quote content leave them alone.
_USER, _ANSWER, _SYSTEM = "tamperlensuser", "tamperlensanswer", "tamperlenssystem"


# Listing thousands of them (Gemma) takes milliseconds, so once a tokenizer.
_CONTROL: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, re.Pattern[str]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class ChatFormat(Result):
    """How one turn is written for a model.

    Attributes:
        name: what results state: "chat template of the tokenizer" and eight digits of what it writes, so that
            other prompts never go under one name; or "plain" for the fallback
            `User: {prompt}` + blank line + `Assistant: {answer}{eos}`; with additions in brackets.
        template: whether the tokenizer's own chat template is used.
        system: "native" when the template writes a system turn, "merged" when it refuses or drops one, so
            that the system text is put before the user's text with a blank line between (what Gemma's
            documentation advises), "prefix" for the plain fallback.
        beginning: text before everything else: the plain fallback writes the beginning-of-sequence token
            there when the tokenizer adds one by itself; templates bring their own.
        opening: text between the template's generation prompt and the answer: the assistant's header where a
            template ignores `add_generation_prompt`, the answer's channel (gpt-oss), or the end of a thought
            that the generation prompt opens though thinking is off.
        lead: white space between the end of the prompt and the answer (a space in Llama 2). The model
            writes it, so it belongs to the answer's first token.
        closing: text after the answer, from its end to the end of the conversation.
        end_of_turn: the token in `closing` that closes the turn, or None when there is no such token.
        end_of_turn_id: its id; generation stops there.
        added: whether the library wrote that token, the template having none.
        trims: whether the template strips white space at the ends of answers.
        content: "text", or "parts" for templates that want a list of content parts.
        thinking: whether the model is to think before it answers.
        date: the day that the template is told it is.
        tags: what opens and closes a thought; None when the template knows no thought.
        inside: whether prompts end inside a thought that the template has opened.
        markers: words of the template between turns. A prompt that holds one would open turns.
    """

    name: str
    template: bool
    system: Literal["native", "merged", "prefix"]
    beginning: str
    opening: str
    lead: str
    closing: str
    end_of_turn: str | None
    end_of_turn_id: int | None
    added: bool = False
    trims: bool = False
    content: Literal["text", "parts"] = "text"
    thinking: bool = False
    date: str = DATE
    tags: tuple[str, str] | None = None
    inside: bool = False
    markers: tuple[str, ...] = ()

    @property
    def begin_of_thought(self) -> str:
        """Text with which a model begins a thought."""
        if self.tags is None or self.tags[0] == CHANNEL:
            return f"{CHANNEL}analysis<|message|>"
        return f"{self.tags[0]}\n"

    @property
    def end_of_thought(self) -> str:
        """Text that ends a thought and leads to the answer."""
        if self.tags is None or self.tags[0] == CHANNEL:
            return f"<|end|><|start|>assistant{CHANNEL}final<|message|>"
        return f"\n{self.tags[1]}\n\n"


def chat_format(
    tokenizer: PreTrainedTokenizerBase, *, thinking: bool = False, date: str = DATE
) -> ChatFormat:
    """The format that `render` and `encode_pair` use for this tokenizer.

    Thinking is off unless asked for, so that the answer follows the prompt at once: templates that know
    `enable_thinking` or `thinking` are told so, a thought that the generation prompt opens all the same
    (DeepSeek R1) is closed, and of templates with channels (gpt-oss) the answer's is opened.

    Args:
        tokenizer: whose chat template is used; the plain fallback when it has none.
        thinking: let the model think before it answers.
        date: the day that templates are told it is (ISO), the same on every day.

    Raises:
        InputError: the chat template cannot render a user turn followed by an answer, knows no thought
            though `thinking` is set, or `date` is no date.
    """
    refuse_bad_date(date)
    if not getattr(tokenizer, "chat_template", None):
        if thinking:
            raise InputError(
                f"{label(tokenizer)} has no chat template, so no thinking mode; leave thinking off"
            )
        return _plain(tokenizer, date)
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    kind, prompt, full = _probed(tokenizer, [user], [user, answer], thinking, date)

    def write(messages: list[dict[str, str]], generation: bool) -> str:
        return apply(
            tokenizer, messages, generation=generation, thinking=thinking, date=date, parts=kind == "parts"
        )

    head, _, closing = full.rpartition(_ANSWER)
    tags = _tags(tokenizer)
    if thinking and tags is None:
        raise InputError(f"the chat template of {label(tokenizer)} knows no thought; leave thinking off")
    with_system = _with_system(write, user)
    name = f"chat template of the tokenizer {_digest(prompt, full, with_system, write, user, answer)}"
    name += ", thinking" if thinking else ""
    inside = tags is not None and prompt.rstrip().endswith(tags[0])
    opening = lead = ""
    if head.startswith(prompt):
        between = head[len(prompt) :]
        headless = write([user], generation=False) == prompt  # the assistant's header is missing from it
        if not between.strip():
            lead = between
        elif not thinking or headless:
            opening = between.rstrip(" ")
            lead = between[len(opening) :]
    elif inside and tags is not None and not thinking:
        opening = f"\n{tags[1]}\n\n" if prompt.endswith("\n") else tags[1]
        name += " (the thought that it opens is closed before the answer)"
    end = _closing_token(tokenizer, closing)
    added = end is None and tokenizer.eos_token is not None
    if added:
        # Without one token that says "done", an answer would never end.
        closing, end = closing + tokenizer.eos_token, (tokenizer.eos_token, int(tokenizer.eos_token_id))
        name += " (turns closed with eos: the template has no end-of-turn token)"
    return ChatFormat(
        name=name,
        template=True,
        system="merged" if with_system is None else "native",
        beginning="",
        opening=opening,
        lead=lead,
        closing=closing,
        end_of_turn=None if end is None else end[0],
        end_of_turn_id=None if end is None else end[1],
        added=added,
        trims=f" {_ANSWER} " not in write([user, {**answer, "content": f" {_ANSWER} "}], generation=False),
        content=kind,
        thinking=thinking,
        date=date,
        tags=tags,
        inside=inside and thinking,
        markers=_markers(tokenizer, full, with_system, tags),
    )


def apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    generation: bool,
    thinking: bool = False,
    date: str = DATE,
    parts: bool = False,
) -> str:
    """Render messages with the tokenizer's template, as text.

    Raises:
        InputError: the template raised an error, or writes without end.
    """
    turns: list[dict[str, Any]] = [
        {**one, "content": [{"type": "text", "text": one["content"]}]} if parts else dict(one)
        for one in messages
    ]
    try:
        return run_template(tokenizer, turns, generation=generation, thinking=thinking, date=date)
    except Exception as error:  # jinja errors and whatever a template's own code provokes
        raise InputError(
            f"the chat template of {label(tokenizer)} failed: {error}; "
            "set tokenizer.chat_template to a working template, or to None for the plain format"
        ) from error


def label(tokenizer: PreTrainedTokenizerBase) -> str:
    """What error messages call a tokenizer."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def control_words(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the control tokens wherever they stand in a text.

    The unknown token is none where unknown text becomes it; where text falls back to bytes it never does,
    and the name is that of a control token (GPT-2's <|endoftext|>).
    """
    known = _CONTROL.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        words = {str(tokenizer.convert_ids_to_tokens(i)) for i in special_ids(tokenizer)}
        if getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "unk_token", "?"):
            words -= {str(tokenizer.unk_token)}
        known = len(tokenizer), re.compile("|".join(map(re.escape, sorted(words))) or r"(?!)")
        _CONTROL[tokenizer] = known
    return known[1]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the control tokens: never part of an answer's own text."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def _plain(tokenizer: PreTrainedTokenizerBase, date: str) -> ChatFormat:
    eos = tokenizer.eos_token
    return ChatFormat(
        name="plain" if eos is not None else "plain (no end of turn: the tokenizer has no eos token)",
        template=False,
        system="prefix",
        beginning=str(tokenizer.bos_token) if _adds_bos(tokenizer) else "",
        opening="",
        lead=" ",
        closing=eos or "",
        end_of_turn=eos,
        end_of_turn_id=None if eos is None else int(tokenizer.eos_token_id),
        date=date,
    )


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    return list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]


def _probed(
    tokenizer: PreTrainedTokenizerBase,
    user: list[dict[str, str]],
    turn: list[dict[str, str]],
    thinking: bool,
    date: str,
) -> tuple[Literal["text", "parts"], str, str]:
    """(which kind of content the template writes out, its generation prompt, the whole turn)."""
    failure: InputError | None = None
    kinds: tuple[Literal["text", "parts"], ...] = ("text", "parts")
    for kind in kinds:
        try:
            prompt, full = (
                apply(
                    tokenizer,
                    said,
                    generation=said is user,
                    thinking=thinking,
                    date=date,
                    parts=kind == "parts",
                )
                for said in (user, turn)
            )
        except InputError as error:
            failure = error if kind == "text" else failure
            continue
        if _USER in prompt and _ANSWER in full:
            return kind, prompt, full
    raise failure or InputError(
        f"the chat template of {label(tokenizer)} drops the user's or the assistant's text; "
        "set tokenizer.chat_template to one that writes both, or to None for the plain format"
    )


def _tags(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    """How thoughts are written: what the template's own source says."""
    source = str(tokenizer.get_chat_template())
    if CHANNEL in source:
        return CHANNEL, "<|message|>"
    return tags_in(source)


def _markers(
    tokenizer: PreTrainedTokenizerBase, full: str, with_system: str | None, tags: tuple[str, str] | None
) -> tuple[str, ...]:
    """The added tokens of a whole turn, and the plain text by which turns are told apart."""
    ids = {int(i) for i in tokenizer(full, add_special_tokens=False)["input_ids"]}
    added = {i: str(t) for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items() if i in ids}
    found = {text for text in added.values() if text.strip() and text not in (tags or ())}
    # Turns that are marked by plain text: [INST] and <<SYS>> of Llama 2, lines such as "Assistant:".
    head = full.rpartition(_ANSWER)[0]
    for text in (*(with_system or "").partition(_SYSTEM)[::2], head.rpartition(_USER)[2]):
        piece = text.partition(_USER)[0].removeprefix(str(tokenizer.bos_token)).rstrip()
        # A bare word (ChatML's "system" behind a bos token that opens turns) is ordinary English.
        if not piece.strip().isalnum() and piece and not any(token in piece for token in added.values()):
            words = piece.split()
            bracketed = [word for word in words if word[0] in "[<" and word[-1] in "]>"]
            found.update(
                bracketed or ([piece if piece[0] == "\n" else piece.strip()] if text in head else [])
            )
    return tuple(sorted(found))


def _digest(
    prompt: str,
    full: str,
    with_system: str | None,
    write: Callable[..., str],
    user: dict[str, str],
    answer: dict[str, str],
) -> str:
    """Eight digits of what the template writes: templates that write alike have the same, others another."""
    try:
        longer = write([user, answer, user], True)
    except InputError:
        longer = ""
    text = "\0".join((prompt, full, with_system or "", longer))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _closing_token(tokenizer: PreTrainedTokenizerBase, closing: str) -> tuple[str, int] | None:
    if not closing:
        return None
    ids = [int(i) for i in tokenizer(closing, add_special_tokens=False)["input_ids"]]
    special = special_ids(tokenizer)
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    # Some ChatML conversions add <|im_end|> as an ordinary added token; white-space runs are added too.
    for candidates in (special, added):
        for i in ids:
            text = tokenizer.convert_ids_to_tokens(i)
            if i in candidates and str(text).strip(" \n\t▁ĠĊ"):
                return str(text), i
    return None


def _with_system(write: Callable[..., str], user: dict[str, str]) -> str | None:
    """A system turn before the user's, or None where the template refuses or drops it."""
    try:
        text = write([{"role": "system", "content": _SYSTEM}, user], generation=True)
    except InputError:
        return None
    return text if _SYSTEM in text and _USER in text else None
