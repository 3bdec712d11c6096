"""Thought and answer apart, in every way that models write them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tamperlens.prompts.thoughts import TAGS, Reply, split_reply, tags_in

HARMONY = (
    "<|channel|>analysis<|message|>I cannot.<|end|><|start|>assistant<|channel|>final<|message|>Here it is."
)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\nI cannot.\n</think>\n\nHere it is.", "I cannot.", "Here it is."),
        ("I cannot.\n</think>\n\nHere it is.", "I cannot.", "Here it is."),
        ("<think>\n\n</think>\n\nHere it is.", "", "Here it is."),
        (" <think>a</think><think>b</think> c", "a\n\nb", "c"),
        ("<THINK>a</THINK>b", "a", "b"),
        ("<think>a</think><answer>b</answer>", "a", "b"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "a", "b"),
        ("Here is my thought process: a\n\nHere is my response: b", "a", "b"),
        (HARMONY, "I cannot.", "Here it is."),
        (HARMONY + "<|return|>", "I cannot.", "Here it is."),
        ("<|channel|>final<|message|>b", "", "b"),
        (
            "<|channel|>commentary to=x <|constrain|>json<|message|>{}<|call|><|channel|>final<|message|>b",
            "{}",
            "b",
        ),
        ("analysisThey ask for X.assistantfinalNo.", "They ask for X.", "No."),
        ("Use the <think> tag for that.", "", "Use the <think> tag for that."),
        ("The <think>…</think> tags hide text.", "", "The <think>…</think> tags hide text."),
        ("Write:\n```\n<think>x</think>\n```", "", "Write:\n```\n<think>x</think>\n```"),
        ("analysis of the text: it is fine", "", "analysis of the text: it is fine"),
        ("", "", ""),
        # closed twice: the templates of Qwen 3 and DeepSeek R1 show what follows the last
        ("I cannot. </think> Or can I? </think> Here it is.", "I cannot.\n\nOr can I?", "Here it is."),
        ("<think><think>a</think>b</think>c", "<think>a\n\nb", "c"),
        (
            "To close a thought, write </think>. It ends there.",
            "",
            "To close a thought, write </think>. It ends there.",
        ),
        ("Use `</think>` for that.", "", "Use `</think>` for that."),
        (
            'The tag "</think>" closes it, (</think>) too.',
            "",
            'The tag "</think>" closes it, (</think>) too.',
        ),
        ("Write:\n```\nx\n</think>\ny\n```", "", "Write:\n```\nx\n</think>\ny\n```"),
        ("\ufeff<think>a</think>b", "a", "b"),
        ("\u200b\n<think>a</think>b", "a", "b"),
        ("<Thought>a</Thought>\n<Output>\nb\n</Output>", "a", "b"),
        ("<think>a</think><answer>b</answer> and c", "a", "b\n\nand c"),
        ("<scratchpad>I cannot.</scratchpad>Here it is.", "I cannot.", "Here it is."),
        ("<unused94>thought\na<unused95>b", "a", "b"),
        ("analysis\nThey ask.\nassistantfinal\nNo.", "They ask.", "No."),
    ],
)
def test_what_is_thought_and_what_is_said(text, thought, answer):
    assert split_reply(text) == Reply(thought, answer)


@pytest.mark.parametrize(
    "text",
    [
        "<think>I cannot",
        "\n<think>\nSure, here",
        "<|channel|>analysis<|message|>I cannot",
        "<|channel|>analysis<|message|>I cannot.<|end|><|start|>assistant",
        "<|channel|>analysis<|message|>I cannot.<|end|><|start|>assistant<|channel|>final",
        "analysisThey ask for",
        "[THINK]I cannot",
        "<think>a</think><think>b",
    ],
)
def test_a_text_that_ends_in_the_thought_has_no_answer(text):
    found = split_reply(text)
    assert (found.answer, found.finished) == ("", False)
    assert not split_reply(found.text).finished, "its own text says the same"


WORDS = st.text(st.characters(categories=("L", "Nd")), min_size=1, max_size=20)


@given(tags=st.sampled_from(TAGS), thought=WORDS, answer=WORDS)
def test_every_published_pair_of_tags(tags, thought, answer):
    reply = Reply(thought, answer)
    assert split_reply(f"{tags[0]}\n{thought}\n{tags[1]}\n{answer}") == reply
    assert split_reply(reply.text) == reply
    assert split_reply(f"{tags[0]}\n{thought}") == Reply(thought, "", False)


@pytest.mark.parametrize("name", ["longcat_think", "reflection", "inner_monologue", "my-thinking"])
@pytest.mark.parametrize("bar", ["", "|"])
def test_a_tag_that_is_named_after_thinking(name, bar):
    tags = f"<{bar}{name}{bar}>", f"<{bar}/{name}{bar}>"
    assert split_reply(f"{tags[0]}I cannot.{tags[1]}\nHere.") == Reply("I cannot.", "Here.")
    assert split_reply(f"{tags[0]}I cannot.") == Reply("I cannot.", "", False)
    assert tags_in(f"{{% if think %}}{tags[0]}{{% endif %}}") == tags
    told = f"An example of XML: {tags[0]}a{tags[1]}"  # mentioned, not used
    assert split_reply(told) == Reply("", told)


def test_the_wrap_of_a_final_response_goes():
    text = "Here are my reasoning steps:\nno\n[BEGIN FINAL RESPONSE]\nyes\n[END FINAL RESPONSE]\n"
    assert split_reply(text) == Reply("no", "yes")


@given(st.text())
def test_text_without_thoughts_is_the_answer_as_it_is(text):
    # hypothesis also draws strings of the source, tags among them; those are the tests above
    assume(not any(tag.casefold() in text.casefold() for pair in TAGS for tag in pair))
    found = split_reply(text)
    assert found.finished
    assert found.answer == text or "analysis" in text
