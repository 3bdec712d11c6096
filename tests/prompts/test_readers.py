"""Files into prompt sets: the usual columns, the usual mistakes."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from tamperlens import prompts
from tamperlens.base.errors import InputError
from tamperlens.prompts.columns import PROMPT_COLUMNS, RESPONSE_COLUMNS


@pytest.fixture
def write(tmp_path):
    def file(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return file


def fails(path, *needles, **arguments):
    """Reading raises one line that holds every needle."""
    with pytest.raises(InputError) as caught:
        prompts.read(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message, message
    for needle in needles:
        assert needle in message, message
    return message


# ---- real files -------------------------------------------------------------------------------------


REAL = {
    "prompts/advbench.csv": (520, "goal", "target"),
    "prompts/jailbreakbench.csv": (100, "Goal", "Target"),
    "prompts/strongreject.csv": (313, "forbidden_prompt", None),
    "prompts/gsm8k_test.jsonl": (1319, "question", "answer"),
    "xstest/xstest_prompts.csv": (450, "prompt", None),
    "xstest/completions_gpt4.csv": (450, "prompt", "completion"),
    "xstest/completions_llama2orig.csv": (450, "prompt", "completion"),
    "xstest/completions_mistralguard.csv": (450, "prompt", "completion"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_read_as_the_standard_library_reads_them(shared_data, name):
    n, column, answer = REAL[name]
    path = shared_data / name
    with path.open(encoding="utf-8", newline="") as handle:
        rows = (
            [json.loads(line) for line in handle] if path.suffix == ".jsonl" else list(csv.DictReader(handle))
        )
    data = prompts.read(path)
    assert len(data) == n
    assert list(data.prompts) == [row[column] for row in rows]
    assert data.responses == (None if answer is None else tuple(row[answer] for row in rows))
    assert data.name == path.stem
    assert repr(column) in data.source
    assert prompts.read(path, column=column).prompts == data.prompts


def test_alpaca(shared_data):
    path = shared_data / "prompts" / "alpaca_5000.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    data = prompts.read(path)
    assert len(data) == len(rows) == 5000
    assert data.responses == tuple(row["output"] for row in rows)
    for row, prompt in zip(rows, data.prompts, strict=True):
        expected = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
        assert prompt == expected
    with_input = next(i for i, row in enumerate(rows) if row["input"])
    published = prompts.read(path, alpaca="stanford")
    assert published.prompts[with_input] == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n"
        f"{rows[with_input]['instruction']}\n\n### Input:\n{rows[with_input]['input']}\n\n### Response:"
    )
    alone = prompts.read(path, column="instruction")
    assert alone.prompts == tuple(row["instruction"] for row in rows)
    full = prompts.read(path, skip_empty=True)
    assert len(full) == sum(bool(row["output"].strip()) for row in rows) < 5000
    assert "2 rows with empty cells skipped" in full.source


# ---- columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [*PROMPT_COLUMNS, "Behavior", "GOAL", "Forbidden_Prompt"])
@pytest.mark.parametrize("response", [*RESPONSE_COLUMNS, "Output"])
def test_usual_names(write, column, response):
    data = prompts.read(write("set.csv", f"id,{column},{response}\n1,Ask,Say\n"))
    assert (data.prompts, data.responses) == (("Ask",), ("Say",))


def test_order_of_preference(write):
    data = prompts.read(write("jbb.csv", "Goal,Target,Behavior,Category\nask,say,short,fraud\n"))
    assert (data.prompts, data.responses, data.categories) == (("ask",), ("say",), ("fraud",))
    data = prompts.read(write("both.jsonl", '{"question": "q", "response": "long", "answer": 4}\n'))
    assert (data.responses, data.answers) == (("long",), ("4",))
    assert prompts.read(write("only.jsonl", '{"question": "q", "answer": 4}\n')).responses == ("4",)
    data = prompts.read(write("spans.jsonl", '{"question": "q", "answer": {"text": ["a"]}}\n'))
    assert data.responses is None


def test_named_columns(write):
    path = write("set.csv", "Frage,Antwort,Art\nwas?,das,kurz\n")
    data = prompts.read(
        path, column="frage", response_column="Antwort", category_column="Art", name="deutsch"
    )
    assert (data.prompts, data.responses, data.categories) == (("was?",), ("das",), ("kurz",))
    assert data.name == "deutsch"
    fails(path, "set.csv", "Frage, Antwort, Art", "column=")
    fails(path, "no column 'prompt'", "Frage, Antwort, Art", column="prompt")
    fails(path, "no column 'Reply'", column="Frage", response_column="Reply")


def test_names_that_differ_in_case_only_are_unclear(write):
    path = write("set.csv", "Prompt,prompt\na,b\n")
    fails(path, "'Prompt' and 'prompt'", "column=")
    assert prompts.read(path, column="Prompt").prompts == ("a",)
    fails(write("twice.csv", "prompt,prompt\na,b\n"), "'prompt' appears twice")


# ---- kinds of file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,response\none,1\ntwo,2\n"),
        ("bom.csv", b"\xef\xbb\xbfprompt,response\r\none,1\r\ntwo,2\r\n"),
        ("quoted.csv", 'id,"prompt","response"\n,"one",1\n,"two",2'),
        ("semicolon.csv", "prompt;response\none;1\ntwo;2\n"),
        ("tab.tsv", "prompt\tresponse\none\t1\ntwo\t2\n"),
        ("list.json", '[{"prompt": "one", "response": "1"}, {"prompt": "two", "response": "2"}]'),
        (
            "data.json",
            '{"version": 1, "data": [{"prompt": "one", "response": 1}, {"prompt": "two", "response": 2}]}',
        ),
        ("columns.json", '{"prompt": ["one", "two"], "response": ["1", "2"]}'),
        ("pandas.json", '{"prompt": {"0": "one", "1": "two"}, "response": {"0": "1", "1": "2"}}'),
        ("lines.jsonl", '{"prompt": "one", "response": "1"}\n\n{"prompt": "two", "response": "2"}\n'),
        ("lines.json", '{"prompt": "one", "response": "1"}\n{"prompt": "two", "response": "2"}\n'),
        (
            "chat.jsonl",
            '{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]}\n'
            '{"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}]}\n',
        ),
        (
            "sharegpt.json",
            '[{"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "1"}]},'
            ' {"conversations": [{"from": "human", "value": "two"}, {"from": "gpt", "value": "2"}]}]',
        ),
    ],
)
def test_kinds_of_file(write, name, content):
    data = prompts.read(write(name, content))
    assert (data.prompts, data.responses) == (("one", "two"), ("1", "2"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "one\n\ntwo\r\n"),
        ("strings.json", '["one", "two"]'),
        ("data.json", '{"data": ["one", "two"]}'),
        ("strings.jsonl", '"one"\n"two"\n'),
    ],
)
def test_prompts_alone(write, name, content):
    data = prompts.read(write(name, content))
    assert (data.prompts, data.responses) == (("one", "two"), None)


def test_cells_are_taken_as_written(write):
    cells = ["NA", "null", "  spaced ", 'a "quote"', "two\nlines", "nan", "1,5"]
    rows = "".join('"' + cell.replace('"', '""') + '"\n' for cell in cells)
    assert prompts.read(write("set.csv", "prompt\n" + rows)).prompts == tuple(cells)
    long = "x" * 300_000
    assert prompts.read(write("long.csv", f"prompt\n{long}\n")).prompts == (long,)
    assert csv.field_size_limit() == 131072


def test_line_separators_inside_a_json_string(write):
    assert prompts.read(write("set.jsonl", '{"prompt": "a\u2028b"}\n')).prompts == ("a\u2028b",)


# ---- mistakes ---------------------------------------------------------------------------------------


def test_no_file_or_no_text(write, tmp_path):
    write("prompts.csv", "prompt\na\n")
    fails(tmp_path / "promts.csv", "no file", "did you mean", "prompts.csv")
    fails("no/such/folder/a.csv", "no file no/such/folder/a.csv")
    fails(tmp_path, "is a folder", "prompts.csv")
    fails(write("a.csv", ""), "a.csv is empty")
    fails(write("b.jsonl", "\n \n"), "b.jsonl is empty")
    fails(write("c.csv", "prompt,response\n"), "header (prompt, response) and no rows")
    fails(write("d.json", "[]"), "empty list")
    fails(write("e.xlsx", "PK"), "unknown type '.xlsx'", ".csv")


def test_other_encodings(write):
    path = write("latin.csv", "prompt\nplain\nna\u00efve\n".encode("latin-1"))
    fails(path, "latin.csv is not UTF-8", "byte 0xef at offset 15, line 3", "iconv -f WINDOWS-1252 -t UTF-8")
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):  # what spreadsheets save, with a byte-order mark
        path = write(f"{encoding}.csv", "prompt;id\r\nna\u00efve, or not;1\r\n".encode(encoding))
        assert prompts.read(path).prompts == ("na\u00efve, or not",)
    fails(write("half.csv", b"\xff\xfep\x00r"), "UTF-16", "cut off")
    fails(write("bare.csv", "prompt\nplain\n".encode("utf-16-le")), "zero bytes", "UTF-8")


def test_empty_cells(write):
    path = write("set.csv", "id,prompt,response\n1,one,yes\n2,,no\n3,  ,no\n4,four,\n")
    fails(path, "2 of 4 prompts are empty", "row 2 (line 3), row 3 (line 4)", "skip_unusable=True")
    data = prompts.read(path, skip_empty=True)
    assert data.prompts == ("one",)
    assert "3 rows with empty cells skipped" in data.source
    kept = prompts.read(write("ok.csv", "prompt,response\na,yes\nb,\n"))
    assert kept.responses == ("yes", ""), "an empty completion is data"
    fails(write("none.jsonl", '{"prompt": null}\n'), "line 1")
    fails(write("all.csv", "id,prompt\n1,\n"), "no row with text", skip_empty=True)


def test_malformed_files(write):
    fails(write("a.jsonl", '{"prompt": "a"}\n{"prompt": \n'), "a.jsonl, line 2 is not JSON")
    fails(write("b.jsonl", '[\n{"prompt": "a"}\n]\n'), "line 1 is not JSON", "name it .json")
    fails(write("c.json", '{"prompt": "a"'), "c.json is not JSON")
    fails(write("d.json", "7"), "holds a JSON int")
    fails(write("e.json", '{"a": 1, "b": 2}'), "with the keys a, b")
    fails(write("f.json", '["a", {"prompt": "b"}]'), "item 1 is a str, not an object")
    fails(write("g.csv", 'prompt,response\n"a,b\nc,d\n'), "g.csv", "double quote")
    fails(write("h.csv", "prompt,response\na,b,c\n"), "line 2: 3 cells under 2 columns")
    fails(write("i.jsonl", '{"prompt": ["a"]}\n'), "line 1: 'prompt' is a list, not text")
    turns = [{"role": "system", "content": "s"}, {"role": "assistant", "content": "u"}]
    fails(write("j.jsonl", json.dumps({"messages": turns}) + "\n"), "line 1", "roles: system, assistant")


def test_packaged_format(write):
    header = json.dumps({"$set": {"name": "mine", "licence": "MIT", "source": "me"}})
    rows = [{"prompt": "a", "answer": "1", "split": "train"}, {"prompt": "b", "answer": "2", "split": "test"}]
    path = write("x.jsonl", "\n".join([header, *map(json.dumps, rows)]))
    data = prompts.read(path)
    assert (data.answers, data.responses, data.name, data.licence) == (("1", "2"), None, "mine", "MIT")
    assert prompts.read(path, split="test").prompts == ("b",)
    fails(path, "no split 'dev'; it has test, train", split="dev")
    fails(write("y.jsonl", header + '\n{"prompt": "a"}\n{"answer": "1"}\n'), "line 3 has no 'prompt'")
    fails(write("z.jsonl", header), "no rows")
    fails(write("plain.csv", "prompt\na\n"), "no splits", split="test")


# ---- Hugging Face datasets --------------------------------------------------------------------------


def test_dataset_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"id": [1, 2], "goal": ["one", "two"], "target": ["1", "2"], "score": [[0.5], [0.5]]}
    one = datasets.Dataset.from_dict(rows)
    one.save_to_disk(str(tmp_path / "one"))
    data = prompts.read(tmp_path / "one")
    assert (data.prompts, data.responses, data.name) == (("one", "two"), ("1", "2"), "one")
    fails(tmp_path / "one", "no column 'ask'", "id, goal, target, score", column="ask")
    both = datasets.DatasetDict({"train": one, "test": one.select([1])})
    both.save_to_disk(str(tmp_path / "both"))
    fails(tmp_path / "both", "the splits train, test", "split=")
    assert prompts.read(tmp_path / "both", split="test").prompts == ("two",)
    fails(tmp_path / "both", "no split 'dev'", split="dev")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    fails(tmp_path / "broken", "cannot read the dataset folder")


def test_hub_ids_without_a_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("datasets")
    fails("owner/no-such-set", "no file owner/no-such-set", "hub data set")
    fails("owner/no-such-file.csv", "no file owner/no-such-file.csv;")


def test_the_missing_extra_is_named(monkeypatch, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)  # what an absent package looks like to import
    fails(tmp_path / "saved", "pip install 'tamperlens[datasets]'")
    fails("owner/name", "optional extra 'datasets'")
