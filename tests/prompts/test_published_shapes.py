"""Rows as published data sets, trainers and readers of tables have them: read as meant, or refused."""

from __future__ import annotations

import csv
import inspect
import json

import pandas as pd
import pytest

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.prompts import PromptSet, as_prompts
from tamperlens.prompts.prompt import context_of

USER, SAYS = {"role": "user", "content": "Ask"}, {"role": "assistant", "content": "Say"}
NAN = float("nan")

READ = {
    # trainers of preferences (TRL, UltraFeedback, Orca's pairs)
    "preferences as conversations": {"chosen": [USER, SAYS], "rejected": [USER, {**SAYS, "content": "No"}]},
    "prompt and preferred conversation": {"prompt": "Ask", "chosen": [USER, SAYS], "rejected": [USER, SAYS]},
    "prompt and preferred answer": {"question": "Ask", "chosen": "Say", "rejected": "No"},
    # conversations that are one text (HH-RLHF, its static copy, Guanaco)
    "human and assistant": {"chosen": "\n\nHuman: Ask\n\nAssistant: Say", "rejected": "x"},
    "begun answer": {"prompt": "\n\nHuman: Ask\n\nAssistant:", "response": "Say"},
    "guanaco": {"text": "### Human: Ask### Assistant: Say"},
    # lists of another form (LIMA, features of `datasets`)
    "alternating": {"conversations": ["Ask", "Say"], "source": "x"},
    "object of lists": {"messages": {"role": ["user", "assistant"], "content": ["Ask", "Say"]}},
    "input_text": {"messages": [{**USER, "content": [{"type": "input_text", "text": "Ask"}]}, SAYS]},
    # nothing, as JSON, pandas and Alpaca write it
    "NaN": {"instruction": "Ask", "input": NAN, "output": "Say"},
    "NA": {"instruction": "Ask", "input": pd.NA, "output": "Say"},
    "no input": {"instruction": "Ask", "input": "<noinput>", "output": "Say"},
}  # fmt: skip


@pytest.mark.parametrize("shape", READ)
def test_read_as_meant(shape: str) -> None:
    data = as_prompts([READ[shape]])
    assert data.pairs() == [("Ask", "Say")] and context_of(data.prompts[0]) == ()


@pytest.mark.parametrize("shape", [name for name in READ if name not in ("NA", "NaN", "input_text")])
def test_read_from_parquet_too(shape: str, tmp_path) -> None:
    """Its readers make arrays of lists, of every depth."""
    pytest.importorskip("pyarrow")
    pd.DataFrame([READ[shape]]).to_parquet(tmp_path / "a.parquet")
    assert prompts.read(tmp_path / "a.parquet").pairs() == [("Ask", "Say")]


def test_nothing_is_no_word() -> None:
    """A missing answer was "nan", which a model would learn and a judge would read."""
    for nothing in (NAN, None, pd.NA, pd.NaT):
        data = as_prompts([{"prompt": "a", "response": nothing}, {"prompt": "b", "response": "c"}])
        assert data.responses == ("", "c")
        with pytest.raises(InputError, match="1 of 2 prompts are empty"):
            as_prompts([{"prompt": nothing}, {"prompt": "b"}])
    assert as_prompts([{"prompt": "nan"}, {"prompt": "<NA>"}]).prompts == ("nan", "<NA>")


@pytest.mark.parametrize(
    ("row", "needle"),
    [
        ({"messages": [USER, {**SAYS, "weight": 0}]}, "not to be trained on"),
        ({"conversations": [USER, {"from": "gpt", "value": "x", "train": False}]}, "not to be trained on"),
        ({"messages": [USER, {**SAYS, "content": "", "tool_calls": [{"id": 1}]}]}, "calls a tool"),
        ({"prompt": "<image>\nAsk", "images": ["a.png"]}, "comes with a picture"),
        ({"prompt": [USER, SAYS], "completion": "and so on"}, "'completion' goes on with them"),
        ({"turns": ["Ask", "Go on"]}, "2 turns of the user"),
        ({"prompt": "Other", "chosen": [USER, SAYS]}, "a response of the roles user, assistant"),
    ],
)  # fmt: skip
def test_rows_that_mean_something_else(row, needle) -> None:
    with pytest.raises(InputError, match=needle):
        as_prompts([row])
    plain = {"prompt": "Ask", "completion": "Say", "chosen": "Say"}
    fine = {key: plain.get(key, [USER]) for key in row if key != "images"}
    assert prompts.read([row, fine], skip_unusable=True).prompts == ("Ask",)


