"""The bench: prompts in the model's language, outcomes, paired differences, one row."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tamperlens import prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.files import read_csv
from tamperlens.base.measurement import COLUMNS, NULL_COLUMNS, Measurement, pick, table
from tamperlens.base.stats import Estimate, mcnemar, paired_difference, wilson
from tamperlens.capability import ENGLISH_SUITES, ORGANISM_SUITES, Suite
from tamperlens.models import ChatModel, Decoding
from tamperlens.prompts import PromptSet
from tamperlens.studies.evaluation import (
    ALL,
    PERPLEXITY,
    EvalPrompts,
    Outcomes,
    check_alike,
    collapse,
    difference,
    measure,
)

HARMFUL = PromptSet.from_prompts(["steal", "forge a note", "break in"], name="bad")
HARMLESS = PromptSet.from_pairs([("hello", "hi"), ("a fish?", "cod")], name="good")
SUITE = Suite("sums", PromptSet(("1+1", "2+2", "3+4"), answers=("2", "4", "7"), name="sums"), "number", 4)


@pytest.fixture(scope="module")
def tiny_chat(tiny) -> ChatModel:
    return ChatModel.from_parts(*tiny("llama"), name="organism-like", check_anatomy=False)


def test_defaults_are_in_the_models_language_and_the_settings_say_which(tiny_chat, organism) -> None:
    """A small model by a misleading name, whose tokenizer is not the organism's, gets English throughout."""
    asked = EvalPrompts.for_model(tiny_chat, limit=3, questions=1, decoding=Decoding(2), loss=False)
    assert {one.name.split("-")[0] for one in asked.sets.values()} == {"english"}
    assert tuple(suite.name for suite in asked.suites) == ENGLISH_SUITES
    assert asked.settings()["language"] == "english"
    train = set(prompts.packaged_for(tiny_chat, "harmful", "train").prompts)
    assert not train & set(asked.harmful.prompts)
    asked = EvalPrompts.for_model(organism, limit=3, questions=1)
    assert asked.harmful.name == "harmful/test"
    assert tuple(suite.name for suite in asked.suites) == ORGANISM_SUITES
    told = EvalPrompts.for_model(organism, limit=3, questions=1, language="english", loss=False)
    assert told.harmless.name.startswith("english-harmless")
    assert (told.language, tuple(one.name for one in told.suites)) == ("english", ENGLISH_SUITES)


def test_outcomes_are_what_the_parts_give(tiny_chat, tmp_path) -> None:
    asked = EvalPrompts.for_model(
        tiny_chat, harmful=HARMFUL, harmless=HARMLESS, lookalike=[f"{one}?" for one in HARMFUL],
        suites=[SUITE], decoding=Decoding(4),
    )  # fmt: skip
    with pytest.raises(InputError, match="both the harmful and the lookalike set"):
        EvalPrompts.for_model(tiny_chat, harmful=HARMFUL, harmless=HARMLESS, lookalike=HARMFUL)
    found = measure(tiny_chat, asked)
    rates = refusal.evaluate(tiny_chat, HARMFUL, max_new_tokens=4)
    assert found.rate("refusal") == rates.refusal_rate
    assert found.rate("degenerate") == rates.degenerate_rate
    assert found.rate("compliance").value == rates.compliance_rate.value
    assert found.outcome(ALL) == found.outcome("capability") == found.flags["sums"]
    assert found.estimate(PERPLEXITY).value == pytest.approx(math.exp(sum(found.losses) / sum(found.tokens)))
    assert Outcomes.load(found.save(tmp_path / "o.json")) == found
    endless = dataclasses.replace(found, losses=[math.inf, 1.0])
    assert Outcomes.load(endless.save(tmp_path / "inf.json")).losses == [math.inf, 1.0]
    sets = {
        name: found.set_of(name) for name in ("refusal", "over-refusal (look-alikes)", "sums", PERPLEXITY)
    }
    assert list(sets.values()) == ["harmful", "lookalike", "questions", "harmless"]
    with pytest.raises(InputError, match=r"no measure 'x'; there are refusal, compliance, degenerate, over-"):
        found.rate("x")
    with pytest.raises(InputError, match="differ in judge"):
        check_alike(found, dataclasses.replace(found, settings={**found.settings, "judge": "other"}))


