"""Chat rendering and the exact response mask. Knows tokenizers only, no models.

The text of a turn is rendered once and tokenized once, with `add_special_tokens=False`: whatever
beginning-of-sequence token a model wants is in its template. Labels come from character offsets in that
one text, never from the length of a prompt that was tokenized by itself (its last token may differ).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError
from tamperlens.prompts.chatformat import ChatFormat, apply, chat_format, control_words, label
from tamperlens.prompts.prompt import context_of
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.spans import check_answer, span_by_decoding, span_by_offsets, token_ids_of
from tamperlens.prompts.thoughts import split_reply

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """One tokenized (prompt, answer) turn.

    Attributes:
        input_ids: token ids of the whole turn.
        labels: the same ids at the answer's tokens and at the end-of-turn token that closes it, -100
            elsewhere. Not shifted: transformers' causal losses shift by themselves.
        truncated: whether `max_length` cut something off.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False

    @property
    def label_ids(self) -> list[int]:
        """The labelled token ids, in order."""
        return [i for i in self.labels if i != IGNORE]

    @property
    def start(self) -> int:
        """Index of the first labelled token."""
        return next(i for i, value in enumerate(self.labels) if value != IGNORE)

    def __len__(self) -> int:
        return len(self.input_ids)


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    response: str | None = None,
    system: str | None = None,
    prefill: str | None = None,
    fmt: ChatFormat | None = None,
) -> str:
    """The text of one turn.

    Without `response` it ends where the assistant begins, or after the `prefill`. With `response` it is what
    the template itself writes of the whole conversation. That starts with `render(p)` unless the template's
    own generation prompt does not stand in its conversations (DeepSeek R1 opens a thought there, and leaves
    thoughts out of what was said).

    The user's and system's text must not hold control tokens or the template's words between turns: a prompt
    that opens turns is refused, as an answer is.

    Args:
        tokenizer: whose chat template is used; the plain fallback when it has none.
        prompt: what the user says; a `Prompt` brings the messages before it.
        response: the assistant's answer.
        system: a system prompt; `fmt.system` says whether it gets its own turn or goes before the prompt.
        prefill: the beginning of the assistant's answer, put into its mouth.
        fmt: `chat_format(tokenizer)`, to save finding it again for each of many prompts.

    Raises:
        InputError: the template fails, or changes the prompt or the answer; a text that holds a control token
            or half a character.
    """
    fmt = fmt or chat_format(tokenizer)
    if response is None:
        return _prompt_text(tokenizer, prompt, system, prefill, fmt)
    return "".join(_parts(tokenizer, prompt, response, system, prefill, fmt))


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    system: str | None = None,
    prefill: str | None = None,
    fmt: ChatFormat | None = None,
) -> list[int]:
    """Token ids of `render(tokenizer, prompt, ...)`: what the model reads before it answers."""
    text = render(tokenizer, prompt, system=system, prefill=prefill, fmt=fmt)
    return token_ids_of(tokenizer, text)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    response: str,
    *,
    system: str | None = None,
    prefill: str | None = None,
    max_length: int | None = None,
    fmt: ChatFormat | None = None,
) -> Encoded:
    """Tokenize one turn, with labels on the answer's tokens and the end-of-turn token, nothing else.

    The labelled tokens (less the end of turn) are decoded and compared with `response`; only the one space
    that some formats and tokenizers put before a text, and Unicode composition (NFC), may differ.
    `prefill` is context: it is not labelled. Nothing is masked because it equals the padding token.
    White space at the answer's ends that the template trims is refused here and stripped by `encode_pairs`.
    A thought before the answer (`split_reply`) is labelled with it where the template writes one, and refused
    where it does not.

    Args:
        tokenizer: fast tokenizers give offsets; for others the span is found by decoding.
        prompt: what the user says.
        response: the answer.
        system: see `render`.
        prefill: see `render`.
        max_length: cut the turn to this many tokens on the right.
        fmt: see `render`.

    Raises:
        InputError: the answer is empty, contains a control token of the template, is changed by the
            tokenizer, shares a token with the template around it, or is cut away whole by `max_length`.
    """
    fmt = fmt or chat_format(tokenizer)
    if not response:
        raise InputError(f"the answer to {prompt!r:.60} is empty; drop the row (skip_unusable=True)")
    if fmt.trims and response != (response.rstrip() if prefill else response.strip()):
        raise InputError(
            f"the chat template of {label(tokenizer)} trims the answer to {prompt!r:.60}; strip white space "
            "at its ends"
        )
    head, body, closing = _parts(tokenizer, prompt, response, system, prefill, fmt)
    text = head + body + closing
    if tokenizer.is_fast:
        start, end, ids = span_by_offsets(tokenizer, text, len(head), len(head) + len(body))
    else:
        start, end, ids = span_by_decoding(tokenizer, text, body, fmt)
    check_answer(tokenizer, prompt, ids[start:end], response, body, fmt)
    labels = [IGNORE] * len(ids)
    labels[start:end] = ids[start:end]
    if fmt.end_of_turn_id is not None:
        if fmt.end_of_turn_id not in ids[end:]:
            raise InputError(
                f"{label(tokenizer)} does not write {fmt.end_of_turn!r} after the answer to {prompt!r:.60}; "
                "strip white space at the ends of the answer"
            )
        close = ids.index(fmt.end_of_turn_id, end)
        labels[close] = ids[close]
    if max_length is None or len(ids) <= max_length:
        return Encoded(ids, labels)
    if start >= max_length:
        raise InputError(
            f"the prompt {prompt!r:.60} alone takes {start} tokens and max_length is {max_length}, so no "
            "token of the answer is left; raise max_length or drop the row"
        )
    return Encoded(ids[:max_length], labels[:max_length], truncated=True)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    data: PromptSet | Iterable[tuple[str, str]],
    *,
    system: str | None = None,
    max_length: int | None = None,
    fmt: ChatFormat | None = None,
) -> list[Encoded]:
    """`encode_pair` over a set with responses; errors name the row.

    White space at the ends of answers goes where the template trims it.

    Raises:
        InputError: the set has no responses, or a row cannot be encoded.
    """
    fmt = fmt or chat_format(tokenizer)
    pairs: Sequence[tuple[str, str]] = data.pairs() if isinstance(data, PromptSet) else list(data)
    encoded = []
    for row, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"row {row}: {pair!r:.60} is no pair of a prompt and a response")
        prompt, response = pair
        said = response.strip() if fmt.trims else response
        try:
            encoded.append(
                encode_pair(tokenizer, prompt, said, system=system, max_length=max_length, fmt=fmt)
            )
        except InputError as error:
            name = f" of {data.name!r}" if isinstance(data, PromptSet) else ""
            raise InputError(f"row {row}{name}: {error}") from error
    return encoded


