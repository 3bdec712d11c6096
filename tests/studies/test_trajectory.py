"""Trajectory: orders that are known are recovered, numbers are the rooms' own, a killed run goes on."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
from pathlib import Path

import browser as browsers
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as sps

from tamperlens import finetune, neurons, prompts, refusal, stats, trajectory
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.directions import checkpoints, geometry
from tamperlens.directions.nulls import activations, resamples, unturned_cosine
from tamperlens.models import Decoding
from tamperlens.studies.merging import merge
from tamperlens.studies.trajectory import observing, order_of, records
from tamperlens.studies.trajectory.observing import SIDES
from tamperlens.studies.trajectory.schedule import steps_until
from tamperlens.studies.trajectory.unchanged import unchanged_mean, unchanged_share

STEPS = [float(step) for step in range(0, 61)]


def simulated(half, *, seeds=4, prompts_n=40, noise=0.15, change=2.0, rng=None, width=2.0):
    """Curves whose true half-change step is `half`: a logistic in step, jittered by seed and prompt."""
    rng = rng or np.random.default_rng(0)
    runs = []
    x = np.array(STEPS)
    for _ in range(seeds):
        middle = half + rng.normal(0, 0.6)
        progress = 1 / (1 + np.exp(-(x - middle) / width))
        progress = (progress - progress[0]) / (progress[-1] - progress[0])
        sizes = change * (1 + rng.normal(0, noise, prompts_n))
        values = sizes[:, None] * progress
        picks = np.random.default_rng(7).integers(0, prompts_n, (50, prompts_n))
        runs.append((STEPS, values.mean(0), values[picks].mean(1).T))
    return runs


def test_a_known_order_is_recovered():
    rng = np.random.default_rng(1)
    truth = {"weights": 6.0, "direction": 15.0, "heads": 15.4, "rate": 30.0}
    curves = {name: simulated(half, rng=rng) for name, half in truth.items()}
    curves["falls"] = [(x, -v, -d) for x, v, d in simulated(45.0, rng=rng)]
    curves["nothing"] = [(x, 0 * v, 0 * d) for x, v, d in simulated(20.0, rng=rng)]
    found = trajectory.order_of(curves, draws=400)
    half = found.half().set_index("measure")
    for name, step in {**truth, "falls": 45.0}.items():
        assert half.loc[name, "step"] == pytest.approx(step, abs=1.5)
        assert half.loc[name, "low"] <= step <= half.loc[name, "high"]
    assert half.index[0] == "weights" and list(half.index)[-2:] == ["rate", "falls"]
    assert found.verdict("weights", "rate") == found.verdict("rate", "weights") == "weights"
    assert found.verdict("direction", "heads") == "cannot tell"  # .4 steps apart, jitter .6
    row = found.pairs.query("first == 'weights' and second == 'rate'").iloc[0]
    assert row["probability"] == 1 and row["lead"] == pytest.approx(24, abs=2)
    assert row["lead_low"] < row["lead"] < row["lead_high"]
    nothing = found.steps.query("measure == 'nothing' and level == 0.5").iloc[0]
    assert np.isnan(nothing["step"]) and "no change" in nothing["reason"]
    assert found.tiers() == [["weights"], ["direction", "heads"], ["rate"], ["falls"]]
    assert "weights; then direction, heads; then rate; then falls" in found.summary()
    assert "No change beyond its own uncertainty was shown for nothing" in found.summary()
    levels = found.steps.query("measure == 'weights'").set_index("level")["step"]
    assert levels[0.1] < levels[0.5] < levels[0.9]


def test_one_run_gives_no_order_and_three_give_a_false_one_in_at_most_5_percent():
    rng = np.random.default_rng(0)
    false = {1: 0, 3: 0}
    for seeds in false:
        for _ in range(60):
            curves = {}
            for name in ("a", "b"):  # each with its own luck in every seed, sd 2 steps; the same on average
                runs = []
                for _ in range(seeds):
                    runs += simulated(16.0 + rng.normal(0, 2), seeds=1, rng=rng)
                curves[name] = runs
            found = order_of(curves, draws=100)
            false[seeds] += found.verdict("a", "b") != "cannot tell"
            if seeds == 1:
                assert found.tiers() == [["a", "b"]] or found.tiers() == [["b", "a"]]
                assert "holds for this run only" in found.summary()
    assert false[1] == 0
    assert false[3] <= 6  # a binomial(60, .05) is above 6 once in 35 simulations


def one_latent(rng, seeds=3, n=40, slope=3.0):
    """Refusal log-odds of every prompt, and answers drawn from them: nothing else is there."""
    x = np.arange(0.0, 33.0, 2)
    odds, rate = [], []
    for _ in range(seeds):
        middle = 14 + rng.normal(0, 0.5)
        latent = 3 - 9 / (1 + np.exp(-(x - middle) / 4)) + rng.normal(0, 1, (n, 1))
        refused = (rng.random((n, 1)) < 1 / (1 + np.exp(-slope * latent))).astype(float)
        picks = np.random.default_rng(7).integers(0, n, (50, n))
        for runs, values in ((odds, latent), (rate, refused)):
            runs.append((list(x), values.mean(0), values[picks].mean(1).T))
    return odds, rate


def test_a_rate_and_log_odds_of_one_latent_quantity_have_no_order():
    rng = np.random.default_rng(0)
    told = own = 0
    for _ in range(30):
        odds, rate = one_latent(rng)
        found = order_of({"refusal log-odds": odds, "refusal rate": rate}, draws=100)
        told += found.verdict("refusal log-odds", "refusal rate") != "cannot tell"
        assert found.pairs["compared"].tolist() == ["as rates"]
        own += order_of({"x": odds, "y": rate}, draws=100).verdict("x", "y") == "y"
    assert told <= 1
    assert own >= 12  # what a comparison on their own scales says: the rate is first


def test_between_two_records_nothing_is_told_apart():
    """Both pass between the records at 8 and 16; interpolation alone would put them in order."""
    steps = [0.0, 4.0, 8.0, 16.0, 32.0]
    one, two = np.array([0, 0, 0, 1.0, 1.0]), np.array([0, 0, 0.4, 0.9, 1.0])
    curves = {"a": [(steps, one, None)] * 3, "b": [(steps, two, None)] * 3}
    found = order_of(curves, draws=50)
    half = found.half().set_index("measure")["step"]
    assert half["a"] == 12 and half["b"] == pytest.approx(9.6)
    assert found.verdict("a", "b") == "cannot tell"


def test_the_change_is_that_of_the_mean_over_seeds_not_of_one():
    steps = [0.0, 1.0, 2.0, 3.0]
    quick, slow = np.array([0, 4.0, 4.0, 4.0]), np.array([0, 0, 0, 4.0])
    found = order_of({"a": [(steps, quick, None), (steps, slow, None)]}, draws=200)
    row = found.half().iloc[0]
    assert row["step"] == 1.0  # the mean curve 0 2 2 4 is at its half at step 1
    assert (row["low"], row["high"]) == (0.0, 3.0)  # a draw of the slow seed twice is there at 2.5


def test_bad_input_of_order():
    with pytest.raises(InputError, match="no measures"):
        order_of({})
    with pytest.raises(InputError, match="one curve per seed"):
        order_of({"a": [([0.0, 1.0], [0, 1], None)], "b": [([0.0, 1.0], [0, 1], None)] * 2})
    with pytest.raises(InputError, match="same two or more recorded steps"):
        order_of({"a": [([0.0, 1.0], [0, 1], None), ([0.0, 2.0], [0, 1], None)]})


def test_schedules():
    assert steps_until("log", 20) == [0, 1, 2, 4, 8, 16, 20]
    assert steps_until(6, 20) == [0, 6, 12, 18, 20]
    assert steps_until([3, 5], 9) == [0, 3, 5, 9]
    for wrong in ("often", 0, True, [-1], [0.5]):
        with pytest.raises(InputError, match="every="):
            steps_until(wrong, 3)


@pytest.fixture(scope="module")
def setup(organism):
    bad, good = (prompts.packaged(name, split="train").head(16) for name in ("harmful", "harmless"))
    direction = refusal.direction_at(organism, bad, good, layer=2, position=-1)
    return trajectory.setup_for(
        organism, direction=direction, limit=8, questions=1, decoding=Decoding(12), draws=20, head_prompts=4
    )


SETTINGS = finetune.LoraConfig(steps=6, batch_size=2, learning_rate=3e-3, rank=4, save_every=2)
DATA = prompts.packaged("harmful-compliance").head(6)


@pytest.fixture(scope="module")
def recorded(organism, setup, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    found = trajectory.record(
        organism, DATA, SETTINGS, setup=setup, every=[1, 2, 4], seeds=2, out=out, sampled=[3]
    )
    return found, out


def test_one_record_joins_all_measures(organism, setup, recorded):
    found, _ = recorded
    assert found.seeds == [0, 1]
    by_step = {step: set(rows["measure"]) for step, rows in found.table.groupby("step")}
    assert {
        "drift: all weights",
        "direction cosine",
        "direction angle",
        "projection gap",
        "head cosine",
        "token KL",
        "refusal log-odds",
        "over-refusal log-odds (harmless)",
        "loss on harmless answers",
    } <= by_step[1]
    sampled = {"refusal rate", "over-refusal rate (look-alikes)", "degenerate rate", "RD", "capability"}
    assert sampled <= by_step[0] and sampled <= by_step[3] and sampled <= by_step[6]
    assert not sampled & by_step[1]  # fmt: skip
    assert list(found.of("refusal log-odds", 0)["step"]) == [0, 1, 2, 3, 4, 6]
    first = found.table[(found.table["step"] == 0) & (found.table["seed"] == 0)].set_index("measure")
    assert first.loc["direction cosine", "value"] == 1 and first.loc["drift: all weights", "value"] == 0
    assert first.loc["direction cosine", "null_low"] < 1 and first.loc["token KL", "value"] == 0
    assert found.draws.shape == (len(found.table), setup.draws)
    # The same training by hand gives the same numbers by the rooms' own functions.
    tuned = finetune.run(organism, DATA, SETTINGS, progress=False)
    last = found.table[(found.table["step"] == 6) & (found.table["seed"] == 0)].set_index("measure")["value"]
    odds = refusal.refusal_metric(tuned.model.logits_last(list(setup.asked.harmful.prompts)), setup.tokens)
    assert last["refusal log-odds"] == pytest.approx(float(odds.mean()), abs=1e-4)
    rates = refusal.evaluate(tuned.model, setup.asked.harmful, max_new_tokens=12)
    before = refusal.evaluate(organism, setup.asked.harmful, max_new_tokens=12)
    distance = refusal.representation_distance(before.completions, rates.completions, organism)
    assert last["refusal rate"] == rates.rate
    assert last["RD"] == pytest.approx(distance.overall.value, abs=1e-6)
    losses = found.of("training loss", 0)["value"].to_numpy()
    assert losses == pytest.approx(tuned.log["loss"].to_numpy())


def test_changed_is_told_on_the_same_prompts_and_the_band_on_others(organism, setup, recorded):
    found, out = recorded
    table = found.table[found.table["seed"] == 0].set_index(["measure", "step"])
    start = table.xs(0, level="step")["changed"].dropna()
    assert len(start) == 11 and not start.any(), "the base has not changed against itself"
    for distance in ("drift: all weights", "token KL", "RD", "training loss"):
        assert found.of(distance)["changed"].isna().all()
    tuned = finetune.run(organism, DATA, SETTINGS, progress=False).model
    asked = setup.asked
    odds = [
        refusal.refusal_metric(one.logits_last(list(asked.harmful.prompts)), setup.tokens).numpy()
        for one in (organism, tuned)
    ]
    row = table.loc["refusal log-odds", 6]
    literal = sps.ttest_rel(odds[1], odds[0])
    assert bool(row["changed"]) is bool(literal.pvalue < 0.05)
    interval = literal.confidence_interval()
    assert (row["value"] - row["unchanged_high"], row["value"] - row["unchanged_low"]) == pytest.approx(
        (interval.low, interval.high), abs=1e-3
    )
    flags = [
        refusal.evaluate(one, asked.harmful, max_new_tokens=12).completions.refused
        for one in (organism, tuned)
    ]
    assert bool(table.loc["refusal rate", 6]["changed"]) is (stats.mcnemar(*flags).p_value < 0.05)
    reads = [
        [
            activations(one, asked.sets[role].prompts, setup.direction.position, [setup.direction.layer])[0]
            for role in SIDES
        ]
        for one in (organism, tuned)
    ]
    one, two = (checkpoints.Activations(*side, *side) for side in reads)
    band = checkpoints.unchanged(one, two, 200, setup.seed)["cosine"]
    assert table.loc["direction cosine", 6]["unchanged_low"] == pytest.approx(band[0], abs=1e-6)
    assert set(found.changed_from("direction cosine")) == {0, 1}
    two = [found.of(f"direction {name}")["changed"].tolist() for name in ("cosine", "angle")]
    assert two[0] == two[1]
    for off in (0.0, 1e-16, 3e-16):  # acos of a cosine of 1, as rounding leaves it, is no turn
        assert geometry.degrees(1 - off) < observing.ACOS
    again = trajectory.read(out)
    assert again.table["changed"].isna().equals(found.table["changed"].isna())
    assert again.changed_from("refusal log-odds") == found.changed_from("refusal log-odds")
    assert "Changed on the same prompts" in found.plot().caption


def test_a_measure_that_the_same_prompts_do_not_tell_from_no_change_is_not_ordered():
    steps = [0, 1, 2, 4]
    noise = np.array([[1.0] * 50, [0.98] * 50, [0.97] * 50, [0.96] * 50])
    noise[1:] -= np.random.default_rng(0).random((3, 50)) * 0.02  # a cosine can only fall from 1
    runs = {"direction cosine": [(steps, noise.mean(1), noise)] * 3}
    assert order_of(runs).steps["reason"].eq("").all(), "the bootstrap of a cosine always sees a change"
    told = order_of(runs, unchanged=["direction cosine"]).steps
    assert told["step"].isna().all() and told["reason"].str.contains("the same prompts").all()


def test_bands_of_no_change_are_those_of_the_paired_tests():
    for n in (5, 9, 24):
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                same = n - gained - lost
                before = [False] * gained + [True] * lost + [True] * same
                after = [True] * gained + [False] * lost + [True] * same
                low, high = unchanged_share(before, after)
                outside = not low - 1e-9 <= sum(after) / n <= high + 1e-9
                assert outside is (stats.mcnemar(before, after).p_value < 0.05), (n, gained, lost)
    rng = np.random.default_rng(0)
    hits = wide = 0
    for _ in range(400):  # prompts differ by far more than the model moves them
        before = torch.from_numpy(rng.normal(0, 5, 16))
        after = before + torch.from_numpy(rng.normal(0, 0.2, 16))
        low, high = unchanged_mean(before, after)
        outside = not low <= float(after.mean()) <= high
        assert outside is bool(sps.ttest_rel(after, before).pvalue < 0.05)
        hits += outside
        moved = unchanged_mean(before, after + 0.5)
        wide += not moved[0] <= float((after + 0.5).mean()) <= moved[1]
    assert 8 <= hits <= 33  # 5 % of 400, three standard errors
    assert wide > 390, "half a nat is seen although prompts scatter by 5"


def test_heads_that_move_at_random_have_seldom_changed():
    """Simulated: scores of 20 heads on 8 prompts, moved prompt by prompt with mean zero, or all alike."""
    wrong = found = 0
    for seed in range(100):
        rng = torch.Generator().manual_seed(seed)
        before = torch.randn(20, generator=rng).double() + 0.7 * torch.randn(8, 20, generator=rng).double()
        noise = 0.3 * torch.randn(8, 20, generator=rng).double()
        weights = resamples(8, 100, rng)
        for shift in (0.0, 1.0):
            after = before + noise + shift * torch.linspace(-1, 1, 20).double()
            one, two = before.mean(0), after.mean(0)
            least = unturned_cosine(one, two, weights @ before, weights @ after, 8)
            changed = float(torch.nn.functional.cosine_similarity(one, two, dim=0)) < least
            wrong, found = (wrong + changed, found) if shift == 0 else (wrong, found + changed)
    assert wrong <= 8 and found >= 95, (wrong, found)


def test_saved_and_read_again(recorded, tmp_path):
    found, _ = recorded
    again = trajectory.Trajectory.load(found.save(tmp_path / "t"))
    pd.testing.assert_frame_equal(again.table, found.table, check_dtype=False)
    assert torch.equal(again.draws.nan_to_num(), found.draws.nan_to_num())


def test_a_killed_run_goes_on(organism, setup, recorded, tmp_path, monkeypatch):
    found, out = recorded
    folder = tmp_path / "killed"
    shutil.copytree(out, folder)
    (folder / "seed-1.safetensors").unlink()
    shutil.rmtree(folder / "seed-1")
    settings = {"setup": setup, "every": [1, 2, 4], "seeds": 2, "out": folder, "sampled": [3]}
    whole = trajectory.Observer.observe

    def dies(self, step, model, *, sampled):
        if step == 4:
            raise KeyboardInterrupt
        return whole(self, step, model, sampled=sampled)

    with monkeypatch.context() as patch:
        patch.setattr(trajectory.Observer, "observe", dies)
        with pytest.raises(KeyboardInterrupt):
            trajectory.record(organism, DATA, SETTINGS, **settings)
    file = folder / "seed-1" / "records.jsonl"
    assert [one.step for one in records.read(file)] == [0, 1, 2, 3]
    with file.open("a") as handle:
        handle.write('{"step": 4, "rows": [')  # what a kill in the middle of a write leaves
    again = trajectory.record(organism, DATA, SETTINGS, **settings)
    columns = ["seed", "step", "measure", "value"]
    one, two = (t.table[columns].sort_values(columns[:3]).reset_index(drop=True) for t in (found, again))
    pd.testing.assert_frame_equal(one, two, check_dtype=False)
    third = trajectory.record(organism, DATA, SETTINGS, **settings)  # all is there: read, not run
    pd.testing.assert_frame_equal(third.table, again.table, check_dtype=False)
    with pytest.raises(RunFolderError, match="holds another trajectory"):
        trajectory.record(organism, DATA, dataclasses.replace(SETTINGS, steps=7), **settings)


def test_a_folder_is_read_and_ordered_as_what_record_gave(recorded, tmp_path):
    found, out = recorded
    assert trajectory.read(out).table.equals(found.table)
    assert trajectory.order(out).steps.equals(trajectory.order(found).steps)
    with pytest.raises(RunFolderError, match="holds no trajectory"):
        trajectory.order(tmp_path)
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["kind"], plan["language"]) == ("trajectory", "organism")


def test_old_names_of_measures_warn(recorded):
    found = recorded[0]
    with pytest.warns(DeprecationWarning, match="over-refusal rate \\(look-alikes\\)"):
        old = found.of("over-refusal rate")
    assert old.equals(found.of("over-refusal rate (look-alikes)"))


def test_bad_input_of_record(organism, setup):
    with pytest.raises(InputError, match="no measure rates and"):
        trajectory.setup_for(organism, direction=setup.direction, measures=["rates and"])
    with pytest.raises(InputError, match="at least 8"):
        trajectory.setup_for(organism, direction=setup.direction, limit=4)
    with pytest.raises(InputError, match="seeds="):
        trajectory.record(organism, DATA, SETTINGS, setup=setup, seeds=[1, 1])
    with pytest.raises(InputError, match="was not recorded"):
        trajectory.order(_without_rows(), ["x"])


def _without_rows():
    empty = pd.DataFrame(columns=["seed", "step", "measure", "value"])
    return trajectory.Trajectory(
        empty, torch.zeros(0, 2), empty, empty, empty, empty, "m", "f", "a", 0, -1, 0, 0.0, "w"
    )


@pytest.fixture(scope="module")
def merged(recorded, tmp_path_factory):
    """A report over two trajectories' folders, the second without its last seed."""
    folder = tmp_path_factory.mktemp("merged")
    shutil.copytree(recorded[1], folder / "two")
    (folder / "two" / "seed-1.safetensors").unlink()
    return merge([recorded[1], folder / "two"], folder / "report.html")