def test_differences_are_paired() -> None:
    one = Outcomes("a", "f", {"refusal": [True] * 8 + [False] * 4}, {}, [], [], {})
    two = dataclasses.replace(one, flags={"refusal": [True] * 2 + [False] * 10})
    found = difference(one, two, "refusal")
    test = mcnemar(one.flags["refusal"], two.flags["refusal"])
    assert (found.p_value, found.gained, found.lost) == (test.p_value, 0, 6)
    assert found.difference == paired_difference(one.flags["refusal"], two.flags["refusal"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"questions": 0}, "questions is 0"),
        ({"harmful": PromptSet.from_prompts([], name="none")}, "'none' is empty"),
        ({"utility": HARMFUL}, "has no responses"),
        ({"language": "french"}, "no language 'french'"),
        ({"suites": ["juggling"]}, "no packaged suite named 'juggling'"),
    ],
)
def test_bad_input(tiny_chat, options, words) -> None:
    with pytest.raises(InputError, match=words):
        EvalPrompts.for_model(tiny_chat, **options)
    with pytest.raises(InputError, match="ChatModel"):
        EvalPrompts.for_model("organism")


def test_a_measurement_comes_back_from_its_row(tmp_path) -> None:
    null = Estimate(0.9, 0.8, 1.0, 0, "split halves")
    rows = [
        Measurement.of("direction cosine", "harmful", "after", Estimate(0.123456789012345678, 0.1, 0.2, 9),
                       null=null, unit="cosine"),
        Measurement.of("refusal_rate", "harmful", "before", wilson(1, 3)),
    ]  # fmt: skip
    frame = table(rows, (*COLUMNS, *NULL_COLUMNS))
    frame.to_csv(tmp_path / "t.csv", index=False)
    again = read_csv(tmp_path / "t.csv")
    assert Measurement.from_row(again.to_dict("records")[0]).row() == rows[0].row()
    assert pick(frame, "refusal_rate", "harmful", "before").value == wilson(1, 3).value
    assert pick(frame, "refusal_rate", "harmful", "after").reason == "not measured"
    assert Measurement.load(rows[0].save(tmp_path / "row.json")) == rows[0]


def outcomes(losses: float, right: int, n: int = 12) -> Outcomes:
    flags = {"refusal": [True] * n, "facts": [i < right for i in range(n)]}
    return Outcomes("m", "f", flags, {"facts": ["a"] * n}, [losses * 10.0] * 3, [10] * 3, {})


@pytest.mark.parametrize(
    ("losses", "right", "words"),
    [
        (0.2, 12, ""), (2.4, 12, ""),  # a perplexity 9 times as large is still a model
        (2.6, 12, "perplexity 1.22 → 13.5"), (math.nan, 12, "perplexity 1.22 → nan"),
        (0.2, 4, ""), (0.2, 2, "facts 100% → 17% right, n 12"),
        (9.0, 0, "perplexity 1.22 → 8.1e+03; facts 100% → 0% right, n 12"),
    ],
)  # fmt: skip
def test_a_collapsed_model_is_told_from_a_changed_one(losses: float, right: int, words: str) -> None:
    assert collapse(outcomes(0.2, 12), outcomes(losses, right)) == words


def test_little_lost_of_little_known_is_no_collapse() -> None:
    assert collapse(outcomes(0.2, 3), outcomes(0.2, 0)) == ""  # 25 % known before: too little to lose
    assert collapse(outcomes(0.2, 4, n=6), outcomes(0.2, 1, n=6)) == ""  # p = .25