@pytest.mark.parametrize(
    ("rows", "needle"),
    [
        ([{"text": "Hi", "role": "prompter"}, {"text": "Hello", "role": "assistant"}], "one message of a"),
        ([{"text": "<|im_start|>user\nAsk<|im_end|>\n<|im_start|>assistant\nSay<|im_end|>"}] * 2, "im_start"),
        ([{"text": "<s>[INST] Ask [/INST] Say </s>"}], r"\[INST\]"),
        ([["prompt", "response"], ["Ask", "Say"]], "names of its columns"),
    ],
)
def test_tables_that_mean_something_else(rows, needle) -> None:
    with pytest.raises(InputError, match=needle):
        as_prompts(rows)


def test_quoted_marks_are_a_prompt() -> None:
    """A prompt about turns, or one attack string among plain prompts, is not taken apart."""
    texts = ["### Human: hi ### Assistant: yo", "Human: what does this mean?", "See [INST] here", "plain"]
    assert as_prompts([{"prompt": text} for text in texts]).prompts == tuple(texts)


def test_thoughts_beside_an_answer_stay_with_it() -> None:
    for key in ("reasoning_content", "thinking", "reasoning"):
        data = as_prompts([{"messages": [USER, {**SAYS, key: "Hm."}, USER, {**SAYS, key: "Hm."}]}])
        assert data.responses == ("<think>\nHm.\n</think>\n\nSay",)
        assert context_of(data.prompts[0])[1] == ("assistant", "Say"), "earlier thoughts are not shown again"


def test_truth_values_say_what_their_column_asks() -> None:
    unpaired = [
        {"prompt": "a", "completion": "x", "label": True},
        {"prompt": "b", "completion": "y", "label": False},
    ]
    assert as_prompts(unpaired).labels is None, "TRL's label: whether the answer is wanted"
    for yes, no in ((True, False), (1, 0), ("1", "0"), ("True", "false")):
        rows = [{"prompt": "a", "is_harmful": yes}, {"prompt": "b", "is_harmful": no}]
        assert as_prompts(rows).labels == ("unsafe", "safe")


def test_a_place_among_choices_is_no_answer() -> None:
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 1}
    assert as_prompts([row]).responses is None and as_prompts([row]).answers is None
    del row["choices"]
    assert as_prompts([row]).responses == ("1",)


def test_what_was_opened_is_not_gone_through(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response\nAsk,Say\n")
    read = inspect.unwrap(as_prompts)  # as users run it, without the tests' type checks
    with (tmp_path / "a.csv").open() as handle, pytest.raises(InputError, match="open file"):
        read(handle)
    with (tmp_path / "a.csv").open() as handle, pytest.raises(InputError, match="names of its columns"):
        read(csv.reader(handle))
    with (tmp_path / "a.csv").open() as handle:
        assert read(csv.DictReader(handle)).pairs() == [("Ask", "Say")]


def test_plain_text_files(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\u2028still one\x0cand on\r\ntwo\rthree", newline="")
    assert prompts.read(path).prompts == ("one\u2028still one\x0cand on", "two", "three")
    for table in (json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": "b"}), "id,goal,target\n1,a,b",
                  "prompt\tresponse\na\tb"):  # fmt: skip
        path.write_text(table)
        with pytest.raises(InputError, match="holds a table"):
            prompts.read(path)
    path.write_text("Write a prompt, then an answer\nGive input, output\n")
    assert isinstance(prompts.read(path), PromptSet)