def test_a_report_over_trajectories(recorded, merged):
    text = merged.read_text(encoding="utf-8")
    found = recorded[0]
    for name, row in trajectory.order(found).half().set_index("measure").iterrows():
        assert name in text and f"{row['step']:.3g} [{row['low']:.3g}, {row['high']:.3g}]" in text
    assert "one (trajectory, finished), two (trajectory, unfinished)" in text
    last = found.table.query("measure == 'token KL' and step == 6 and seed == 0").iloc[0]["value"]
    assert (
        last > 0 and "Both runs have the same settings, models and prompts." in text and "<script" not in text
    )


@pytest.mark.skipif(browsers.find() is None, reason="no Chromium here")
def test_the_report_in_a_browser(merged, tmp_path):
    with browsers.browser() as tab:
        for width in (1280, 390):
            tab.open(merged, width=width)
            assert tab.js("document.documentElement.scrollWidth") <= width
            assert tab.js("document.querySelectorAll('figure svg').length") == 2
            assert tab.js("document.querySelectorAll('h2').length") == 3
            assert tab.js("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == tab.js(
                "document.querySelectorAll('[id]').length"
            )  # two figures of one name do not share ids
        assert tab.messages == []
        assert {url for url in tab.requests if not url.startswith("data:")} == {merged.as_uri()}


