"""Suites, evaluation and comparison on tiny models; perplexity against its literal definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tamperlens import capability, prompts
from tamperlens.base.errors import InputError
from tamperlens.capability import CapabilityScores, Suite, graders
from tamperlens.capability.suites import packaged_suites, suites_for
from tamperlens.models import ChatModel, load
from tamperlens.prompts import PromptSet, encode_pairs


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Any]) -> ChatModel:
    module, tokenizer = tiny("llama")
    return ChatModel.from_parts(module, tokenizer, name="tiny llama", check_anatomy=False)


def quiz(model: ChatModel, right: int = 3, n: int = 5) -> Suite:
    """Questions of which the model gets exactly the first `right` right: the answers are its own."""
    asked = tuple(f"Question {i}?" for i in range(n))
    replies = model.generate(asked, max_new_tokens=4)
    answers = tuple((reply or "?") if i < right else "something else" for i, reply in enumerate(replies))
    return Suite("quiz", PromptSet(asked, None, answers, ("a", "b", "a", "b", "a")[:n], "quiz"), "exact", 4)


def test_accuracy_is_counted(model: ChatModel) -> None:
    suite = quiz(model)
    scores = capability.evaluate(model, [suite])
    score = scores["quiz"]
    assert score.correct == (True, True, True, False, False)
    assert (score.accuracy.value, score.accuracy.n) == (0.6, 5)
    assert score.accuracy.low < 0.6 < score.accuracy.high
    assert score.responses == tuple(model.generate(suite.data.prompts, max_new_tokens=4))
    assert scores.fingerprint == model.fingerprint
    kinds = score.by_category()
    assert (kinds["a"].n, kinds["b"].n) == (3, 2)
    assert kinds["b"].value == 0.5
    assert score.reasons[:3] == ("", "", "")
    assert all(score.reasons[3:])
    frame = scores.completions
    assert frame["correct"].tolist() == list(score.correct)
    assert set(frame.columns) >= {"suite", "prompt", "expected", "response", "found", "correct", "reason"}
    assert scores.to_frame()["value"].tolist() == [0.6]


def test_scores_are_saved(model: ChatModel, tmp_path: Path) -> None:
    scores = capability.evaluate(model, [quiz(model)], system="Be brief.")
    assert CapabilityScores.load(scores.save(tmp_path / "scores.json")) == scores


def test_several_suites_and_a_limit(model: ChatModel) -> None:
    scores = capability.evaluate(model, ("addition", "english-facts"), limit=3, max_new_tokens=2)
    assert scores.suites == ("addition", "english-facts")
    assert [score.accuracy.n for score in scores.scores] == [3, 3]
    assert scores.overall.n == 6
    assert scores["addition"].prompts == prompts.packaged("addition", "test").prompts[:3]
    train = capability.evaluate(model, "addition", limit=2, max_new_tokens=2, split="train")
    assert train["addition"].prompts == prompts.packaged("addition", "train").prompts[:2]


def test_before_and_after_are_paired(model: ChatModel) -> None:
    suite = quiz(model)
    before = capability.evaluate(model, [suite])
    flags = (True, False, False, True, False)
    after = dataclasses.replace(before, scores=(dataclasses.replace(before["quiz"], correct=flags),))
    change = capability.compare(before, after)
    test = change["quiz"]
    assert (test.gained, test.lost) == (1, 2)
    assert test.difference.value == pytest.approx(-0.2)
    assert test.p_value == 1.0
    assert change.adjusted == (1.0,)
    assert change.to_frame()["suite"].tolist() == ["quiz"]


def test_what_is_not_alike_is_not_compared(model: ChatModel) -> None:
    before = capability.evaluate(model, [quiz(model)])
    for after, message in (
        (capability.evaluate(model, [quiz(model, n=4)]), "data_sha256"),
        (capability.evaluate(model, [quiz(model)], max_new_tokens=3), "max_new_tokens"),
        (capability.evaluate(model, [quiz(model)], system="Hi"), "system"),
        (capability.evaluate(model, ["addition"], limit=1, max_new_tokens=1), "same"),
    ):
        with pytest.raises(InputError, match=message):
            capability.compare(before, after)


def test_suites_that_cannot_be_used(model: ChatModel) -> None:
    bare = PromptSet.from_prompts(["Hi"], name="bare")
    with pytest.raises(InputError, match="no expected answers"):
        Suite("mine", bare, "exact")
    with pytest.raises(InputError, match="no grader named 'psychic'"):
        Suite("mine", PromptSet(("Hi",), None, ("x",)), "psychic")
    with pytest.raises(InputError, match="row 1: the expected answer is empty"):
        Suite("mine", PromptSet(("a", "b"), None, ("x", " ")), "exact")
    with pytest.raises(InputError, match="known: addition"):
        capability.evaluate(model, ["juggling"])
    with pytest.raises(InputError, match="named twice"):
        capability.evaluate(model, ["addition", "addition"])
    with pytest.raises(InputError, match="limit=0 must be"):
        capability.evaluate(model, ["addition"], limit=0)
    with pytest.raises(InputError, match="no suites"):
        capability.evaluate(model, [])


def test_suites_for_a_model_go_by_language(model: ChatModel) -> None:
    assert suites_for(model) == capability.ENGLISH_SUITES
    assert suites_for(load("organism:tiny")) == capability.ORGANISM_SUITES
    assert set(capability.ORGANISM_SUITES + capability.ENGLISH_SUITES) <= set(packaged_suites())


@pytest.mark.parametrize("name", packaged_suites())
def test_every_packaged_suite_grades_itself(name: str) -> None:
    suite = Suite.packaged(name)
    assert len(suite.data) >= 60
    items, grader = suite.items(), graders.get(suite.grader)
    written = suite.data.responses or tuple(item.answer.split(" | ")[0] for item in items)
    # Every call is type-checked in tests, which makes the evaluator slow; half a dozen of each kind will do.
    picked = range(0, len(items), max(1, len(items) // (12 if suite.grader == "code" else 40)))
    for i in picked:
        assert grader(items[i], written[i]).correct, (items[i], written[i])
        assert not grader(items[i], items[i].prompt).correct, items[i]
        assert not grader(items[i], "").correct
        assert not grader(items[i], "I'm sorry, but I can't help with that.").correct
    wrong = [
        i
        for i in picked
        if items[i].answer != items[i - 7].answer and grader(items[i], written[i - 7]).correct
    ]
    assert len(wrong) <= len(picked) / 30, wrong


PAIRS = [
    ("Say hi", "hi there"),
    ("A much longer request than the first", "no"),
    ("Go", "a rather long answer, yes"),
]


def test_perplexity_is_token_weighted(model: ChatModel) -> None:
    total, n = 0.0, 0
    sums = []
    for one in encode_pairs(model.tokenizer, PAIRS):
        logits = model.module(input_ids=torch.tensor([one.input_ids])).logits[0].double()
        nats = 0.0
        for t in range(1, len(one.input_ids)):
            if one.labels[t] != -100:
                nats -= torch.log_softmax(logits[t - 1], -1)[one.labels[t]].item()
                n += 1
        sums.append(nats)
        total += nats
    result = capability.perplexity(model, PromptSet.from_pairs(PAIRS, name="pairs"))
    assert result.n_tokens == n == sum(len(answer) + 1 for _, answer in PAIRS)
    assert result.nll.value == pytest.approx(total / n, rel=1e-5)
    assert result.perplexity.value == pytest.approx(math.exp(total / n), rel=1e-4)
    assert result.answer_nll == pytest.approx(tuple(sums), rel=1e-5)
    assert result.nll.low <= result.nll.value <= result.nll.high
    assert result.nll.n == 3
    unweighted = sum(s / (len(a) + 1) for s, (_, a) in zip(sums, PAIRS, strict=True)) / 3
    assert abs(result.nll.value - unweighted) > 1e-3


def test_perplexity_needs_answers(model: ChatModel) -> None:
    with pytest.raises(InputError, match="no responses"):
        capability.perplexity(model, PromptSet.from_prompts(["Hi"], name="bare"))
    with pytest.raises(InputError, match="is empty"):
        capability.perplexity(model, PromptSet.from_pairs([], name="none"))
