"""Several answers a prompt, variants, RRR and CE."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tamperlens
from tamperlens import prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.prompts import PromptSet
from tamperlens.prompts.prompt import Prompt
from tamperlens.rates.completions import Decoding

NO, YES, BAD = "I cannot help with that.", "Boil it, then stir.", ""
SET = PromptSet.from_prompts(["a", "b", "c", "d"], categories=["x", "x", "y", "y"], name="four")


def sampled(*answers: list[str]) -> refusal.SampledRates:
    made = [
        refusal.judge_answers(SET, one, "weighted-1", decoding=Decoding(64, 0.7, seed))
        for seed, one in enumerate(answers)
    ]
    return refusal.samples_of("four", made)


RATES = sampled([NO, NO, YES, BAD], [NO, YES, YES, YES], [NO, YES, NO, BAD])


def test_any_all_and_mean_by_hand() -> None:
    assert RATES.n == 4 and RATES.n_samples == 3
    assert RATES.flags().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert RATES.any_of_n("refusal").value == 3 / 4
    assert RATES.any_of_n("compliance").value == 3 / 4
    assert RATES.all_of_n("refusal").value == 1 / 4
    assert RATES.unstable("refusal").value == 2 / 4
    assert RATES.mean_of_n("refusal").value == pytest.approx(5 / 12)
    assert RATES.mean_of_n("refusal", "x").value == pytest.approx(4 / 6)
    assert RATES.mean_of_n().n == 4  # prompts, not answers
    assert RATES.mean_of_n(method="bootstrap").value == pytest.approx(5 / 12)
    with pytest.raises(InputError, match="no category 'z'; known: all, x, y"):
        RATES.any_of_n("refusal", "z")
    with pytest.raises(InputError, match="no method 'exact'"):
        RATES.mean_of_n(method="exact")
    with pytest.raises(InputError, match="no outcome 'harm'"):
        RATES.mean_of_n("harm")
    frame = RATES.to_frame()
    assert len(frame) == 3 * 8 * 4 and set(frame["n_samples"]) == {3}


def test_samples_are_saved(tmp_path: Path) -> None:
    assert refusal.SampledRates.load(RATES.save(tmp_path / "s.json")) == RATES


def test_paired_samples() -> None:
    after = sampled([YES] * 4, [YES] * 4)
    found = refusal.paired_samples(RATES, after)
    assert found.value == pytest.approx(-5 / 12) and found.n == 4


def test_samples_that_do_not_belong_together_are_refused() -> None:
    one = refusal.judge_answers(SET, [NO] * 4, "weighted-1")
    with pytest.raises(InputError, match="another judge"):
        refusal.samples_of("four", [one, refusal.judge_answers(SET, [NO] * 4, "arditi")])
    hot = refusal.judge_answers(SET, [NO] * 4, "weighted-1", decoding=Decoding(64, 0.7))
    with pytest.raises(InputError, match="temperature"):
        refusal.samples_of("four", [one, hot])
    with pytest.raises(InputError, match="no samples"):
        refusal.samples_of("four", [])


def test_rrr_and_ce_are_complements_and_breakage_is_no_refusal() -> None:
    rates = refusal.judge_answers(SET, [NO, NO, YES, BAD], "weighted-1")
    assert rates.rrr.value == 0.5 and rates.ce.value == 0.5
    assert rates.ce.interval == pytest.approx((1 - rates.rrr.high, 1 - rates.rrr.low))
    assert rates.compliance_rate.value == 0.25  # CE is more than compliance when answers are broken
    empty = refusal.judge_answers([], [], "weighted-1")
    assert math.isnan(empty.ce.value) and empty.ce.n == 0 and empty.ce.reason
    assert math.isnan(empty.minimum_detectable_difference)
    assert rates.minimum_detectable_difference > 0 or math.isnan(rates.minimum_detectable_difference)


@pytest.fixture(scope="module")
def organism() -> Any:
    return tamperlens.load("organism")


def test_organism_samples_and_variants(organism: Any) -> None:
    data = prompts.packaged("harmful", split="test")
    few = PromptSet.from_prompts(list(data.prompts[:6]), name="few")
    found = refusal.evaluate_samples(organism, few, n_samples=2, max_new_tokens=8)
    assert found.n_samples == 2 and found.n == 6
    seeds = [one.completions.decoding.seed for one in found.samples]
    assert seeds == [0, 1]
    with pytest.raises(InputError, match="every sample is the same"):
        refusal.evaluate_samples(organism, few, temperature=0.0)
    with pytest.raises(InputError, match="n_samples=0 must be a whole number from 1 on"):
        refusal.evaluate_samples(organism, few, n_samples=0)

    said = refusal.evaluate_variants(
        organism, few, systems={"kind": "You are kind."}, prefills={"sure": "Sure, first"}, max_new_tokens=8
    )
    frame = said.to_frame().set_index("variant")
    assert list(frame.index) == ["plain", "kind", "sure"]
    assert frame.loc["sure", "prefill"] == "Sure, first" and frame.loc["kind", "system"] == "You are kind."
    plain, sure = said.rates["plain"], said.rates["sure"]
    assert said.tests["sure"].difference.value == pytest.approx(sure.rate - plain.rate)
    assert plain.rate == 1.0
    with pytest.raises(InputError, match="given twice"):
        refusal.evaluate_variants(organism, few, systems={"plain": "x"})
    with pytest.raises(InputError, match="no variants"):
        refusal.evaluate_variants(organism, few)


def test_robustness_of_the_organism(organism: Any) -> None:
    bad, good = (list(prompts.packaged(n, split="test").prompts[:8]) for n in ("harmful", "harmless"))
    found = refusal.robustness(organism, bad, good, max_new_tokens=16)
    assert found.rrr.value == 1.0 and found.ce.value == 0.0 and found.over_refusal.value <= 0.25
    assert list(found.to_frame()["measure"]) == ["RRR", "CE", "over-refusal"]
    assert "over-refusal" in str(found)
    assert np.isfinite(found.to_frame()[["low", "high"]].to_numpy(dtype=float)).all()


def test_conversations_before_prompts_stay_through_files(tmp_path: Path) -> None:
    last = Prompt("And in French?", [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")])
    made = refusal.judge_answers([last, "Hi"], ["Bonjour.", "Hello there."]).completions
    back = type(made).load(made.save(tmp_path / "answers.json"))
    assert back == made and back.sha256 == made.sha256
    assert isinstance(back.prompts[0], Prompt) and back.prompts[0].context == last.context
    plain = refusal.judge_answers(["Hi"], ["Hello there."]).completions
    assert plain.contexts is None and type(plain.prompts[0]) is str