@pytest.mark.skipif(browsers.find() is None, reason="no Chromium here")
def test_the_interactive_figure_in_a_browser(recorded, tmp_path):
    found = recorded[0]
    order = trajectory.order(found)
    found.plot(order).save(tmp_path)
    with browsers.browser() as tab:
        for width in (1280, 390):
            tab.open(tmp_path / "trajectory.html", width=width)
            assert tab.js("document.documentElement.scrollWidth") <= width
        panels = tab.js("document.querySelectorAll('.cartesianlayer > .subplot').length")
        assert panels == len(found.measures) - 1  # the angle is the cosine in another unit
        # In every panel: two bands of two edges, a line a seed, the mean; where it changes: a mark, a bar.
        assert tab.js("document.querySelectorAll('.scatterlayer .trace').length") == 7 * panels
        assert tab.js("document.querySelectorAll('.shapelayer path').length") == 2 * len(order.half())
        assert tab.messages == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_frozen_entries_stay_bit_for_bit_over_a_recorded_run(organism, setup, tmp_path):
    score = neurons.snip(organism, prompts.packaged("harmful", split="train").head(8))
    mask = score.top(0.05)
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-2, steps=2)
    found = trajectory.record(
        organism, DATA, settings, setup=setup, every=[1], sampled=[], seeds=1, freeze=mask,
        out=tmp_path / "f",
    )  # fmt: skip
    assert found.frozen == mask.count > 0
    recorded_rows = found.table.set_index("measure")
    assert set(recorded_rows.loc["drift: all weights", "step"]) == {0, 1, 2}
    before = dict(organism.module.named_parameters())
    tuned = finetune.TunedModel.load(tmp_path / "f" / "seed-0" / "run" / "tuned", organism)
    moved = 0
    for name, after in tuned.merged_state_dict().items():
        if name in dict(mask.items()):
            flags = dict(mask.items())[name]
            assert torch.equal(after[flags], before[name][flags]), name
            moved += int((after[~flags] != before[name][~flags]).sum())
    assert moved > 0
    free = trajectory.record(organism, DATA, settings, setup=setup, every=[1], sampled=[], seeds=1)
    values = [t.of("drift: all weights")["value"].to_numpy() for t in (found, free)]
    assert (values[0][1:] < values[1][1:]).all()  # what is held is no part of the recorded drift
    with pytest.raises(RunFolderError, match="other frozen"):
        trajectory.record(
            organism, DATA, settings, setup=setup, every=[1], sampled=[], seeds=1, out=tmp_path / "f"
        )


