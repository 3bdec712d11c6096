"""H1 and H2 made true by construction: the verdict must say so, and must not say H1 when it is not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as sps

from tamperlens import drift
from tamperlens.base.errors import InputError
from tamperlens.drift.verdict import standard_errors

CONTROLS = {g: f"control of {g}" for g in ("top safety", "safety-critical", "top utility")}
MODULES = ("q", "k", "v", "o", "gate", "up", "down")


def simulated(
    rng: np.random.Generator,
    ratio: float,
    *,
    seeds: int = 3,
    layers: int = 4,
    noise: float = 0.1,
    seed_sd: float = 0.02,
    utility: float = 1.0,
) -> list[drift.DriftTrace]:
    """Traces in which safety groups drift `ratio` times as far as their controls."""
    shape = (layers, len(MODULES))
    size = np.exp(rng.normal(-4, 1, shape))  # matrices differ by far more than groups do
    own = rng.normal(0, noise, (2, *shape))
    places = [(layer, module) for layer in range(layers) for module in MODULES]
    traces = []
    for _ in range(seeds):
        shift = rng.normal(0, seed_sd)
        blocks = []
        for g, group in enumerate(CONTROLS):
            base = size * np.exp(rng.normal(0, 0.3, shape))  # both share a run's luck
            effect = utility if group == "top utility" else ratio
            more = effect * np.exp(own[min(g, 1)] + shift + rng.normal(0, noise / 2, shape))
            for name, value in ((group, base * more), (CONTROLS[group], base)):
                frame = pd.DataFrame(places, columns=["layer", "module"])
                blocks.append(
                    frame.assign(step=100, group=name, measure="relative_l2", value=value.ravel(), n=50)
                )
        traces.append(drift.DriftTrace.from_rows(pd.concat(blocks), controls=CONTROLS))
    return traces


def answers(ratio: float, n: int = 100, **settings) -> list[str]:
    rng = np.random.default_rng(1)
    return [
        drift.test_hypotheses(simulated(rng, ratio, **settings), margin=0.1, draws=20).verdict
        for _ in range(n)
    ]


def test_h1_by_construction_is_found() -> None:
    assert answers(1.5).count("H1") >= 95


def test_h2_by_construction_is_found_and_h1_is_not() -> None:
    found = answers(1.0)
    assert found.count("H2") >= 95
    assert found.count("H1") <= 5


def test_false_answers_at_the_edge_of_the_margin() -> None:
    """The worst cases: the true ratio is the margin itself. 5 % over both groups together, by Holm."""
    assert answers(1.1, seed_sd=0.05).count("H1") <= 10  # a binomial(100, .05) is above 10 once in 100 times
    assert answers(1 / 1.1, 50, seed_sd=0.02).count("H2") <= 7


def by_mean(seeds: int, matrices: int, sds: tuple[float, float, float], n: int = 2000) -> float:
    """Share of H1 (one group) at the margin, matrices and seeds both being random."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(n):
        x = rng.normal(0, sds[0], (seeds, 1)) + rng.normal(0, sds[1], (1, matrices))
        x = x + rng.normal(0, sds[2], (seeds, matrices))
        tests = standard_errors(x)
        wrong += max(sps.t.sf(x.mean() / error, df) for error, df in tests) < 0.05
    return wrong / n


def test_error_rates_at_the_edge_over_three_seeds_and_over_one() -> None:
    for sds in ((0.05, 0.1, 0.05), (0.02, 0.02, 0.02), (0.1, 0.1, 0.05), (0.0, 0.1, 0.1)):
        assert by_mean(3, 35, sds) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert by_mean(1, 35, (0.05, 0.1, 0.05), 500) > 0.2  # why one run has no verdict


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "1 seed; a verdict needs 3. For this run only, H1"),
        (2, "2 seeds; a verdict needs 3. For these runs only, H1"),
    ],
)
def test_fewer_than_three_seeds_are_no_verdict(seeds: int, words: str) -> None:
    found = drift.test_hypotheses(simulated(np.random.default_rng(0), 2.0, seeds=seeds))
    assert (found.verdict, found.this_run) == ("cannot tell", "H1")
    assert found.reason.startswith(words)
    assert words in found.summary()
    alike = drift.test_hypotheses(simulated(np.random.default_rng(0), 1.0, seeds=seeds))
    assert (alike.verdict, alike.this_run) == ("cannot tell", "H2")
    three = drift.test_hypotheses(simulated(np.random.default_rng(0), 2.0))
    assert three.verdict == three.this_run == "H1"


