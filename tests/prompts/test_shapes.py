"""One conversation in the shapes that the field publishes it in, and prompts that are in memory."""

from __future__ import annotations

import copy
import inspect
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_tokenizers import TEMPLATES, make

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.prompts import Prompt, PromptSet, as_prompts, encode_pair, render
from tamperlens.prompts.conversations import LONGEST

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(
    lambda text: bool(text.strip())
)
CONVERSATIONS = st.tuples(
    st.none() | TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3), TEXT, st.none() | TEXT
)


def openai(
    conversation, names=("system", "user", "assistant"), keys=("role", "content"), wrap=lambda text: text
):
    system, earlier, ask, answer = conversation
    role, content = keys
    made = [] if system is None else [{role: names[0], content: wrap(system)}]
    for one, two in earlier:
        made += [{role: names[1], content: wrap(one)}, {role: names[2], content: wrap(two)}]
    made.append({role: names[1], content: wrap(ask)})
    return made if answer is None else [*made, {role: names[2], content: wrap(answer)}]


def parts(text):
    return [{"type": "text", "text": text[:2]}, {"type": "text", "text": text[2:]}]


def trl(conversation):
    row = {"prompt": openai((*conversation[:3], None))}
    if conversation[3] is not None:
        row["completion"] = [{"role": "assistant", "content": conversation[3]}]
    return row


def columns(conversation):
    system, earlier, ask, answer = conversation
    row = {"system": system, "instruction": ask, "input": "", "history": [list(pair) for pair in earlier]}
    return row if answer is None else {**row, "output": answer}


SHAPES = {
    "openai": lambda c: {"messages": openai(c)},
    "parts": lambda c: {"messages": openai(c, wrap=parts)},
    "sharegpt": lambda c: {"conversations": openai(c, ("system", "human", "gpt"), ("from", "value"))},
    "lmsys": lambda c: {"conversation_id": "x", "conversation": openai(c)},
    "developer": lambda c: {"messages": openai(c, ("developer", "user", "assistant"))},
    "gemini": lambda c: {"messages": openai(c, ("system", "user", "model"), ("role", "parts"), parts)},
    "trl": trl,
    "columns": columns,
    "bare list": openai,
}


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40, deadline=None)
@given(conversation=CONVERSATIONS)
def test_every_shape_gives_the_same_conversation(tmp_path_factory, shape, conversation):
    system, earlier, ask, answer = conversation
    before = [] if system is None else [("system", system)]
    before += [turn for one, two in earlier for turn in (("user", one), ("assistant", two))]
    path = tmp_path_factory.mktemp("shape") / "rows.jsonl"
    path.write_text(json.dumps(SHAPES[shape](conversation)) + "\n", encoding="utf-8")
    for data in (prompts.read(path), as_prompts([SHAPES[shape](conversation)])):
        (prompt,) = data.prompts
        assert (str(prompt), list(prompts.promptset.context_of(prompt))) == (ask, before)
        assert data.responses == (None if answer is None else (answer,))
        again = prompts.read(data.to_jsonl(path.with_name("again.jsonl")))
        loaded = PromptSet.load(data.save(path.with_name("saved")))
        assert again.sha256 == loaded.sha256 == data.sha256
        assert loaded == data


def test_messages_inside_a_csv_cell(tmp_path):
    rows = openai((None, [], "Say a, b", "a"))
    pd.DataFrame({"messages": [json.dumps(rows), str(rows)]}).to_csv(tmp_path / "set.csv", index=False)
    assert prompts.read(tmp_path / "set.csv").pairs() == [("Say a, b", "a")] * 2


