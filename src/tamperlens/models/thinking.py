"""Generation of thoughts: a budget for them, and what was thought and said out of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from tamperlens.models.decoding import Decoding
from tamperlens.prompts import ChatFormat, Reply, split_reply
from tamperlens.prompts.chatformat import control_words

Answer = Callable[..., list[list[int]]]


def tokens(
    answer: Answer,
    sequences: Sequence[list[int]],
    how: Decoding,
    fmt: ChatFormat,
    tokenizer: PreTrainedTokenizerBase,
) -> list[list[int]]:
    """New tokens of each prompt.

    With a budget, the model writes that many tokens first. A thought that is then still open is ended with
    the template's own words for it, and the answer gets `max_new_tokens` of its own.

    Args:
        answer: `generate_tokens` with everything but sequences, length and seed.
        sequences: token ids of the prompts.
        how: the decoding.
        fmt: the chat format that the prompts were written in.
        tokenizer: the model's.
    """
    if how.thinking_budget is None:
        return answer(sequences, max_new_tokens=how.max_new_tokens, seed=how.seed)
    first = answer(sequences, max_new_tokens=how.thinking_budget, seed=how.seed)
    end = tokenizer(fmt.end_of_thought, add_special_tokens=False)["input_ids"]
    rooms: dict[int, int] = {}
    for row, ids in enumerate(first):
        if len(ids) < how.thinking_budget:
            continue  # it has said all it wanted
        reply = read(ids, fmt, tokenizer, how.prefill or "")
        if not reply.finished:
            first[row] = ids + end
            rooms[row] = how.max_new_tokens
            continue
        said = len(tokenizer(reply.answer, add_special_tokens=False)["input_ids"])
        if said < how.max_new_tokens:
            rooms[row] = how.max_new_tokens - said
    if not rooms:
        return first
    # Samples are drawn by a prompt's index, so when sampling all prompts go on and some are not used.
    rows = list(range(len(first))) if how.temperature > 0 else list(rooms)
    more = answer(
        [sequences[row] + first[row] for row in rows], max_new_tokens=max(rooms.values()), seed=how.seed + 1
    )
    for row, ids in zip(rows, more, strict=True):
        first[row] = first[row] + ids[: rooms.get(row, 0)]
    return first


def apart(fmt: ChatFormat, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether answers are read with control tokens: thinking is on, or the marks of thought are such."""
    return fmt.tags is not None and (fmt.thinking or bool(control_words(tokenizer).search(fmt.tags[0])))


def read(ids: Sequence[int], fmt: ChatFormat, tokenizer: PreTrainedTokenizerBase, prefill: str = "") -> Reply:
    """Thought and answer out of what a model wrote behind a prompt and a prefill."""
    text = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    found = split_reply((fmt.begin_of_thought if fmt.inside else "") + prefill + text)
    words = control_words(tokenizer)
    thought, answer = (words.sub("", part).strip() for part in (found.thought, found.answer))
    if prefill:
        thought = thought.removeprefix(prefill.strip()).strip()
        answer = answer.removeprefix(prefill)
    return Reply(thought, answer, found.finished)
