"""Spillover: paired differences, the tax and its interval, sides that do not belong together."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

import tamperlens
from tamperlens import capability, finetune, prompts, stats
from tamperlens.base.errors import InputError
from tamperlens.capability import Suite
from tamperlens.models import Decoding
from tamperlens.studies.evaluation import Outcomes, measure
from tamperlens.studies.spillover import SpilloverReport, over_seeds, prompts_for
from tamperlens.studies.spillover.running import compare_sides


def side(name, refusal, over, right, kinds=None, nats=None, **settings):
    flags = {"refusal": refusal, "degenerate": [False] * len(refusal), "over-refusal (harmless)": over,
             "over-refusal (look-alikes)": over, "sums": right}  # fmt: skip
    nats = nats or [1.0] * 4
    return Outcomes(
        name, name * 3, flags, {"sums": kinds or ["addition"] * len(right)}, nats, [2] * len(nats), settings
    )


def flags(n, k):
    return [i < k for i in range(n)]


BEFORE = side("a", flags(40, 4), flags(30, 0), flags(50, 45), ["small"] * 25 + ["large"] * 25, judge="x")
AFTER = side("b", flags(40, 34), flags(30, 12), flags(50, 25), ["small"] * 25 + ["large"] * 25, judge="x")


def test_differences_are_paired_and_the_tax_is_their_ratio():
    report = compare_sides(BEFORE, AFTER)
    gain, loss = report.refusal_gain, report.difference("sums")
    assert gain.value == pytest.approx(30 / 40) and gain.n == 40
    assert (gain.low, gain.high) == stats.paired_difference(flags(40, 4), flags(40, 34)).interval
    assert loss.value == pytest.approx(-20 / 50)
    assert report.over_refusal.value == pytest.approx(12 / 30)
    tax = report.tax_of("sums")
    assert tax.value == pytest.approx((20 / 50) / (30 / 40))
    rng = np.random.default_rng(0)
    drop = rng.binomial(50, 0.4, 20_000) / 50
    rise = rng.binomial(40, 0.75, 20_000) / 40
    assert (tax.low, tax.high) == pytest.approx(tuple(np.quantile(drop / rise, [0.025, 0.975])), abs=0.08)
    # The other way round, loss over loss + gain or a bare loss, gives other numbers.
    assert abs(tax.value - 0.4) > 0.1
    row = report.measures.set_index("measure").loc["sums"]
    assert (row["gained"], row["lost"]) == (0, 20)
    assert row["p_holm"] >= row["p"] == pytest.approx(2 * 0.5**20)
    by = report.categories.set_index("set")
    assert (by.loc["small", "after"], by.loc["large", "after"]) == (1.0, 0.0)
    assert report.summary().count("→") == 4


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (side("b", flags(40, 5), flags(30, 0), flags(50, 20), judge="x"), "may be nothing"),
        (side("b", flags(40, 0), flags(30, 0), flags(50, 20), judge="x"), "may be nothing|fell"),
    ],
)
def test_without_a_gain_there_is_no_tax(after, reason):
    tax = compare_sides(BEFORE, after).tax_of()
    assert math.isnan(tax.value) and math.isnan(tax.low)
    assert re.search(reason, tax.reason)


def test_refusal_that_fell_has_no_tax_either():
    report = compare_sides(AFTER, BEFORE)
    assert "fell by 75%" in report.tax_of("sums").reason and math.isnan(report.tax_of("sums").value)


def test_perplexity_is_weighed_by_tokens():
    long = dataclasses.replace(AFTER, losses=[9.0, 1.0, 1.0, 1.0])
    row = compare_sides(BEFORE, long).difference("loss per token")
    assert row.value == pytest.approx(8 / 8) and row.n == 4


def test_sides_that_were_measured_otherwise_are_refused():
    other = dataclasses.replace(AFTER, settings={"judge": "y"})
    with pytest.raises(InputError, match="differ in judge"):
        compare_sides(BEFORE, other)
    with pytest.raises(InputError, match="no measure 'joy'"):
        compare_sides(BEFORE, AFTER).difference("joy")
    with pytest.raises(InputError, match="no suite 'joy'"):
        compare_sides(BEFORE, AFTER).tax_of("joy")


def test_several_runs_vary_over_prompts_and_runs():
    worse = dataclasses.replace(AFTER, flags={**AFTER.flags, "sums": flags(50, 5)})
    table = over_seeds(BEFORE, [AFTER, worse, AFTER]).set_index("measure")
    row = table.loc["sums"]
    assert row["difference"] == pytest.approx(np.mean([-20, -40, -20]) / 50)
    assert (row["lowest"], row["highest"], row["runs"]) == (5 / 50, 25 / 50, 3)
    assert row["tax"] == pytest.approx(-row["difference"] / 0.75)
    alone = over_seeds(BEFORE, [AFTER] * 3).set_index("measure").loc["sums"]
    # Three equal runs leave the spread over prompts; pooling 150 answers would be narrower than that.
    assert row["high"] - row["low"] > alone["high"] - alone["low"] > 2 * 1.8 * (0.4 * 0.6 / 50) ** 0.5
    everyone = side("b", flags(40, 40), flags(30, 12), flags(50, 25), judge="x")
    none = side("a", flags(40, 0), flags(30, 0), flags(50, 45), judge="x")
    turned = over_seeds(none, [everyone] * 3).set_index("measure").loc["refusal"]
    assert turned["difference"] == 1 and turned["low"] < 1
    with pytest.raises(InputError, match="other prompts or settings"):
        over_seeds(BEFORE, [dataclasses.replace(AFTER, settings={})])


def test_report_is_saved_and_drawn(tmp_path):
    report = compare_sides(BEFORE, AFTER)
    again = SpilloverReport.load(report.save(tmp_path / "report.json"))
    pd.testing.assert_frame_equal(again.to_frame(), report.to_frame())
    pd.testing.assert_frame_equal(again.tax, report.tax)
    assert again.before == report.before
    report.plot().save(tmp_path)
    assert list(tmp_path.glob("*.png"))


def test_the_organism_against_itself_and_after_safety_tuning():
    base = tamperlens.load("organism:base")
    suites = [Suite.packaged("addition"), Suite.packaged("facts")]
    asked = prompts_for(base, suites=suites, limit=10, questions=10, decoding=Decoding(32))
    before = measure(base, asked)
    same = tamperlens.spillover(before, base, suites=suites, limit=10, questions=10, decoding=Decoding(32))
    assert (same.measures["difference"] == 0).all()
    assert math.isnan(same.tax_of().value)
    attack = finetune.attacks.refusal_only(24)
    tuned = finetune.run(base, attack.data, attack.config_for(base, steps=20), progress=False).model
    report = tamperlens.spillover(before, measure(tuned, asked))
    assert report.refusal_gain.value > 0.5
    assert report.before.rate("addition").n == 10
    questions = capability.evaluate(tuned, asked.suites)
    assert report.after.rate("addition").value == questions["addition"].accuracy.value
    held = set(prompts.packaged("refusal-only").prompts)
    assert not held & set(asked.harmful.prompts)