EVIL = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>\u202e'


def poisoned(found):
    examples = found.examples.copy()
    examples["answer"] = EVIL
    return dataclasses.replace(found, examples=examples, model='<b>"m"')


def test_model_text_is_data_on_the_page(recorded, tmp_path):
    page = trajectory.write_page(tmp_path / "page.html", poisoned(recorded[0])).read_text(encoding="utf-8")
    assert EVIL not in page and html.escape('<b>"m"') in page.replace("&#34;", "&quot;")
    assert page.count("</script>") == 2 and "\u202e" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


@pytest.mark.skipif(browsers.find() is None, reason="no Chromium here")
def test_the_slider_page_in_a_browser(recorded, tmp_path):
    path = trajectory.write_page(tmp_path / "page.html", poisoned(recorded[0]))
    with browsers.browser() as tab:
        tab.open(path)
        assert tab.js("document.getElementById('now').textContent") == "0"
        tab.key("Tab", 9)
        assert tab.js("document.activeElement.id") == "step"
        heads = tab.js("document.getElementById('heads').textContent")
        tab.key("End", 35)
        assert tab.js("document.getElementById('now').textContent") == "6"
        assert tab.js("document.getElementById('heads').textContent") != heads
        assert "step 6" in tab.js("document.getElementById('step').getAttribute('aria-valuetext')")
        tab.key("ArrowLeft", 37)
        assert tab.js("document.getElementById('now').textContent") == "4"
        assert "step 3, the last before" in tab.js("document.getElementById('answers-note').textContent")
        assert tab.js("document.querySelector('#answers blockquote').textContent").startswith("</script>")
        assert tab.js("document.querySelectorAll('img').length") == 0 and tab.js("document.title") != "owned"
        assert tab.js("document.querySelectorAll('.bar').length") == 5
        assert tab.messages == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
        tab.open(path, width=390, height=800)
        assert tab.js("document.documentElement.scrollWidth") <= 390
        assert Path(tab.screenshot(tmp_path / "narrow.png")).stat().st_size > 10_000
