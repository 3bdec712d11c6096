"""What is rendered is what the template writes, for every family of chat models; thoughts on and off."""

from __future__ import annotations

import datetime

import pytest
import transformers.utils.chat_template_utils as theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from published_templates import PUBLISHED, published

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.prompts.templating import DATE

NAMES = list(PUBLISHED)
THINKING = ("qwen-3", "qwen-3-thinking-2507", "qwq", "deepseek-r1", "deepseek-v3.1", "gpt-oss", "smollm-3")
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<[｜◁"), min_size=1, max_size=30
)
WORDS = TEXT.map(str.strip).filter(bool)


class Day(datetime.datetime):
    """The day of the library's templates, on every day."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


def own(tokenizer, messages, *, thinking=False, generation=False, parts=False):
    """The template's own text, by transformers."""
    if parts:
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    old, theirs.datetime = theirs.datetime, Day
    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation,
            enable_thinking=thinking,
            thinking=thinking,
        )
    finally:
        theirs.datetime = old


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(prompt=WORDS, answer=WORDS, system=st.none() | WORDS)
def test_a_turn_is_the_template_s_own_text_and_the_answer_alone_is_labelled(name, prompt, answer, system):
    tokenizer = published(name)
    fmt = prompts.chat_format(tokenizer)
    asked = [{"role": "user", "content": prompt}]
    if system and fmt.system == "native":
        asked.insert(0, {"role": "system", "content": system})
    elif system:
        asked = [{"role": "user", "content": f"{system}\n\n{prompt}"}]
    text = prompts.render(tokenizer, prompt, response=answer, system=system)
    said = [*asked, {"role": "assistant", "content": answer}]
    expected = own(tokenizer, said, parts=fmt.content == "parts")
    assert text == expected + (tokenizer.eos_token if fmt.added else "")
    encoded = prompts.encode_pair(tokenizer, prompt, answer, system=system)
    assert encoded.input_ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    *labels, end = encoded.label_ids
    assert tokenizer.decode(labels) in (answer, f" {answer}")
    assert end == fmt.end_of_turn_id
    # What is generated from: the template's own generation prompt, and no open thought.
    asked_for = prompts.render(tokenizer, prompt, system=system)
    assert asked_for.startswith(own(tokenizer, asked, generation=True, parts=fmt.content == "parts"))
    for opening, closing in (("<think>", "</think>"), ("<thought>", "</thought>")):
        assert asked_for.rfind(opening) <= asked_for.rfind(closing)
    if expected.startswith(own(tokenizer, asked, generation=True, parts=fmt.content == "parts")):
        assert text.startswith(asked_for), "what precedes the answer is the same in both"


@pytest.mark.parametrize("name", THINKING)
def test_thinking_prompts_are_the_template_s_own_and_no_answer_stands_in_the_thought(name):
    tokenizer = published(name)
    on = prompts.chat_format(tokenizer, thinking=True)
    asked = [{"role": "user", "content": "Hi?"}]
    assert prompts.render(tokenizer, "Hi?", fmt=on) == own(tokenizer, asked, thinking=True, generation=True)
    assert on != prompts.chat_format(tokenizer)
    turn = prompts.render(tokenizer, "Hi?", response="Yes.", fmt=on)
    assert turn == own(tokenizer, [*asked, {"role": "assistant", "content": "Yes."}], thinking=True)
    assert turn.rfind("<think>") <= turn.rfind("</think>")


@pytest.mark.parametrize("name", ["qwen-3", "gpt-oss"])
def test_a_thought_is_labelled_with_its_answer_where_the_template_writes_it(name):
    tokenizer = published(name)
    fmt = prompts.chat_format(tokenizer, thinking=True)
    encoded = prompts.encode_pair(tokenizer, "Hi?", "<think>\nThey greet.\n</think>\n\nHello.", fmt=fmt)
    said = tokenizer.decode(encoded.label_ids)
    expected = {
        "qwen-3": "<think>\nThey greet.\n</think>\n\nHello.<|im_end|>",
        "gpt-oss": "<|channel|>analysis<|message|>They greet.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>",
    }  # fmt: skip
    assert said == expected[name]
    assert tokenizer.decode(encoded.input_ids[: encoded.start]) == prompts.render(tokenizer, "Hi?", fmt=fmt)


def test_a_thought_that_the_template_leaves_out_is_refused():
    with pytest.raises(InputError, match="leaves the thought out"):
        prompts.encode_pair(published("deepseek-r1"), "Hi?", "<think>They greet.</think>Hello.")


def test_thinking_where_there_is_none_is_refused():
    with pytest.raises(InputError, match="knows no thought"):
        prompts.chat_format(published("llama-3"), thinking=True)


@pytest.mark.parametrize("name", [name for name in NAMES if "strftime_now" in PUBLISHED[name]])
def test_the_date_stands_still_and_is_in_the_format(name, monkeypatch):
    tokenizer = published(name)
    before = prompts.render(tokenizer, "Hi")

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 17)

    monkeypatch.setattr(theirs, "datetime", Later)
    assert prompts.render(tokenizer, "Hi") == before
    other = prompts.chat_format(tokenizer, date="2031-05-17")
    assert other != prompts.chat_format(tokenizer)
    assert "2031" in prompts.render(tokenizer, "Hi", fmt=other)
    with pytest.raises(InputError, match="must be a day"):
        prompts.chat_format(tokenizer, date="yesterday")
