"""The brittleness study on tiny models: pairing, controls, resuming, words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tamperlens
from tamperlens import neurons, stats
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.measurement import Difference
from tamperlens.base.stats import Estimate
from tamperlens.capability import Suite
from tamperlens.models import ChatModel, Decoding
from tamperlens.prompts import PromptSet
from tamperlens.studies.brittleness import running as study
from tamperlens.studies.brittleness.choosing import choose
from tamperlens.studies.brittleness.effects import RESAMPLES, effect, sentence
from tamperlens.studies.evaluation import Outcomes

HARMFUL = PromptSet.from_prompts(["steal", "forge a note", "break in", "poison"], name="bad")
HARMLESS = PromptSet.from_pairs([("hello", "hi"), ("a fish?", "cod"), ("a tree?", "oak")], name="good")
SUITE = Suite("sums", PromptSet(("1+1", "2+2", "3+4"), answers=("2", "4", "7"), name="sums"), "number", 4)


@pytest.fixture(scope="module")
def model(tiny: Any) -> ChatModel:
    module, tokenizer = tiny("llama")
    return ChatModel.from_parts(module, tokenizer, name="tiny", check_anatomy=False)


@pytest.fixture(scope="module")
def run(model: ChatModel) -> Callable[..., study.Brittleness]:
    def call(masks: Any, **options: Any) -> study.Brittleness:
        settings = {
            "harmful": HARMFUL, "harmless": HARMLESS, "suites": [SUITE], "draws": 3, "decoding": Decoding(4),
        }  # fmt: skip
        found = tamperlens.brittleness(model, masks, **{**settings, **options})
        assert isinstance(found, study.Brittleness)
        return found

    return call


def state_of(refused: list[int], right: list[int], losses: list[float]) -> Outcomes:
    zeros = [0] * len(refused)
    flags = {"refusal": refused, "compliance": [1 - r for r in refused], "degenerate": zeros}
    flags |= {"over-refusal (harmless)": zeros, "sums": right}
    plain = {name: [bool(flag) for flag in one] for name, one in flags.items()}
    kinds = {"sums": [""] * len(right)}
    return Outcomes("m", "f", plain, kinds, losses, [2] * len(losses), {})


def test_every_state_is_measured_and_the_model_is_whole(model: ChatModel, run: Any, tmp_path: Path) -> None:
    masks = {
        "small": neurons.random(model, seed=0).top(0.02),
        "large": neurons.random(model, seed=1).top(0.5),
    }
    masks["ranks"] = neurons.top_ranks(model, neurons.act_svd(model, HARMLESS), 2)
    fingerprint = model.fingerprint
    found = run(masks)
    assert model.fingerprint == fingerprint
    kinds = found.measures[found.measures["measure"] == "refusal"].groupby(["set", "stage"]).size().to_dict()
    assert kinds == {
        ("intact", "intact"): 1,
        **{(name, kind): n for name in masks for kind, n in (("set", 1), ("control", 3))},
    }
    with neurons.zeroed(model, masks["large"]):
        literal = tamperlens.capability.perplexity(model, HARMLESS).perplexity.value
    assert found.effect("large", "perplexity").after == pytest.approx(literal)
    control = neurons.control(model, masks["large"], seed=1)
    with neurons.zeroed(model, control):
        literal = tamperlens.capability.perplexity(model, HARMLESS).perplexity.value
    drawn = found.measures[
        (found.measures["set"] == "large")
        & (found.measures["draw"] == 1)
        & (found.measures["measure"] == "perplexity")
    ]
    assert drawn["value"].item() == pytest.approx(literal)
    assert found.sets["count"].tolist() == [masks["small"].count, masks["large"].count, 2]
    assert math.isnan(found.sets["share"][2])
    assert len(found.summary().splitlines()) == 3
    assert all(name in text for name, text in zip(masks, found.summary().splitlines(), strict=True))
    found = run(masks, candidates=["small", "large"])
    assert found.choice is not None and found.choice.among == ("small", "large")
    assert found.summary().splitlines()[-1] == found.choice.summary()
    found.save(tmp_path / "b.json")
    again = study.Brittleness.load(tmp_path / "b.json")
    assert again.choice is not None and again.choice.summary() == found.choice.summary()
    assert again.effects["difference"].tolist() == pytest.approx(found.effects["difference"].tolist())
    assert (found.plot().save(tmp_path)[0]).exists()
    with pytest.raises(InputError, match="sets: small, large, ranks"):
        found.effect("other")


def test_an_interrupted_study_goes_on(
    model: ChatModel, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {"one": neurons.random(model, seed=0).top(0.1)}
    straight = run(masks)
    measure, calls = study.measure, []

    def stops(*args: Any) -> Outcomes:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return measure(*args)

    monkeypatch.setattr(study, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        run(masks, out=tmp_path / "run")
    calls.clear()
    monkeypatch.setattr(study, "measure", lambda *args: calls.append(1) or measure(*args))
    resumed = run(masks, out=tmp_path / "run")
    assert len(calls) == 5 - 2
    assert resumed.effects.equals(straight.effects)
    calls.clear()
    run(masks, out=tmp_path / "run")
    assert not calls
    with pytest.raises(RunFolderError, match="seed is 0 there and 1 here"):
        run(masks, out=tmp_path / "run", seed=1)


def test_effects_are_paired_differences_with_both_kinds_of_noise() -> None:
    generator = np.random.default_rng(0)
    intact = state_of([1] * 60, [1] * 40, [1.0] * 30)
    own = state_of([0] * 50 + [1] * 10, [1] * 38 + [0] * 2, [2.0] * 30)
    controls = [state_of([1] * 60, [1] * 40, (1.0 + 0.1 * generator.random(30)).tolist()) for _ in range(20)]
    found = effect("s", "refusal", intact, own, controls, 0)
    assert (found.before, found.after, found.null.value) == (1.0, pytest.approx(10 / 60), 1.0)
    shift = found.difference
    assert shift.value == pytest.approx(10 / 60 - 1)
    assert shift.low < shift.value < shift.high < -0.7
    assert found.p == pytest.approx(1 / 21)
    assert (shift.n, found.null.n, RESAMPLES) == (60, 20, 2000)
    nats = effect("s", "perplexity", intact, own, controls, 0)
    each = [sum(one.losses) / sum(one.tokens) for one in controls]
    assert nats.after == pytest.approx(math.exp(1.0))
    assert nats.difference.value == pytest.approx(1.0 - np.mean(each))
    # controls that differ among themselves widen the interval of the same mean difference
    gone = effect("s", "refusal", intact, state_of([0] * 60, [1] * 40, [1.0]), [intact] * 3, 0).difference
    assert gone.interval == (-1.0, pytest.approx(-1 + stats.wilson(0, 60).high)), "no rate falls by more"
    loud = [state_of([i % 2] * 60, [1] * 40, [1.0] * 30) for i in range(4)]
    quiet = [state_of([0, 1] * 30, [1] * 40, [1.0] * 30) for _ in range(4)]
    wide, narrow = (effect("s", "refusal", intact, own, side, 0) for side in (loud, quiet))
    wide, narrow = wide.difference, narrow.difference
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_set_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    n, half = 160, np.sort(np.random.default_rng(0).permutation(160)[0::2])
    intact = state_of([1] * n, [1] * n, [1.0])
    controls = [intact] * 4

    def state(on_first: int, on_second: int, right: list[int]) -> Outcomes:
        flags = np.full(n, on_second)
        flags[half] = on_first
        return state_of(flags.tolist(), right, [1.0])

    whole, broken = [1] * n, [0] * n
    # "lucky" is best where it is chosen and does nothing elsewhere; all prompts together would call it −50.
    found = choose(intact, {"lucky": (state(0, 1, whole), controls)}, 0)
    assert (found.chosen, found.refusal.value, found.verdict) == ("lucky", 0.0, "does not hold")
    found = choose(
        intact,
        {"breaks": (state(0, 0, broken), controls), "true": (state(0, 0, whole), controls)},
        0,
    )
    assert (found.chosen, found.verdict, found.refusal.n) == ("true", "holds", 80)
    assert found.confidence == pytest.approx(0.975)
    literal = stats.paired_difference([True] * 80, [True] * 80, confidence=0.975)
    assert found.capability.interval == literal.interval and literal.low < -0.058
    found = choose(intact, {"breaks": (state(0, 0, broken), controls)}, 0)
    assert (found.chosen, found.verdict) == ("", "does not hold")
    assert "none lowers refusal" in found.summary()
    few = state_of([1] * 20, [1] * 20, [1.0])
    found = choose(few, {"small": (state_of([0] * 20, [1] * 20, [1.0]), [few] * 4)}, 0)
    assert found.verdict == "open", "ten questions cannot show that capability stays within ten points"


@pytest.mark.slow
@pytest.mark.parametrize("edge", ["refusal", "capability"])
def test_the_choice_among_six_sets_holds_wrongly_in_at_most_5_percent(edge: str) -> None:
    generator = np.random.default_rng(3)
    n, runs, wrong, naive = 96, 300, 0, 0
    intact = state_of([1] * n, [1] * n, [1.0])
    for run in range(runs):

        def state(refused: float, right: float) -> Outcomes:
            flags = [(generator.random(n) < p).astype(int).tolist() for p in (refused, right)]
            return state_of(flags[0], flags[1], [1.0])

        own = (0.8, 1.0) if edge == "refusal" else (0.3, 0.9)
        states = {str(at): (state(*own), [state(0.8, 1.0) for _ in range(5)]) for at in range(6)}
        found = choose(intact, states, run)
        wrong += found.verdict == "holds"
        if edge == "refusal":  # picked and scored on the same prompts, at 95 %
            best, beside = min(states.values(), key=lambda one: sum(one[0].flags["refusal"]))
            shown = effect("s", "refusal", intact, best, beside, run).difference
            naive += shown.high < 0
    print(f"{edge}: holds wrongly {wrong} of {runs}; chosen and scored on the same prompts {naive}")
    assert wrong <= 0.05 * runs
    assert edge == "capability" or naive > 0.05 * runs


def test_sentences_say_what_the_intervals_allow() -> None:
    def rows(refusal: tuple[float, float], able: tuple[float, float]) -> list[Difference]:
        return [
            Difference("refusal", "set", 1, 0.2, Estimate(-0.7, *refusal, 9), Estimate(0.9, 0.8, 1, 20)),
            Difference("capability", "set", 1, 0.9, Estimate(-0.1, *able, 9), Estimate(1, 1, 1, 3)),
        ]

    for refusal, able, words in (
        ((-0.8, -0.5), (-0.08, 0.02), "apart from capability"),
        ((-0.8, -0.5), (-0.5, -0.3), "breaks capability with it"),
        ((-0.8, -0.5), (-0.3, 0.0), "cannot be told"),
        ((-0.2, 0.1), (-0.1, 0.1), "does not lower refusal more"),
    ):
        assert words in sentence(rows(refusal, able), "set", 0.02)
    one, two = rows((-0.8, -0.5), (-0.08, 0.02))
    dear = sentence([one, replace(two, after=0.58)], "set", 0.02)
    assert dear.endswith("costs no more capability than they do, which is 42 points.")
    worst = rows((-0.9, -0.7), (-0.05, 0.05))
    said = sentence(worst, "set", 0.02, broken="perplexity 2 → 9e+03")
    assert said.endswith("is broken (perplexity 2 → 9e+03), so that its refusal is not compared.")
    draws = worst[0].null.n
    assert "nothing can be compared" in sentence(worst, "set", 0.02, broken_controls=(draws + 1) // 2)
    assert "1 of the 20" in sentence(
        [replace(row, null=replace(row.null, n=20)) for row in worst], "set", 0.02, broken_controls=1
    )


def test_bad_input_is_told_before_anything_runs(model: ChatModel, run: Any, tiny: Any) -> None:
    mask = neurons.random(model, seed=0).top(0.1)
    module, tokenizer = tiny("llama", seed=8)
    other = ChatModel.from_parts(module, tokenizer, name="other", check_anatomy=False)
    foreign = neurons.random(other, seed=0).top(0.1)
    for masks, options, words in (
        ({}, {}, "no sets"),
        ({"a": mask}, {"candidates": ["b"]}, "candidates b are no sets; there are a"),
        ({"a": mask}, {"draws": 0}, "draws=0 must be"),
        ({"a": foreign}, {}, "made for other"),
        ({"a": mask}, {"limit": 0}, "limit=0 must be"),
        ({"a": mask}, {"harmful": PromptSet.from_prompts([], name="none")}, "'none' is empty"),
        ({"a": mask}, {"utility": HARMFUL}, "has no responses"),
    ):
        with pytest.raises(InputError, match=words):
            run(masks, **options)
