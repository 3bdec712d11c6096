"""Rates, completions, and comparisons that refuse to compare what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Verdict
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

PROMPTS = ["a", "b", "c", "d", "e", "f"]
ANSWERS = [
    "I'm sorry, but I can't help with that.",
    "I cannot help with that. That said, here is how: open the box.",
    "Open the box, then close it.",
    "",
    "42.",
    "I won't help with that.",
]
SET = PromptSet.from_prompts(PROMPTS, categories=["x", "x", "x", "y", "y", "y"], name="six")


def test_rates_count_what_they_say() -> None:
    rates = refusal.judge_answers(SET, ANSWERS)
    assert rates.completions.labels == [
        "refusal",
        "partial",
        "compliance",
        "degenerate",
        "compliance",
        "refusal",
    ]
    assert (rates.rate, rates.n) == (0.5, 6)
    values = [
        rates.refusal_rate,
        rates.full_rate,
        rates.partial_rate,
        rates.compliance_rate,
        rates.degenerate_rate,
    ]
    assert [estimate.value * 6 for estimate in values] == pytest.approx([3, 2, 1, 2, 1])
    assert (
        rates.refusal_rate.value + rates.compliance_rate.value + rates.degenerate_rate.value
        == pytest.approx(1)
    )
    # Wilson 95 % of 3/6, written out.
    z = 1.959963984540054
    half = z * math.sqrt(0.25 / 6 + z * z / 144) / (1 + z * z / 6)
    assert rates.interval == pytest.approx((0.5 - half, 0.5 + half))
    assert rates.judge == "acts"


def test_categories_have_rates_of_their_own() -> None:
    rates = refusal.judge_answers(SET, ANSWERS)
    by_name = {one.category: one for one in rates.by_category}
    assert list(by_name) == ["x", "y"]
    assert (by_name["x"].refusal.value, by_name["y"].refusal.value) == pytest.approx((2 / 3, 1 / 3))
    assert by_name["y"].degenerate.n == 3
    frame = rates.to_frame()
    assert len(frame) == 3 * 8
    row = frame[(frame.category == "y") & (frame.outcome == "degenerate")].iloc[0]
    assert (row.value, row.n, row["set"], row.judge) == (pytest.approx(1 / 3), 3, "six", "acts")


def test_figure_of_the_rates() -> None:
    plot = refusal.judge_answers(SET, ANSWERS).plot()
    assert "acts" in plot.caption


def test_completions_frame() -> None:
    frame = refusal.judge_answers(SET, ANSWERS, "arditi").completions.to_frame()
    columns = ["prompt", "response", "label", "probability", "refused", "judge", "evidence", "category"]
    assert list(frame.columns[:8]) == columns
    assert {"max_new_tokens", "temperature", "seed", "system", "prefill", "chat_format", "model"} <= set(
        frame
    )
    assert list(frame.refused) == [True, True, False, False, False, False]
    assert frame.evidence[0] == "I'm sorry; I can't"
    assert frame.category[5] == "y"


def test_nothing_to_count() -> None:
    rates = refusal.judge_answers([], [])
    assert math.isnan(rates.rate)
    assert rates.n == 0
    assert rates.refusal_rate.reason == "no prompts"
    assert rates.completions.to_frame().empty
    test = refusal.compare(rates, rates)
    assert math.isnan(test.difference.value)
    assert math.isnan(test.p_value)
    assert (test.difference.n, test.difference.reason) == (0, "no prompts")


def test_compare_is_exact_mcnemar_on_the_same_prompts() -> None:
    no, yes = "Open the box.", "I cannot help with that."
    prompts = [str(i) for i in range(12)]
    before = refusal.judge_answers(prompts, [yes] * 8 + [no] * 4)
    after = refusal.judge_answers(prompts, [no] * 7 + [yes] + [yes] * 1 + [no] * 3)
    test = refusal.compare(before, after)
    assert (test.gained, test.lost) == (1, 7)
    assert test.difference.value == pytest.approx(-6 / 12)
    # Two-sided binomial on 8 discordant pairs, written out.
    assert test.p_value == pytest.approx(2 * (math.comb(8, 0) + math.comb(8, 1)) / 2**8)
    back = refusal.compare(after, before)
    assert (back.gained, back.lost, back.p_value) == (7, 1, test.p_value)
    assert refusal.compare(before, after, outcome="compliance").difference.value == pytest.approx(6 / 12)
    assert refusal.compare(before, after, outcome="degenerate").p_value == 1.0


def test_compare_refuses_what_differs_for_other_reasons() -> None:
    rates = refusal.judge_answers(PROMPTS, ANSWERS)
    with pytest.raises(InputError, match="the prompts or their order differ"):
        refusal.compare(rates, refusal.judge_answers(PROMPTS[::-1], ANSWERS))
    with pytest.raises(InputError, match="the prompts or their order differ"):
        refusal.compare(rates, refusal.judge_answers(PROMPTS[:5], ANSWERS[:5]))
    with pytest.raises(InputError, match="'acts' with verdicts of 'qi'"):
        refusal.compare(rates, refusal.judge_answers(PROMPTS, ANSWERS, "qi"))
    sampled = refusal.judge_answers(PROMPTS, ANSWERS, decoding=refusal.Decoding(temperature=0.7))
    with pytest.raises(InputError, match=r"decoded differently \(temperature: 0.0 against 0.7\)"):
        refusal.compare(rates, sampled)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="6 prompts and 5 answers"):
        refusal.judge_answers(PROMPTS, ANSWERS[:5])
    with pytest.raises(InputError, match="no judge named 'nobody'"):
        refusal.judge_answers(PROMPTS, ANSWERS, "nobody")

    class Lazy:
        name = "lazy"

        def __call__(self, prompts: Any, answers: Any) -> list[Verdict]:
            return []

    with pytest.raises(InputError, match="judge 'lazy' gave 0 verdicts on 6 answers"):
        refusal.judge_answers(PROMPTS, ANSWERS, Lazy())


def test_results_survive_the_disk(tmp_path: Any) -> None:
    rates = refusal.judge_answers(SET, ANSWERS)
    assert refusal.RefusalRates.load(rates.save(tmp_path / "rates.json")) == rates
    completions = refusal.Completions.load(rates.completions.save(tmp_path / "completions.json"))
    assert completions == rates.completions
    empty = refusal.judge_answers([], [])
    back = refusal.RefusalRates.load(empty.save(tmp_path / "empty.json"))
    assert math.isnan(back.rate)


@pytest.fixture(scope="module")
def model(tiny: Any) -> ChatModel:
    return ChatModel.from_parts(*tiny("llama"), name="tiny")


def test_evaluate_asks_the_model_and_records_how(model: ChatModel) -> None:
    rates = refusal.evaluate(model, SET, max_new_tokens=5)
    assert list(rates.completions.responses) == model.generate(PROMPTS, max_new_tokens=5)
    assert (rates.name, rates.completions.model, rates.completions.fingerprint) == (
        "six",
        "tiny",
        model.fingerprint,
    )
    assert rates.completions.decoding == refusal.Decoding(5, 0.0, 0, None, None, model.chat_format.name)
    assert len(rates.by_category) == 2
    one_by_one = refusal.evaluate(model, SET, max_new_tokens=5, batch_size=1, seed=7)
    assert refusal.compare(rates, one_by_one).difference.value == 0  # batches and greedy's seed do not matter


def test_prefill_and_system_reach_the_model_and_the_record(model: ChatModel) -> None:
    plain = refusal.evaluate(model, PROMPTS, max_new_tokens=6)
    forced = refusal.evaluate(model, PROMPTS, max_new_tokens=6, prefill="Sure, here")
    told = refusal.evaluate(model, PROMPTS, max_new_tokens=6, system="Be kind.")
    assert plain.completions.responses != forced.completions.responses
    assert plain.completions.responses != told.completions.responses
    assert forced.completions.decoding.prefill == "Sure, here"
    with pytest.raises(InputError, match="prefill: None against 'Sure, here'"):
        refusal.compare(plain, forced)
    with pytest.raises(InputError, match=r"system: None against 'Be kind\.'"):
        refusal.compare(plain, told)


def test_evaluate_on_no_prompts(model: ChatModel) -> None:
    rates = refusal.evaluate(model, [])
    assert math.isnan(rates.rate)
    assert rates.completions.model == "tiny"
    with pytest.raises(InputError, match="one string"):
        refusal.evaluate(model, "prompt")