def post_instruction_tokens(
    tokenizer: PreTrainedTokenizerBase, *, fmt: ChatFormat | None = None
) -> list[int]:
    """Template tokens between the user's text and the assistant's answer.

    These are the candidate positions of Arditi et al. 2024 (`eoi_toks` in andyrdt/refusal_direction): the
    last `len(result)` tokens of every rendered prompt. Only tokens that are the same whatever the prompt ends
    with are counted, because some tokenizers merge a full stop with the line break after it.

    Raises:
        InputError: the template fails.
    """
    fmt = fmt or chat_format(tokenizer)
    probes = ("word", "question?", "sentence.", "number 7", "(bracket)", 'quote"', "list:", "Wow!")
    rendered = [encode_prompt(tokenizer, probe, fmt=fmt) for probe in probes]
    shared: list[int] = []
    for column in zip(*(reversed(ids) for ids in rendered), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared[::-1]


# ---- inside ----------------------------------------------------------------------------------------


def _parts(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    response: str,
    system: str | None,
    prefill: str | None,
    fmt: ChatFormat,
) -> tuple[str, str, str]:
    """(what stands before the answer, the answer with its lead, what closes the turn)."""
    _refuse_half_characters(response, "the answer to ", prompt)
    if not fmt.template:
        head = _prompt_text(tokenizer, prompt, system, prefill, fmt)
        return head, ("" if prefill else fmt.lead) + response, fmt.closing
    reply = split_reply(response)
    said: dict[str, str] = {"role": "assistant", "content": (prefill or "") + response}
    if reply.thought and not prefill:
        # Templates read thoughts under either name (gpt-oss: thinking; Qwen 3: reasoning_content).
        said |= {"content": reply.answer, "reasoning_content": reply.thought, "thinking": reply.thought}
    messages = [*_messages(tokenizer, prompt, system, fmt), said]
    whole = _apply(tokenizer, messages, fmt, generation=False)
    if fmt.added:
        whole += str(tokenizer.eos_token)
    spoken = whole.removesuffix(fmt.closing)
    written = reply.answer if reply.thought and not prefill else response
    if fmt.trims:
        written = written.rstrip() if prefill else written.strip()
    if not whole.endswith(fmt.closing) or not spoken.endswith(written):
        raise InputError(
            f"the chat template of {label(tokenizer)} changes the answer to {prompt!r:.60}; strip white "
            "space at its ends, or set tokenizer.chat_template to one that writes answers as they are"
        )
    begin = len(spoken) - len(written)
    if reply.thought and not prefill:
        begin = _thought_begins(tokenizer, messages[:-1], fmt, spoken, reply.thought, prompt)
    elif not prefill and fmt.lead and spoken[:begin].endswith(fmt.lead):
        begin -= len(fmt.lead)
    return spoken[:begin], spoken[begin:], whole[len(spoken) :]


def _thought_begins(
    tokenizer: PreTrainedTokenizerBase,
    asked: list[dict[str, str]],
    fmt: ChatFormat,
    spoken: str,
    thought: str,
    prompt: str,
) -> int:
    """Where in the conversation the model begins to write: behind the generation prompt, at its thought."""
    at = spoken.rfind(thought)
    if at < 0:
        raise InputError(
            f"the chat template of {label(tokenizer)} leaves the thought out of the answer to "
            f"{prompt!r:.60}; train on the answer alone"
        )
    generation = apply(
        tokenizer, asked, generation=True, thinking=True, date=fmt.date, parts=fmt.content == "parts"
    )
    if spoken.startswith(generation) and len(generation) <= at:
        return len(generation)
    opened = -1 if fmt.tags is None else spoken.rfind(fmt.tags[0], 0, at)
    return at if opened < 0 else opened


def _prompt_text(
    tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None, prefill: str | None, fmt: ChatFormat
) -> str:
    """What the model reads before it answers."""
    messages = _messages(tokenizer, prompt, system, fmt)
    if fmt.template:
        text = _apply(tokenizer, messages, fmt, generation=True) + fmt.opening
    else:
        around = {
            "system": ("", "\n\n"),
            "user": ("User: ", "\n\nAssistant:"),
            "assistant": (fmt.lead, f"{fmt.closing}\n\n"),
        }
        text = fmt.beginning + "".join(one["content"].join(around[one["role"]]) for one in messages)
    if not prefill:
        return text
    _refuse_half_characters(prefill, "the prefill of ", prompt)
    plain = prefill
    for own in (fmt.begin_of_thought, fmt.end_of_thought, *fmt.tags) if fmt.tags else ():
        plain = plain.replace(own, "").replace(own.strip(), "")
    _refuse_turns(tokenizer, plain, f"the prefill of {str(prompt)!r:.60}", fmt)
    return text + fmt.lead + prefill


def _messages(
    tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None, fmt: ChatFormat
) -> list[dict[str, str]]:
    """The turns before the answer, after a look at what they say."""
    turns = [*context_of(prompt), ("user", str(prompt))]  # a `Prompt` brings the conversation that it closes
    if turns[0][0] == "system":
        if system is not None and system != turns[0][1]:
            raise InputError(
                f"the prompt {str(prompt)!r:.60} brings a system message of its own; leave system= out, or "
                "drop the system messages from the data"
            )
    elif system:
        turns.insert(0, ("system", system))
    turns = [(role, text) for role, text in turns if role != "system" or text]
    for role, text in turns:
        what = "" if text is turns[-1][1] else f"the {role}'s message before "
        _refuse_half_characters(text, what, prompt)
        _refuse_turns(tokenizer, text, f"{what or 'the prompt '}{str(prompt)!r:.60}", fmt)
    if turns[0][0] == "system" and fmt.system == "merged":
        (_, above), (role, first), *rest = turns
        turns = [(role, f"{above}\n\n{first}"), *rest]
    return [{"role": role, "content": text} for role, text in turns]


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], fmt: ChatFormat, *, generation: bool
) -> str:
    text = apply(
        tokenizer,
        messages,
        generation=generation,
        thinking=fmt.thinking,
        date=fmt.date,
        parts=fmt.content == "parts",
    )
    for one in messages:
        if one["role"] == "user" and one["content"].strip() not in text:
            raise InputError(
                f"the chat template of {label(tokenizer)} changes the prompt {one['content']!r:.60}; "
                "set tokenizer.chat_template to one that writes the user's text as it is"
            )
    return text


def _refuse_turns(tokenizer: PreTrainedTokenizerBase, text: str, what: str, fmt: ChatFormat) -> None:
    found = control_words(tokenizer).search(text)
    word = found[0] if found else next((word for word in fmt.markers if word in text), None)
    if word is not None:
        raise InputError(
            f"{what} holds {word!r}, with which {label(tokenizer)} opens or closes turns; remove that text "
            "or drop the row"
        )


def _refuse_half_characters(text: str, what: str, prompt: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what or 'the prompt '}{prompt!r:.60} holds half a character ({text[error.start]!r}, a lone "
            f"surrogate, at {error.start}); read the file as UTF-8 or remove it"
        ) from None
