"""Where an answer's tokens lie in a tokenized turn, and whether they say it."""

from __future__ import annotations

import unicodedata

from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError
from tamperlens.prompts.chatformat import ChatFormat, label, special_ids
from tamperlens.prompts.thoughts import split_reply


def token_ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text as it is."""
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def span_by_offsets(
    tokenizer: PreTrainedTokenizerBase, text: str, begin: int, stop: int
) -> tuple[int, int, list[int]]:
    """Token span [start, end) of the characters [begin, stop) of a text.

    Byte-level tokenizers that trim offsets give a token of white space an empty span at its *end*; it belongs
    to what stands before it.
    """
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [int(i) for i in batch["input_ids"]]
    offsets = [(int(a), int(b)) for a, b in batch["offset_mapping"]]
    start = next((i for i, (_, b) in enumerate(offsets) if b > begin), len(ids))
    end = next(
        (i for i in range(start, len(ids)) if offsets[i][0] >= stop and offsets[i] != (stop, stop)),
        len(ids),
    )
    return start, end, ids


def span_by_decoding(
    tokenizer: PreTrainedTokenizerBase, text: str, body: str, fmt: ChatFormat
) -> tuple[int, int, list[int]]:
    """The same without offsets: the last span before the end of turn that decodes to the answer."""
    ids = token_ids_of(tokenizer, text)
    stop = len(ids)
    if fmt.end_of_turn_id is not None:
        closes = token_ids_of(tokenizer, fmt.closing).count(fmt.end_of_turn_id)
        stop = [i for i, token in enumerate(ids) if token == fmt.end_of_turn_id][-closes]
    for end in range(stop, max(stop - 8, 0), -1):
        for start in range(end - 1, -1, -1):
            decoded = _decode(tokenizer, ids[start:end])
            if _same(decoded, body.strip(" "), body):
                return start, end, ids
            if len(decoded) > len(body) + 8:
                break
    raise InputError(
        f"no run of tokens decodes to the answer {body.strip()!r:.60} with {label(tokenizer)}; "
        "use a fast tokenizer (use_fast=True), or strip white space and control characters from the answer"
    )


def _tag_ids(tokenizer: PreTrainedTokenizerBase, fmt: ChatFormat) -> list[int]:
    """Tokens that a thought before an answer may hold: its tags, and the turn of its channel."""
    return token_ids_of(tokenizer, "".join((*(fmt.tags or ()), fmt.end_of_thought)))


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], skip: bool = False) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False))


def _same(decoded: str, response: str, body: str) -> bool:
    def composed(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    # Prefix spaces: the format's lead, add_prefix_space, sentencepiece decoders that drop the first space.
    accepted = {
        response,
        body,
        f" {response}",
        response.removeprefix(" "),
        body.removeprefix(" "),
        f" {body}",
    }
    return composed(decoded) in {composed(text) for text in accepted}


def check_answer(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    ids: list[int],
    response: str,
    body: str,
    fmt: ChatFormat,
) -> None:
    """Raise InputError unless the tokens say the answer."""
    decoded = _decode(tokenizer, ids)
    # Listing a tokenizer's control tokens is slow (Gemma has thousands), decoding is not.
    thoughts = [] if fmt.tags is None or not split_reply(response).thought else _tag_ids(tokenizer, fmt)
    if (
        _decode(tokenizer, ids, skip=True) != decoded
        and (control := next((i for i in ids if i in special_ids(tokenizer) and i not in thoughts), None))
        is not None
    ):
        if control == tokenizer.unk_token_id:
            raise InputError(
                f"the answer to {prompt!r:.60} has characters that {label(tokenizer)} does not know: it "
                f"becomes {decoded!r:.80}; replace them"
            )
        token = tokenizer.convert_ids_to_tokens(control)
        raise InputError(
            f"the answer to {prompt!r:.60} becomes the control token {token!r} of {label(tokenizer)}; "
            "remove that text from the answer"
        )
    if _same(decoded, response, body):
        return
    if response in decoded:
        raise InputError(
            f"the answer to {prompt!r:.60} shares a token with the template around it (the tokens say "
            f"{decoded!r:.60}); strip white space at the answer's ends"
        )
    raise InputError(
        f"the answer to {prompt!r:.60} does not survive {label(tokenizer)}: {response!r:.60} became "
        f"{decoded!r:.60}; strip white space at its ends and characters that the tokenizer changes"
    )