def test_two_trainings_are_compared_matrix_by_matrix(tmp_path) -> None:
    before = simulated(np.random.default_rng(0), 1.0)
    after = [
        drift.DriftTrace.from_rows(t.to_frame().assign(value=lambda f: 2 * f["value"]), controls=CONTROLS)
        for t in before
    ]
    found = drift.compare(before, after)
    assert found.to_frame()["value"].tolist() == pytest.approx([2.0] * 6)
    assert "top safety 2.00 times [2.00, 2.00], 28 matrices" in found.summary()
    assert "these runs only" not in found.summary()
    assert "these runs only" in drift.compare(before[0], after[0]).summary()
    one, two = (
        simulated(np.random.default_rng(1), 1.0, seeds=1),
        simulated(np.random.default_rng(2), 1.0, seeds=1),
    )
    x = np.log(two[0].table()["top safety"] / one[0].table()["top safety"])
    low, high = sps.ttest_1samp(x, 0).confidence_interval()
    row = drift.compare(one, two).to_frame().iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((math.exp(low), math.exp(high)))
    with pytest.raises(InputError, match="3 traces before and 1 after"):
        drift.compare(before, after[0])


def test_old_names_still_work() -> None:
    found = drift.test_hypotheses(simulated(np.random.default_rng(0), 1.0))
    with pytest.warns(DeprecationWarning, match="summary"):
        assert found.report() == found.summary()
    with pytest.warns(DeprecationWarning, match="reason"):
        assert found.sentence == found.reason


def test_noise_cannot_be_told_from_anything() -> None:
    found = answers(1.1, 25, noise=0.6, seeds=1, layers=1)
    assert found.count("cannot tell") >= 22


def test_one_wild_seed_is_no_proof() -> None:
    """Seeds that disagree widen the interval, however many matrices there are."""
    found = answers(1.0, 30, noise=0.02, seed_sd=0.5, layers=8)
    assert found.count("H1") <= 3
    assert found.count("H2") <= 3


def test_drifting_less_is_neither() -> None:
    verdict = drift.test_hypotheses(simulated(np.random.default_rng(0), 0.5))
    assert verdict.verdict == "cannot tell"
    assert "moved less" in verdict.reason


def test_a_contrast_does_not_decide() -> None:
    verdict = drift.test_hypotheses(simulated(np.random.default_rng(0), 1.0, utility=3.0))
    assert verdict.verdict == "H2"
    [utility] = [one for one in verdict.comparisons if not one.decides]
    assert utility.group == "top utility"
    assert utility.ratio.value == pytest.approx(3, rel=0.1)


def test_effect_sizes_are_those_of_their_definitions() -> None:
    traces = simulated(np.random.default_rng(3), 1.3, noise=0.3)
    one = drift.test_hypotheses(traces).comparisons[0]
    tables = [trace.table() for trace in traces]
    x = np.mean([np.log(t["top safety"] / t["control of top safety"]) for t in tables], 0)
    assert one.d_z.value == pytest.approx(x.mean() / x.std(ddof=1))
    assert one.d_z.low < one.d_z.value < one.d_z.high
    assert one.ratio.value == pytest.approx(math.exp(x.mean()))
    a, b = (np.mean([np.log(t[g]) for t in tables], 0) for g in ("top safety", "control of top safety"))
    pairs = [np.sign(i - j) for i in a for j in b]
    assert one.cliffs_delta.value == pytest.approx(np.mean(pairs))
    by_seed = [float(np.log(t["top safety"] / t["control of top safety"]).mean()) for t in tables]
    assert one.d_z_seeds.value == pytest.approx(np.mean(by_seed) / np.std(by_seed, ddof=1))
    # Resampling three seeds draws one of them thrice every ninth time, and mean / 0 has no bound.
    assert -1e3 < one.d_z_seeds.low < one.d_z_seeds.value < one.d_z_seeds.high < 1e3


