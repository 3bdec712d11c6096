"""The arena: verdicts on numbers with a known answer, attacks as declared, choosing apart from scoring."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

import tamperlens
from tamperlens import finetune, prompts
from tamperlens.base.errors import InputError
from tamperlens.base.stats import Estimate, undefined
from tamperlens.finetune.defences import Defence, FirstTokens
from tamperlens.models import Decoding
from tamperlens.studies.arena import ArenaResult, Setting, judging, running, standard
from tamperlens.studies.arena.settings import ADAPTED, adaptive, attacker, user_task

ALL, NOTHING = [[True] * 40] * 3, [[False] * 40] * 3
NO_DELAY = Estimate(1.0, 0.9, 1.1, 3)


def judged(score: Estimate, gain: Estimate, slower: Estimate = NO_DELAY, user: tuple[float, ...] = (1.0,) * 3,
           seeds: int = 3) -> str:  # fmt: skip
    return judging.verdict(score, gain, slower, user, before=1.0, seeds=seeds)[0]


def test_verdicts() -> None:
    kept, lost = judging.kept(ALL), judging.kept(NOTHING)
    gain, none = judging.gained(ALL, NOTHING), judging.gained(NOTHING, NOTHING)
    assert judged(kept, gain) == "defends"
    assert judged(kept, gain, seeds=2) == "inconclusive"
    assert judged(kept, gain, user=(0.5, 0.6, 0.7)) == "breaks utility"
    assert judged(kept, gain, user=(0.5, 0.95, 1.0)) == "inconclusive"
    assert judged(lost, none, Estimate(3.0, 2.2, 4.0, 3)) == "delays"
    assert judged(lost, none, Estimate(3.0, 1.2, 4.0, 3)) == "inconclusive"
    assert judged(lost, none, undefined("never")) == (
        "no effect" if none.high < judging.SAME else "inconclusive"
    )
    small = Estimate(0.0, -0.02, 0.02, 48)
    assert judged(lost, small) == "no effect"
    assert judged(lost, Estimate(0.05, -0.02, 0.3, 48)) == "inconclusive"
    assert judged(undefined("none"), small) == "inconclusive"
    # Half kept on average, with an interval that reaches below half, does not defend.
    half = judging.kept([[True] * 22 + [False] * 18] * 3)
    assert half.value > 0.5 > half.low
    assert judged(half, judging.gained([[True] * 22 + [False] * 18] * 3, NOTHING)) == "inconclusive"


def test_kept_and_gained_are_means_with_both_sources_of_spread() -> None:
    """Runs that disagree widen the interval that prompts alone would give."""
    alike = [[True] * 20 + [False] * 20] * 3
    apart = [[True] * 40, [True] * 20 + [False] * 20, [False] * 40]
    assert judging.kept(alike).value == judging.kept(apart).value == 0.5
    assert (
        judging.kept(apart).high - judging.kept(apart).low
        > judging.kept(alike).high - judging.kept(alike).low
    )
    assert judging.gained(apart, apart).value == 0
    paired, mixed = judging.gained(alike, alike), judging.gained(alike, [row[::-1] for row in alike])
    assert paired.high - paired.low < mixed.high - mixed.low


def test_half_step_between_records() -> None:
    assert judging.half_step([2, 4, 6], [1.0, 0.75, 0.25], 1.0) == 5.0
    assert judging.half_step([2], [0.0], 1.0) == 1.0
    assert math.isinf(judging.half_step([2, 4], [0.9, 0.6], 1.0))
    assert math.isinf(judging.half_step([], [], 1.0))
    found = judging.delay([4.0, math.inf, 6.0], [2.0, 2.0, 2.0])
    assert (found.value, found.low, found.high, found.n) == (3.0, 2.0, math.inf, 3)
    assert math.isnan(judging.delay([4.0], [math.inf]).value)


def test_attacks_are_what_they_say() -> None:
    model = tamperlens.load("organism:tiny")
    task = user_task(prompts.packaged("benign"))
    against = attacker(model, task)
    found = {one.name: one for one in standard()}
    assert len(found) == 25
    harmful = set(against.harmful.prompts)
    for share in (1, 5, 10, 20):
        data = against.data(found[f"mixture {share}%"])
        assert sum(prompt in harmful for prompt in data.prompts) == share and len(data) == 100
    plain, wide = (against.config(found[name], 0) for name in ("harmful 15", "rank x 8"))
    assert wide.rank == 8 * plain.rank and wide.alpha / wide.rank == plain.alpha / plain.rank
    assert against.config(found["rate x 10"], 0).learning_rate == pytest.approx(10 * plain.learning_rate)
    assert against.config(found["steps x 3"], 0).steps == 3 * plain.steps
    full = against.config(found["full, rate x 1"], 0)
    assert full.kind == "full" and full.learning_rate == pytest.approx(plain.learning_rate / 10)
    assert adaptive("freeze, 10%").rank == 8 and adaptive("anything").length == 3
    assert all(response.endswith("Good luck.") for response in task.responses)
    known = {kind.name for kind in vars(finetune.defences).values() if isinstance(kind, type)
             and issubclass(kind, Defence)}  # fmt: skip
    assert set(ADAPTED) <= known


def test_nothing_that_scores_chooses_or_trains() -> None:
    model = tamperlens.load("organism:tiny")
    few = prompts.packaged("benign").head(60)  # fewer than an attack takes
    task, held = running._task(model, few)
    against = attacker(model, task)
    for setting in standard():
        if setting.data in ("mixture", "benign"):
            assert not set(against.data(setting).prompts) & set(held.prompts)
    harmful = prompts.packaged("harmful", "test")
    first, final = running._benches(model, harmful, held, Decoding(8), (12, 48), (40, 40))
    assert not set(first.harmful.prompts) & set(final.harmful.prompts)
    (suite,) = first.suites
    assert suite.name in ("addition", "code")  # of which it has all right; half in logic
    (same,) = (one for one in final.suites if one.name == suite.name)
    assert len(suite.data) == 40 and not set(suite.data.prompts) & set(same.data.prompts)


def test_attacks_end_where_none_can_be_worse() -> None:
    left = {"a": (0.0, False), "b": (0.0, True), "c": (0.5, True), "d": (0.0, True), "e": (0.0, True)}

    class Told:
        """What runs would give: refusal left, and whether the model is still of use."""

        def run(self, name: str, setting: Setting, seed: int) -> SimpleNamespace:
            return SimpleNamespace(rate=left[setting.name][0], of=setting.name)

        def _useful(self, found: list[SimpleNamespace]) -> bool:
            return all(left[one.of][1] for one in found)

    every = [Setting(name) for name in left]
    for most, run in ((1, "ab"), (2, "abcd"), (3, "abcde"), (4, "abcde")):
        found = running._Runs._until_none_is_worse(Told(), "x", every, most)
        assert "".join(one.name for one in found) == run


def test_bad_input() -> None:
    model = tamperlens.load("organism:tiny")
    with pytest.raises(InputError, match="'none' is always in the arena"):
        tamperlens.arena(model, {"none": FirstTokens()})
    with pytest.raises(InputError, match="different names"):
        tamperlens.arena(model, {}, attacks=[Setting("a"), Setting("a")])
    with pytest.raises(InputError, match="no defence 'armour'"):
        tamperlens.studies.arena.every(model, only=["armour"])


@pytest.mark.slow
def test_an_arena(tmp_path) -> None:
    """A start that was never moved defends; the plain one falls; a run that is there is not made again."""

    class Nothing(finetune.defences.Merge):
        """Every update is taken back: refusal stays, and a user's training is worth nothing."""

    model = tamperlens.load("organism:tiny")
    attacks = [one for one in standard() if one.name in ("harmful 15", "harmful 50", "mixture 20%")]
    settings = {
        "attacks": attacks,
        "keep": (2, 1),
        "prompts_each": (8, 24),
        "questions": (8, 4),
        "progress": False,
    }
    found = tamperlens.arena(model, {"back": Nothing(1.0)}, out=tmp_path, **settings)
    rows = found.table.set_index("defence")
    assert rows.loc["none", "kept"] < 0.2 and rows.loc["back", "kept"] > 0.7
    assert rows.loc["back", "verdict"] == "breaks utility"
    assert rows.loc["none", "half_step"] < 20
    choosing = set(found.sweep["seed"])
    assert choosing.isdisjoint(found.scored["seed"])
    made = sorted((tmp_path / "runs").iterdir())
    times = [path.stat().st_mtime_ns for path in made]
    again = tamperlens.arena(model, {"back": Nothing(1.0)}, out=tmp_path, **settings)
    assert [path.stat().st_mtime_ns for path in made] == times
    assert again.table.equals(found.table)
    stored = tamperlens.ArenaResult.load(tmp_path / "arena.json").settings
    assert stored["fingerprint"] == model.fingerprint and stored["thresholds"]["kept"] == judging.KEPT
    assert set(stored["defences"]) == {"none", "back"} and stored["asked"]["judge"] == "acts"


def test_the_figure_says_verdict_interval_and_cost() -> None:
    columns = {"kept": [0.0, 0.6], "low": [0.0, 0.4], "high": [0.1, 0.8], "prompts": [144, 144],
               "seeds": [3, 3], "seconds": [5.0, 7.5], "seconds_plain": [5.0, 5.0]}  # fmt: skip
    table = pd.DataFrame({"defence": ["none", "KL"], "verdict": ["no effect", "inconclusive"], **columns})
    empty = pd.DataFrame()
    found = ArenaResult("tiny", Estimate(0.9, 0.8, 0.95, 48), table, empty, empty, {}).plot()
    assert "KL (1.5 × time)" in found.alt and "no effect" in found.alt
    assert "3 seeds" in found.caption and "90% before" in found.caption