@pytest.mark.parametrize(
    ("row", "needle"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'"),
        ({"messages": [{"role": "user", "content": None}]}, "content is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "no text (image)"),
        ({"messages": [{"content": "x"}]}, "without a role"),
        ({"messages": openai((None, [], "a", "b")) * 2 + openai((None, [], "a", "b"))[1:]}, "in turn"),
        ({"messages": [*openai((None, [], "a", "b")), *openai(("late", [], "c", "d"))]}, "in turn"),
        ({"messages": []}, "no messages"),
        ({"messages": "hello"}, "no list of messages"),
        ({"messages": None}, "no messages"),
        ({"messages": openai((None, [], "x" * (LONGEST + 1), "d"))}, "500,001 characters"),
        ({"messages": openai((None, [], "no answer", None))}, "no answer"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, row, needle):
    path = tmp_path / "rows.jsonl"
    good = {"messages": openai((None, [], "ask", "say"))}
    path.write_text("\n".join(json.dumps(one) for one in (good, row, good)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        prompts.read(path)
    assert needle in str(caught.value) and "line 2" in str(caught.value) and len(str(caught.value)) < 400
    assert "skip_unusable=True" in str(caught.value)
    data = prompts.read(path, skip_unusable=True)
    assert data.prompts == ("ask", "ask")
    assert "1 of 3 rows that cannot be used skipped" in data.source


def test_long_texts_are_refused_in_one_line(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("prompt,note\nok,\n" + "x" * 20_000_000 + ",\n")
    with pytest.raises(InputError, match=r"row 2 \(line 3\): .*20,000,000 characters") as caught:
        prompts.read(path)
    assert len(str(caught.value)) < 400
    assert prompts.read(path, skip_unusable=True).prompts == ("ok",)
    with pytest.raises(InputError, match="row 1 has 1,000,000 characters"):
        as_prompts(["x" * 10**6])


def test_several_user_turns_without_answers(tmp_path):
    path = tmp_path / "turns.jsonl"
    path.write_text('{"turns": ["one"]}\n{"turns": ["one", "two"]}\n')
    with pytest.raises(InputError, match="2 turns of the user and no answers between"):
        prompts.read(path)
    assert prompts.read(path, skip_unusable=True).prompts == ("one",)


# ---- columns that belong to the prompt ----------------------------------------------------------------


def test_text_beside_the_prompt_is_joined_or_named(tmp_path):
    def read(row, **how):
        (tmp_path / "x.jsonl").write_text(json.dumps(row))
        return prompts.read(tmp_path / "x.jsonl", **how)

    harmbench = {"Behavior": "Sum it up", "ContextString": "Two onions.", "BehaviorID": "x"}
    assert read(harmbench).prompts == ("Two onions.\n\n---\n\nSum it up",)
    assert "ContextString" in read(harmbench).source and "not read: BehaviorID" in read(harmbench).source
    assert read({**harmbench, "ContextString": ""}).prompts == ("Sum it up",)
    assert "not read: ContextString" in read(harmbench, column="Behavior").source
    dolly = {"instruction": "When?", "context": "In 1990.", "response": "1990", "category": "qa"}
    assert read(dolly).pairs() == [("When?\n\nIn 1990.", "1990")]
    assert read({"question": "When?", "context": "In 1990."}).prompts == ("In 1990.\n\nWhen?",)
    orca = {"id": 1, "system_prompt": "Be brief.", "question": "Why?", "response": "So."}
    assert read(orca).prompts[0] == "Why?" and read(orca).prompts[0].system == "Be brief."
    chat = {"prompt": "first", "messages": openai((None, [("first", "a")], "second", "b"))}
    assert read(chat).pairs() == [("second", "b")]  # UltraChat


def test_labels(tmp_path):
    path = tmp_path / "xstest.csv"
    path.write_text("prompt,type,label\na,homonyms,safe\nb,contrast_homonyms,unsafe\n")
    data = prompts.read(path)
    assert (data.labels, data.categories) == (("safe", "unsafe"), ("homonyms", "contrast_homonyms"))
    assert data.labelled("unsafe").prompts == ("b",)
    assert "1 of 2 rows labelled safe" in data.labelled("safe").source
    path.write_text("prompt,type\na,homonyms\nb,contrast_homonyms\n")
    assert prompts.read(path).labels == ("safe", "unsafe")
    path.write_text("prompt,prompt_harm_label\na,unharmful\nb,harmful\n")
    assert prompts.read(path).labels == ("safe", "unsafe")
    path.write_text("prompt,label\na,3\nb,4\n")
    assert prompts.read(path).labels is None
    path.write_text("prompt,label\na,safe\n")
    with pytest.raises(InputError, match="no row of 'xstest' is labelled unsafe"):
        prompts.read(path).labelled("unsafe")


def test_worked_solutions(tmp_path):
    rows = [
        {"question": "1+1", "answer": "One and one.\n#### 2"},
        {"question": "k", "answer": "x\n#### 1,000"},
    ]
    data = prompts.read(rows)
    assert data.answers == ("2", "1000") and data.responses == tuple(row["answer"] for row in rows)


def test_excel(tmp_path):
    for first in ("sep=;\r\n", '"sep=;"\n', "SEP=|\n", "sep=\t\n"):
        mark = first.strip('"\r\n')[-1]
        path = tmp_path / "a.csv"
        path.write_text(f'{first}prompt{mark}n\n"one;|, two"{mark}1\n{mark}2\n', newline="")
        with pytest.raises(InputError, match=r"row 2 \(line 4\)"):
            prompts.read(path)
        assert prompts.read(path, skip_empty=True).prompts == ("one;|, two",)


def test_one_column_for_several_files(tmp_path):
    odd, plain = tmp_path / "odd.csv", tmp_path / "plain.csv"
    odd.write_text("id,forbidden_q\n1,a\n")
    plain.write_text("prompt\nb\n")
    found = prompts.read_each({"harmful": odd, "harmless": plain, "lookalike": None}, "forbidden_q")
    assert [one and one.prompts for one in found.values()] == [("a",), ("b",), None]
    with pytest.raises(InputError, match="no column 'quest'"):
        prompts.read_each({"harmful": odd, "harmless": plain}, "quest")
    with pytest.raises(InputError, match=r"odd\.csv has no column that is known"):
        prompts.read_each({"harmful": odd, "harmless": odd})


# ---- in memory ----------------------------------------------------------------------------------------

IN_MEMORY = {
    "list": lambda texts: list(texts),
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "array": lambda texts: np.array(texts),
    "series": lambda texts: pd.Series(texts, index=[7, 5]),
    "frame": lambda texts: pd.DataFrame({"id": [1, 2], "goal": texts}),
    "columns": lambda texts: {"id": [1, 2], "goal": texts},
    "rows": lambda texts: [{"goal": text, "id": 1} for text in texts],
    "conversations": lambda texts: [openai((None, [], text, None)) for text in texts],
    "examples": lambda texts: [prompts.Example(text) for text in texts],
    "pairs": lambda texts: [(text, "yes") for text in texts],
    "keys": lambda texts: dict.fromkeys(texts).keys(),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_natural_inputs(kind):
    assert as_prompts(IN_MEMORY[kind](["one", "two"])).prompts == ("one", "two")
    assert prompts.read(IN_MEMORY[kind](["one", "two"])).prompts == ("one", "two")


def test_datasets_in_memory():
    datasets = pytest.importorskip("datasets")
    read = inspect.unwrap(as_prompts)  # as users run it, without the tests' type checks
    one = datasets.Dataset.from_dict({"id": [1, 2], "goal": ["one", "two"], "target": ["1", "2"]})
    assert read(one).pairs() == [("one", "1"), ("two", "2")]
    assert read(datasets.DatasetDict({"train": one})).prompts == ("one", "two")
    assert read(one.data.table).prompts == ("one", "two")
    with pytest.raises(InputError, match="streamed"):
        read(one.to_iterable_dataset())
    with pytest.raises(InputError, match="splits train, test"):
        read(datasets.DatasetDict({"train": one, "test": one}))


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"goal": ["one"], "target": ["1"]}).to_parquet(tmp_path / "a.parquet")
    assert prompts.read(tmp_path / "a.parquet").pairs() == [("one", "1")]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        prompts.read(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("given", "needle"),
    [
        ("one", "one string; write \\[prompt\\]"),
        (b"one", "one string"),
        (None, "NoneType"),
        (7, "is a int"),
        ({"one", "two"}, "no order"),
        ([1, 2], "row 1 is a int"),
        (["one", None], "row 2 is a NoneType"),
        (["one", {"prompt": "two"}], "row 1 is a str, not an object"),
        (np.zeros((2, 2)), "is a ndarray"),
        (np.zeros(2), "row 1 is a float"),
        (pd.DataFrame({"x": ["one"]}), "no column that is known"),
        (pd.DataFrame({"prompt": []}), "no rows"),
        (pd.DataFrame({"prompt": ["one", float("nan")]}), "1 of 2 prompts are empty"),
        ({"prompt": "one"}, "put one row into a list"),
        ({"prompt": ["one"], "target": ["1", "2"]}, "differ in length"),
        (["x" * (LONGEST + 1)], "row 1 has 500,001 characters"),
        (object(), "is a object"),
    ],
)
def test_what_is_no_prompts(given, needle):
    with pytest.raises(InputError, match=needle) as caught:
        inspect.unwrap(as_prompts)(given)  # as users run it, without the tests' type checks
    assert "\n" not in str(caught.value)


def test_sets_refuse_tables():
    for table in (pd.DataFrame({"prompt": ["a"]}), {"prompt": ["a"]}):
        with pytest.raises(InputError, match=r"prompts\.read"):
            PromptSet.from_prompts(table)


def test_a_prompt_is_its_text_and_knows_its_conversation():
    system = Prompt("hi", [("system", "s")])
    assert system == "hi" and hash(system) == hash("hi") and system.system == "s"
    assert prompts.content(system) != prompts.content("hi") == prompts.content(Prompt("hi")) == b"hi"
    rebuild, arguments, *_ = system.__reduce_ex__(4)  # how another process is handed one
    for again in (copy.copy(system), copy.deepcopy(system), rebuild(*arguments)):
        assert again == system and again.context == system.context
    assert PromptSet(("hi",)).sha256 != PromptSet((system,)).sha256
    assert PromptSet(("hi",)) != PromptSet((system,))
    data = PromptSet(("hi", system, "ho"))
    assert data.subset([1]).contexts == ((("system", "s"),),) and data.subset([0, 2]).contexts is None
    assert PromptSet.concat([data, PromptSet(("x",))]).prompts[1].context == system.context
    assert list(data.to_frame()["system"]) == [None, "s", None]


# ---- rendering ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_whole_conversation_is_rendered(template):
    """As the tokenizer's own template writes it, and with labels on the last answer alone."""
    tokenizer = make("bytelevel", template)
    conversation = ["Be brief.", [("one", "two")], "three", "four"]
    (prompt,), (answer,) = (lambda data: (data.prompts, data.responses))(
        as_prompts([{"messages": openai(conversation)}])
    )
    if prompts.chat_format(tokenizer).system == "merged":
        conversation[:2] = None, [("Be brief.\n\none", "two")]
    own = tokenizer.apply_chat_template(openai(conversation), tokenize=False)
    assert own.startswith(render(tokenizer, prompt, response=answer))
    turn = encode_pair(tokenizer, prompt, answer)
    said = tokenizer.decode(turn.label_ids)
    assert "four" in said and "two" not in said and "two" in tokenizer.decode(turn.input_ids)
    with pytest.raises(InputError, match="system message of its own"):
        render(tokenizer, prompt, system="other")
    assert render(tokenizer, prompt, system="Be brief.") == render(tokenizer, prompt)


def test_without_a_template():
    tokenizer = make("bytelevel", None)
    text = render(tokenizer, Prompt("three", [("system", "s"), ("user", "one"), ("assistant", "two")]))
    end = tokenizer.eos_token
    assert text.endswith(f"s\n\nUser: one\n\nAssistant: two{end}\n\nUser: three\n\nAssistant:")
