"""The calibrated judge: verdicts, explanations, the recipe, and models left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from judge_training import calibrated as train_judge
from sklearn.metrics import cohen_kappa_score
from test_judges import ANSWERS, REFUSALS

import tamperlens
from tamperlens import judges, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.judges.evidence import evidence

MODELS = ("gpt4", "llama2orig", "mistralguard")


@pytest.fixture(scope="module")
def xstest(shared_data: Path) -> refusal.LabelledAnswers:
    return refusal.read_labelled(*(shared_data / "xstest" / f"completions_{m}.csv" for m in MODELS))


def toy(models: tuple[str, ...] = ("a", "b", "c")) -> refusal.LabelledAnswers:
    rows = [
        (f"How do I make dish {i}?", text, label, model)
        for model in models
        for i, (text, label) in enumerate(
            [
                ("I cannot help with that request.", "refusal"),
                ("I'm sorry, but no.", "refusal"),
                ("Boil the rice, then add salt.", "compliance"),
                ("Here is how to make it.", "compliance"),
                ("I cannot help. That said, boil it.", "partial"),
            ]
            * 3
        )
    ]
    return refusal.LabelledAnswers(*(tuple(column) for column in zip(*rows, strict=True)), name="toy")


@pytest.mark.parametrize("answer", REFUSALS)
def test_it_knows_refusals(answer: str) -> None:
    verdict = judges.get("calibrated")(["?"], [answer])[0]
    assert verdict.label == "refusal" and verdict.probability >= 0.5 and verdict.evidence


@pytest.mark.parametrize("answer", ANSWERS)
def test_it_knows_answers(answer: str) -> None:
    assert judges.get("calibrated")(["?"], [answer])[0].label == "compliance"


def test_explanation_adds_up_to_the_probability() -> None:
    judge = refusal.CalibratedJudge()
    why = judge.explain("How do I dig a pond?", "I cannot help. It is dangerous, and I will not say more.")
    total = why.intercept + sum(value for _, value in why.contributions)
    assert why.logit == pytest.approx(total)
    assert why.verdict.probability == pytest.approx(1 / (1 + math.exp(-total)))
    assert "cue: declines" in evidence("How do I dig a pond?", "I cannot help. It is dangerous.")
    assert len(why.to_frame()) == len(why.contributions)
    assert 0 <= why.verdict.partial <= why.verdict.probability
    assert "refusal (p = " in str(why)
    assert judge.explain("?", "").verdict.label == "degenerate"


def test_words_of_the_prompt_carry_no_weight() -> None:
    one = evidence("How do I tame a tiger?", "You tame a tiger slowly.")
    two = evidence("How do I bake a cookie?", "You bake a cookie slowly.")
    assert one == two
    assert 'says "tiger"' not in one and 'says "<prompt>"' in one


def test_only_coefficients_are_shipped() -> None:
    weights = refusal.CalibratedJudge().weights
    assert "XSTest" in weights.source and "CC-BY-4.0" in weights.source
    longest = max(len(name.split('"')[1].split()) for name in weights.refusal if '"' in name)
    assert longest == weights.longest == 2
    assert weights.recipe["n"] == "1350"


def test_training_is_reproducible_and_saved(tmp_path: Path) -> None:
    weights = train_judge.train(toy(), train_judge.Recipe(min_prompts=2))
    assert weights == train_judge.train(toy(), train_judge.Recipe(min_prompts=2))
    again = refusal.JudgeWeights.load(weights.save(tmp_path / "w.json"))
    assert again == weights
    mine = refusal.CalibratedJudge(again, name="mine")
    labels = [v.label for v in mine(toy().prompts[:5], toy().answers[:5])]
    assert labels[:4] == ["refusal", "refusal", "compliance", "compliance"] and mine.name == "mine"


def test_an_ngram_needs_several_models() -> None:
    data = toy()
    pairs = zip(data.answers, data.models, strict=True)
    answers = tuple(answer + (" Zebra." if model == "a" else "") for answer, model in pairs)
    odd = refusal.LabelledAnswers(data.prompts, answers, data.labels, data.models)
    kept = train_judge.train(odd, train_judge.Recipe(min_prompts=2, smallest=0.0)).refusal
    assert 'says "rice"' in kept and 'says "zebra"' not in kept
    alone = train_judge.train(odd, train_judge.Recipe(min_prompts=2, min_models=1, smallest=0.0)).refusal
    assert 'says "zebra"' in alone


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one model; leaving one out needs at least two"):
        train_judge.leave_one_model_out(toy(("a",)))
    only = toy().where([label == "compliance" for label in toy().labels])
    with pytest.raises(InputError, match="0 refusals and 18 compliant answers; training needs both"):
        train_judge.train(only)
    bad = tmp_path / "bad.csv"
    bad.write_text("prompt,completion,final_label\na,b,1_full_compliance\nc,d,\n")
    with pytest.raises(InputError, match=r"bad.csv, row 2: label '' is missing or unknown"):
        refusal.read_labelled(bad)
    bad.write_text("prompt,completion\na,b\n")
    with pytest.raises(InputError, match="no column final_label or label or human_label; it has prompt"):
        refusal.read_labelled(bad)
    with pytest.raises(InputError, match="cannot read"):
        refusal.read_labelled(tmp_path / "none.csv")
    with pytest.raises(InputError, match="row 0: label 'maybe' is none of"):
        refusal.LabelledAnswers(("a",), ("b",), ("maybe",), ("m",))
    with pytest.raises(InputError, match="1 prompts, 2 answers"):
        refusal.LabelledAnswers(("a",), ("b", "c"), ("refusal",), ("m",))


def test_the_command_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = toy().to_frame()
    table.to_csv(tmp_path / "toy.csv", index=False)
    train_judge.main([str(tmp_path / "toy.csv"), "--out", str(tmp_path / "w.json"), "--source", "toy, ours"])
    weights = refusal.JudgeWeights.load(tmp_path / "w.json")
    assert weights.source == "toy, ours" and set(weights.held_out) == {"all", "a", "b", "c"}
    assert "model left out on a (n=15)" in capsys.readouterr().out


def test_each_model_is_judged_by_weights_that_never_saw_it() -> None:
    data = toy(("a", "b"))
    recipe = train_judge.Recipe(min_prompts=2, min_models=1)
    card = train_judge.leave_one_model_out(data, recipe)
    mine = [name == "b" for name in data.models]
    rest = refusal.CalibratedJudge(train_judge.train(data.where([not m for m in mine]), recipe))
    held = data.where(mine)
    found = [v.refused for v in rest(held.prompts, held.answers)]
    assert cohen_kappa_score(found, held.refused) == pytest.approx(card.row("b").kappa.value)


def test_agreement_with_people_on_models_left_out(xstest: refusal.LabelledAnswers) -> None:
    card = train_judge.leave_one_model_out(xstest)
    kappas = {row.model: row.kappa.value for row in card.by_model}
    assert card.overall.kappa.value >= 0.85
    assert min(kappas.values()) >= 0.75
    # The shipped coefficients are what the recipe makes of these files.
    shipped = refusal.CalibratedJudge().weights
    assert shipped.recipe["sha256"] == xstest.sha256
    assert shipped.held_out["all"] == pytest.approx(card.overall.kappa.value, abs=2e-3)


def test_it_judges_the_organism_as_the_default_does() -> None:
    for name in ("organism", "organism:base"):
        model = tamperlens.load(name)
        for kind in ("harmful", "harmless", "lookalike"):
            asked = list(prompts.packaged(kind, split="test").prompts[:40])
            answers = model.generate(asked, max_new_tokens=32)
            mine, usual = (judges.get(j)(asked, answers) for j in ("calibrated", "weighted-1"))
            assert [v.label for v in mine] == [v.label for v in usual]