def test_one_trace_is_the_paired_t_test() -> None:
    from scipy import stats

    [trace] = simulated(np.random.default_rng(5), 1.2, seeds=1)
    one = drift.test_hypotheses(trace, margin=0.05).comparisons[1]
    table = trace.table()
    x = np.log(table["safety-critical"] / table["control of safety-critical"])
    expected = stats.ttest_1samp(x, math.log(1.05), alternative="greater").pvalue
    assert one.p_more == pytest.approx(expected)
    low = stats.ttest_1samp(x, -math.log(1.05), alternative="greater").pvalue
    high = stats.ttest_1samp(x, math.log(1.05), alternative="less").pvalue
    assert one.p_alike == pytest.approx(max(low, high))
    assert math.isnan(one.d_z_seeds.value)


def test_too_few_matrices_and_frozen_groups() -> None:
    rows = simulated(np.random.default_rng(0), 2.0, seeds=1)[0].to_frame()
    few = rows[rows["layer"] + rows["module"].isin(["q", "k", "v"]) * -1 == -1]
    verdict = drift.test_hypotheses(drift.DriftTrace.from_rows(few, controls=CONTROLS))
    assert verdict.verdict == "cannot tell"
    assert "3 matrices" in verdict.reason
    rows.loc[rows["group"] == "top safety", "value"] = 0.0  # frozen: no drift, hence no ratio
    frozen = drift.test_hypotheses(drift.DriftTrace.from_rows(rows, controls=CONTROLS))
    assert frozen.comparisons[0].n_dropped == 28
    assert math.isnan(frozen.comparisons[0].ratio.value)


def test_saved_and_reported(tmp_path) -> None:
    verdict = drift.test_hypotheses(simulated(np.random.default_rng(0), 1.5))
    again = drift.DriftVerdict.load(verdict.save(tmp_path / "verdict.json"))
    assert again == verdict
    assert verdict.summary().startswith("Verdict: H1. ")
    assert "matched" in verdict.summary()
    frame = verdict.to_frame()
    assert list(frame["group"]) == list(CONTROLS)
    assert len(verdict.plot().save(tmp_path)) == 3


def test_bad_input() -> None:
    traces = simulated(np.random.default_rng(0), 1.0)
    with pytest.raises(InputError, match="at least one"):
        drift.test_hypotheses([])
    with pytest.raises(InputError, match="margin"):
        drift.test_hypotheses(traces, margin=0.0)
    with pytest.raises(InputError, match="no measure"):
        drift.test_hypotheses(traces, measure="angle")
    with pytest.raises(InputError, match="control"):
        drift.test_hypotheses(drift.DriftTrace.from_rows(traces[0].to_frame()))
    other = traces[0].to_frame().assign(step=50)
    with pytest.raises(InputError, match="different steps"):
        drift.test_hypotheses([traces[0], drift.DriftTrace.from_rows(other)])


def test_trace_keeps_tiny_values(tmp_path) -> None:
    """1e-17 survives saving, which decimal text with 15 places would not."""
    [trace] = simulated(np.random.default_rng(0), 1.0, seeds=1)
    values = torch.full_like(trace.values, 1.234567890123e-17)
    import dataclasses

    tiny = dataclasses.replace(trace, values=values)
    again = drift.DriftTrace.load(tiny.save(tmp_path / "trace.safetensors"))
    assert torch.equal(again.values, values)
    assert again.to_frame().equals(tiny.to_frame())
    assert again.steps == [100]
