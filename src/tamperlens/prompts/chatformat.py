"""What a tokenizer's chat template does around a turn, found by rendering probes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result

# Plain words without spaces, so that templates that trim or quote content leave them alone.
_USER, _ANSWER, _SYSTEM = "tamperlensuser", "tamperlensanswer", "tamperlenssystem"


@dataclass(frozen=True)
class ChatFormat(Result):
    """How one turn is written for a model.

    Attributes:
        name: what results state: "chat template of the tokenizer", or "plain" for the fallback
            `User: {prompt}` + blank line + `Assistant: {answer}{eos}`; with additions in brackets.
        template: whether the tokenizer's own chat template is used.
        system: "native" when the template writes a system turn, "merged" when it refuses or drops one, so
            that the system text is put before the user's text with a blank line between (what Gemma's
            documentation advises), "prefix" for the plain fallback.
        beginning: text before everything else: the plain fallback writes the beginning-of-sequence token
            there when the tokenizer adds one by itself; templates bring their own.
        opening: text between the template's generation prompt and the answer's side of the turn; only
            templates that ignore `add_generation_prompt` have one.
        lead: white space between the end of the prompt and the answer (a space in Llama 2). The model
            writes it, so it belongs to the answer's first token.
        closing: text after the answer, from its end to the end of the turn.
        end_of_turn: the token in `closing` that closes the turn, or None when there is no such token.
        end_of_turn_id: its id; generation stops there.
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


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The format that `render` and `encode_pair` use for this tokenizer.

    Thinking modes are switched off where the template knows `enable_thinking` (Qwen 3), so that the answer
    follows the prompt at once in training, in scoring and in generation alike.

    Raises:
        InputError: the chat template cannot render a user turn followed by an answer.
    """
    if not getattr(tokenizer, "chat_template", None):
        return _plain(tokenizer)
    user = [{"role": "user", "content": _USER}]
    prompt = apply(tokenizer, user, generation=True)
    full = apply(tokenizer, [*user, {"role": "assistant", "content": _ANSWER}], generation=False)
    head, found, closing = full.rpartition(_ANSWER)
    if not found or _USER not in prompt:
        raise InputError(
            f"the chat template of {label(tokenizer)} drops the user's or the assistant's text; "
            "set tokenizer.chat_template to one that writes both, or to None for the plain format"
        )
    opening, lead = _around(tokenizer, user, prompt, head)
    name = "chat template of the tokenizer"
    end = _closing_token(tokenizer, closing)
    if end is None and tokenizer.eos_token is not None:
        # Without one token that says "done", an answer would never end.
        closing, end = tokenizer.eos_token, (tokenizer.eos_token, int(tokenizer.eos_token_id))
        name += " (turns closed with eos: the template has no end-of-turn token)"
    return ChatFormat(
        name=name,
        template=True,
        system=_system_support(tokenizer, user),
        beginning="",
        opening=opening,
        lead=lead,
        closing=closing,
        end_of_turn=None if end is None else end[0],
        end_of_turn_id=None if end is None else end[1],
    )


def apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, generation: bool) -> str:
    """Render messages with the tokenizer's template, as text.

    Raises:
        InputError: the template raised an error.
    """
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation, enable_thinking=False
        )
    except Exception as error:  # jinja errors and whatever a template's own code provokes
        raise InputError(
            f"the chat template of {label(tokenizer)} failed: {error}; "
            "set tokenizer.chat_template to a working template, or to None for the plain format"
        ) from error
    return str(text)


def label(tokenizer: PreTrainedTokenizerBase) -> str:
    """What error messages call a tokenizer."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the control tokens: never part of an answer's own text."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def _plain(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
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
    )


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    return list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]


def _around(
    tokenizer: PreTrainedTokenizerBase, user: list[dict[str, str]], prompt: str, head: str
) -> tuple[str, str]:
    """(opening, lead): what lies between the generation prompt and the answer."""
    if not head.startswith(prompt):
        return "", ""  # e.g. a generation prompt that opens a thought: the answer follows it directly
    between = head[len(prompt) :]
    if not between.strip():
        return "", between
    if apply(tokenizer, user, generation=False) == prompt:
        # The template knows no generation prompt, so the assistant's header is missing from it.
        opening = between.rstrip(" ")
        return opening, between[len(opening) :]
    return "", ""


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


def _system_support(
    tokenizer: PreTrainedTokenizerBase, user: list[dict[str, str]]
) -> Literal["native", "merged"]:
    try:
        text = apply(tokenizer, [{"role": "system", "content": _SYSTEM}, *user], generation=True)
    except InputError:
        return "merged"
    return "native" if _SYSTEM in text and _USER in text else "merged"
