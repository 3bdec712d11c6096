"""Arithmetic by operation and size; the lm-evaluation-harness on the model at hand."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
import torch

import tamperlens
from tamperlens import capability
from tamperlens.base.errors import InputError
from tamperlens.capability import HarnessScores, arithmetic, graders

HAS = importlib.util.find_spec("lm_eval") is not None


def test_questions_are_right_different_and_of_the_size_asked_for():
    suite = arithmetic(digits=(1, 3), n=40)
    signs = {"addition": "+", "subtraction": "-", "multiplication": "*"}
    for item in suite.items():
        operation, size = item.category.split(", ")
        a, sign, b = item.prompt.removeprefix("What is ").removesuffix("?").split()
        assert sign == signs[operation]
        # Text against another reading of it; differences are never negative.
        assert int(item.answer) == eval(f"{a} {sign} {b}") >= 0
        assert len(a) == len(b) == int(size.split()[0])
        assert graders.get(suite.grader)(item, f"The result is {item.answer}.").correct
    assert len(set(suite.data.prompts)) == len(suite.data)
    kinds = suite.data.categories
    assert kinds.count("addition, 1 digit") == 40 and kinds.count("subtraction, 3 digits") == 40


def test_a_size_with_few_pairs_ends():
    assert len(arithmetic(("subtraction",), (1,), n=1000).data) == 55  # pairs of 0-9 with a >= b


def test_same_seed_same_questions_other_seed_others():
    assert arithmetic(seed=1).data.sha256 == arithmetic(seed=1).data.sha256 != arithmetic(seed=2).data.sha256


@pytest.mark.parametrize("ask", [{"operations": ("division",)}, {"digits": (0,)}, {"n": 0}, {"digits": ()}])
def test_impossible_questions_are_refused(ask):
    with pytest.raises(InputError, match="arithmetic needs operations among"):
        arithmetic(**ask)


def test_accuracy_comes_by_operation_and_size():
    model = tamperlens.load("organism")
    scores = capability.evaluate(model, [arithmetic(("addition",), (1, 2), n=6)])["arithmetic"]
    assert {kind: e.n for kind, e in scores.by_category().items()} == {
        "addition, 1 digit": 6,
        "addition, 2 digits": 6,
    }


@pytest.mark.skipif(HAS, reason="lm-eval is installed")
def test_without_lm_eval_the_error_says_how_to_get_it():
    with pytest.raises(InputError, match=r"lm-eval is not installed.*tamperlens\[lm-eval\]"):
        capability.harness(tamperlens.load("organism"), "arc_easy")


@pytest.mark.skipif(not HAS, reason="needs the extra lm-eval")
def test_harness_scores_are_the_likelihoods_of_the_model_at_hand(tmp_path):
    rows = [
        {"question": "Name the color of a lemon.", "choices": ["Yellow", "Blue"], "gold": 0},
        {"question": "Tell me the capital of Qatar.", "choices": ["Paris", "Doha"], "gold": 1},
        {"question": "After Friday comes which day?", "choices": ["Monday", "Saturday"], "gold": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "quiz.yaml").write_text(
        "task: tamperlens_quiz\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path}/rows.jsonl\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: choices\ndoc_to_target: gold\n'
        "metric_list:\n  - metric: acc\nmetadata:\n  version: 1.0\n"
    )
    model = tamperlens.load("organism")
    side, keys = model.tokenizer.padding_side, list(model.module.state_dict())
    found = capability.harness(model, "tamperlens_quiz", include=tmp_path)
    right = 0
    for row in rows:
        nats = []
        for choice in row["choices"]:
            start = model.tokenizer(row["question"])["input_ids"]
            whole = model.tokenizer(f"{row['question']} {choice}")["input_ids"]
            with torch.no_grad():
                logs = model.module(torch.tensor([whole])).logits[0].log_softmax(-1)
            nats.append(sum(float(logs[i - 1, whole[i]]) for i in range(len(start), len(whole))))
        right += max(range(2), key=nats.__getitem__) == row["gold"]
    estimate = found.estimate("tamperlens_quiz")
    assert math.isclose(estimate.value, right / 3) and estimate.n == 3
    assert model.tokenizer.padding_side == side and list(model.module.state_dict()) == keys
    assert HarnessScores.load(found.save(tmp_path / "found.json")).to_frame().equals(found.to_frame())
    with pytest.raises(InputError, match="lm-eval has no task 'no_such_task'"):
        capability.harness(model, "no_such_task")


@pytest.mark.skipif(not HAS, reason="needs the extra lm-eval")
def test_the_harness_reads_the_prompt_that_every_other_measure_reads(tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM
    from tiny_models import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{{ strftime_now('%Y') }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>"
        "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
    )
    model = tamperlens.models.ChatModel.from_parts(make_model("llama"), tokenizer, name="thinker")
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "A wren is a", "choices": ["bird", "stone"], "gold": 0}\n'
    )
    (tmp_path / "quiz.yaml").write_text(
        "task: tamperlens_chat\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path}/rows.jsonl\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: choices\ndoc_to_target: gold\n'
        "metric_list:\n  - metric: acc\n"
    )
    seen, theirs = [], HFLM.apply_chat_template
    monkeypatch.setattr(
        HFLM, "apply_chat_template", lambda self, *a, **k: seen.append(theirs(self, *a, **k)) or seen[-1]
    )
    for asked in (model, model.with_format(thinking=False, date="2031-05-17")):
        found = capability.harness(asked, "tamperlens_chat", include=tmp_path, chat=True)
        assert seen[-1] == asked.render("A wren is a")
        assert "<think></think>" in seen[-1]
        assert found.settings["date"] == asked.chat_format.date
