"""Distances between checkpoints on planted rotations, causal transfer, and the recorder."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from planted import REFUSES, matched_prompts, planted_model, prompts

from tamperlens import finetune, refusal
from tamperlens.base.errors import InputError
from tamperlens.directions.checkpoints import (
    MEASURES,
    Activations,
    base_nulls,
    compare_activations,
    unchanged,
)
from tamperlens.directions.geometry import linear_cka
from tamperlens.directions.paired_reads import cka_intervals
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

BAD, GOOD = prompts(40, harmful=True), prompts(40, harmful=False)


@pytest.fixture(scope="module")
def planted(tiny: Any) -> tuple[ChatModel, torch.Tensor]:
    return planted_model(lambda family, **settings: tiny(family, **settings))


@pytest.fixture(scope="module")
def found(planted: Any) -> refusal.Direction:
    tokens = [planted[0].tokenizer.convert_tokens_to_ids(REFUSES)]
    return refusal.find_direction(planted[0], BAD, GOOD, n_train=28, n_val=10, refusal_tokens=tokens)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reads(shift: torch.Tensor, seed: int = 0, n: int = 30) -> Activations:
    rows = [draw(n, len(shift), seed=10 * seed + i) for i in range(4)]
    return Activations(rows[0] + shift, rows[1], rows[2] + shift, rows[3])


# ---- distances


@pytest.mark.parametrize("angle", [0.0, 0.05, 0.3, 1.2])
def test_planted_rotation_over_checkpoints(tiny: Any, angle: float) -> None:
    # Words make more noise here than the rest of the network, which sees the mark too, makes difference.
    def make(family: str, **settings: Any) -> Any:
        return tiny(family, **settings)

    base, _ = planted_model(make, whisper=0.003, noise=0.01)
    bad, good = matched_prompts(40)
    tokens = [base.tokenizer.convert_tokens_to_ids(REFUSES)]
    found = refusal.find_direction(base, bad, good, n_train=28, n_val=10, refusal_tokens=tokens)
    tuned, _ = planted_model(make, angle=angle, whisper=0.003, noise=0.01)
    got = refusal.compare_checkpoints(base, tuned, found, bad, good, k=1, draws=60)
    band = math.radians(got.null("angle_degrees").high)
    assert band < 0.05
    assert math.radians(got["angle_degrees"].value) == pytest.approx(angle, abs=band)
    assert got["cosine"].value == pytest.approx(math.cos(angle), abs=0.01)
    assert got["geodesic"].value == pytest.approx(angle, abs=got.null("geodesic").high)
    assert got["chordal"].value == pytest.approx(math.sin(angle), abs=got.null("chordal").high)
    assert got["projection_energy"].value == pytest.approx(math.cos(angle) ** 2, abs=0.02)
    assert got["norm_ratio"].value == pytest.approx(1, abs=0.02)
    inside = got.table.set_index("measure").within_prompt_band
    far = ("cosine", "angle_degrees", "geodesic", "chordal", "projection_energy")
    assert [bool(inside[name]) for name in far] == [angle == 0.0] * 5
    assert got["auroc_own_direction"].value == 1  # the tuned model tells them apart all the same
    assert list(got.table.measure) == list(MEASURES)
    if angle == 0:
        assert got["linear_cka"].value == pytest.approx(1)
        assert got["cosine"].low == pytest.approx(1)
    if angle > 0.1:
        assert got["gap_base_direction"].value < got.null("gap_base_direction").value
    with pytest.raises(InputError, match="no measure"):
        got["nothing"]


def test_values_are_those_of_the_literal_formulas() -> None:
    shift = torch.zeros(12, dtype=torch.float64)
    shift[0] = 3
    other = shift.clone()
    other[1] = 2
    base, tuned = reads(shift), reads(other, seed=1)
    rows = compare_activations(
        base, tuned, base_nulls(base, k=2, n_draws=40, seed=0), k=2, n_draws=40, seed=0, span_draws=5
    )
    table = {row["measure"]: row for row in rows}
    a, b = base.harmful.mean(0) - base.harmless.mean(0), tuned.harmful.mean(0) - tuned.harmless.mean(0)
    assert table["cosine"]["value"] == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert table["norm_ratio"]["value"] == pytest.approx(float(b.norm() / a.norm()))
    spans = [torch.linalg.svd(one.harmful - one.harmless.mean(0))[2][:2] for one in (base, tuned)]
    cosines = torch.linalg.svdvals(spans[0] @ spans[1].T)
    assert table["geodesic"]["value"] == pytest.approx(float(cosines.arccos().norm()), rel=1e-6)
    assert table["projection_energy"]["value"] == pytest.approx(
        float((spans[0] @ b).square().sum() / (b @ b))
    )
    x, y = base.everything, tuned.everything
    x, y = x - x.mean(0), y - y.mean(0)
    cka = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert table["linear_cka"]["value"] == pytest.approx(float(cka))
    high, low = tuned.harmful_val @ a / a.norm(), tuned.harmless_val @ a / a.norm()
    assert table["gap_base_direction"]["value"] == pytest.approx(float(high.mean() - low.mean()))
    assert table["d_prime_base_direction"]["value"] == pytest.approx(
        float((high.mean() - low.mean()) / ((high.var() + low.var()) / 2).sqrt())
    )
    # Unrelated noise has a high plain CKA only by chance; the null says how high.
    assert table["linear_cka_debiased"]["null"] == pytest.approx(0, abs=0.1)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_null_covers_a_fresh_sample_and_flags_a_turned_one() -> None:
    shift = torch.zeros(20, dtype=torch.float64)
    shift[0] = 3
    outside = 0
    for seed in range(10):
        base, same = reads(shift, seed=seed), reads(shift, seed=100 + seed)
        nulls = base_nulls(base, k=1, n_draws=40, seed=0)
        rows = {r["measure"]: r for r in compare_activations(base, same, nulls, k=1, n_draws=2, seed=0)}
        outside += not rows["cosine"]["within_prompt_band"]
    assert outside <= 1  # halves are noisier than full sets, so this null is on the wide side
    turned = torch.roll(shift, 1)
    rows = {r["measure"]: r for r in compare_activations(base, reads(turned), nulls, k=1, n_draws=2, seed=0)}
    assert rows["cosine"]["within_prompt_band"] is False


def altered(base: Activations, turn: float, noise: float, seed: int) -> Activations:
    """The same prompts in a model that turns harmful ones by `turn` and every one at random by `noise`."""
    parts = [getattr(base, name) for name in ("harmful", "harmless", "harmful_val", "harmless_val")]
    moved = [part + noise * draw(*part.shape, seed=77 * seed + i) for i, part in enumerate(parts)]
    for i in (0, 2):
        moved[i][:, 1] += turn
    return Activations(*moved)


def test_changed_and_within_the_prompt_band_are_two_answers() -> None:
    shift = torch.zeros(20, dtype=torch.float64)
    shift[0] = 3
    base = reads(shift)
    nulls = base_nulls(base, k=1, n_draws=60, seed=0)
    for turn, changed, within in ((0.0, False, True), (0.3, True, True), (9.0, True, False)):
        tuned = altered(base, turn, 0.02, seed=1)
        rows = {r["measure"]: r for r in compare_activations(base, tuned, nulls, k=1, n_draws=200, seed=0)}
        assert rows["cosine"]["value"] < 1 - 1e-6  # "no change" is never exactly 1 once weights move
        for measure in ("cosine", "angle_degrees"):
            assert rows[measure]["changed"] is changed
            assert rows[measure]["within_prompt_band"] is within
        assert rows["linear_cka"]["within_prompt_band"] is None
        assert rows["linear_cka"]["within_chance"] is False and rows["linear_cka"]["changed"] is None
    same = {r["measure"]: r for r in compare_activations(base, base, nulls, k=1, n_draws=50, seed=0)}
    told = ("cosine", "angle_degrees", "gap_base_direction")
    assert [same[name]["changed"] for name in told] == [False] * 3


def test_changed_errs_in_few_of_the_models_that_turn_nothing_on_average() -> None:
    """Simulated: 120 models whose activations move at random, prompt by prompt, with mean zero."""
    shift = torch.zeros(20, dtype=torch.float64)
    shift[0] = 3
    wrong = dict.fromkeys(("cosine", "gap_base_direction"), 0)
    found = 0
    for seed in range(120):
        base = reads(shift, seed=seed)
        for turn in (0.0, 1.0):
            after = altered(base, turn, 0.3, seed)
            a, b = base.difference, after.difference
            cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
            band = unchanged(base, after, 100, seed)
            if turn:
                found += cosine < band["cosine"][0]
                continue
            gap = float((after.harmful_val.mean(0) - after.harmless_val.mean(0)) @ (a / a.norm()))
            for name, value in (("cosine", cosine), ("gap_base_direction", gap)):
                wrong[name] += not band[name][0] <= value <= band[name][1]
    assert max(wrong.values()) <= 10, wrong  # 5 % of 120, and two standard errors
    assert found >= 114


def test_wide_activations_keep_their_geometry() -> None:
    shift = torch.zeros(400, dtype=torch.float64)
    shift[0] = 5
    base, tuned = reads(shift, n=12), reads(shift + 0.1, seed=1, n=12)
    a, b = base.difference, tuned.difference
    rows = compare_activations(base, tuned, base_nulls(base, k=2, n_draws=5, seed=0), k=2, n_draws=2, seed=0)
    assert rows[0]["value"] == pytest.approx(float(a @ b / a.norm() / b.norm()), rel=1e-9)


def test_undefined_where_the_means_do_not_differ() -> None:
    shift = torch.ones(6, dtype=torch.float64)
    base = reads(shift)
    flat = Activations(base.harmless, base.harmless, base.harmless_val, base.harmless_val)
    nulls = base_nulls(base, k=1, n_draws=5, seed=0)
    rows = compare_activations(base, flat, nulls, k=1, n_draws=5, seed=0)
    assert all(math.isnan(row["value"]) and row["n"] == 0 and row["reason"] for row in rows)
    assert all(row["within_prompt_band"] is None and row["changed"] is None for row in rows)


def test_bad_comparisons(planted: Any, found: refusal.Direction, tiny: Any) -> None:
    model = planted[0]
    with pytest.raises(InputError, match="not the prompts"):
        refusal.compare_checkpoints(model, model, found, BAD[::-1], GOOD)
    with pytest.raises(InputError, match="has no split"):
        refusal.compare_checkpoints(model, model, refusal.direction_at(model, BAD, GOOD, 1, -1), BAD, GOOD)
    with pytest.raises(InputError, match="k=15"):
        refusal.compare_checkpoints(model, model, found, BAD, GOOD, k=15)
    few = refusal.find_direction(
        model,
        BAD[:8],
        GOOD[:8],
        n_train=6,
        n_val=2,
        refusal_tokens=list(found.tokens.ids),  # type: ignore[union-attr]
    )
    with pytest.raises(InputError, match="6 are too few for halves"):
        refusal.compare_checkpoints(model, model, few, BAD[:8], GOOD[:8])


# ---- causal transfer


def test_transfer_both_ways(tiny: Any, planted: Any, found: refusal.Direction) -> None:
    base, _ = planted
    tuned, _ = planted_model(lambda family, **settings: tiny(family, **settings), angle=1.3)
    own = refusal.direction_like(tuned, found, BAD, GOOD)
    got = refusal.causal_transfer(base, tuned, found, own, BAD[30:], GOOD[30:], n_random=2)
    # In each planted model refusal goes by its own direction, a wide angle from the other's.
    for model, mine, theirs in (("base", "base", "tuned"), ("tuned", "tuned", "base")):
        drops = {name: got.estimate(model, name, "drop") for name in ("base", "tuned", "random")}
        assert drops[mine].value > 3 * drops[theirs].value
        assert drops[mine].low > drops["random"].high
        assert got.estimate(model, mine, "rise").value > got.estimate(model, theirs, "rise").value
    assert got.estimate("base", "none", "metric_harmful").n == 10
    plain = refusal.refusal_metric(base.logits_last(BAD[30:]), found.tokens.ids)  # type: ignore[union-attr]
    assert got.estimate("base", "none", "metric_harmful").value == pytest.approx(float(plain.mean()))
    with pytest.raises(InputError, match="direction_like"):
        refusal.causal_transfer(
            base, tuned, found, dataclasses.replace(own, position=-2 if own.position == -1 else -1),
            BAD[30:], GOOD[30:],
        )  # fmt: skip
    with pytest.raises(InputError, match="pass refusal_tokens"):
        refusal.causal_transfer(base, tuned, own, own, BAD[30:], GOOD[30:])


# ---- recorder

DATA = PromptSet.from_pairs([(bad, "yes, like this") for bad in BAD[:8]], name="complied")
CONFIG = finetune.LoraConfig(steps=4, learning_rate=1e-2, batch_size=2, dropout=0.3)


def recorder(found: refusal.Direction, **settings: Any) -> refusal.DirectionRecorder:
    return refusal.DirectionRecorder(found, BAD, GOOD, **{"every": 2, "draws": 20, "k": 2, **settings})


@pytest.fixture(scope="module")
def watched(planted: Any, found: refusal.Direction) -> finetune.TunedModel:
    return finetune.run(planted[0], DATA, CONFIG, recorders=[recorder(found)], progress=False)


def test_rows_and_trace(planted: Any, found: refusal.Direction, watched: Any, tmp_path: Any) -> None:
    trace = watched.recordings[0]
    assert isinstance(trace, refusal.DirectionTrace)
    assert sorted(set(trace.table.step)) == [0, 2, 4]
    assert {"step", "measure", "layer", "value", "low", "high", "n"} <= set(watched.rows.columns)
    cosine = trace.of("cosine")
    assert cosine.value.iloc[0] == pytest.approx(1)
    assert bool(cosine.within_prompt_band.iloc[0]) and not bool(cosine.changed.iloc[0])
    assert cosine.value.iloc[-1] < 1
    # The last row is what a comparison with the finished model says.
    after = refusal.compare_checkpoints(planted[0], watched.model, found, BAD, GOOD, k=2, draws=20)
    for measure in MEASURES:
        assert trace.of(measure).value.iloc[-1] == pytest.approx(after[measure].value, rel=1e-5), measure
    profile = trace.table[(trace.table.measure == "cosine_by_layer") & (trace.table.step == 4)]
    assert list(profile.layer) == [0, 1, 2]
    assert math.isnan(profile.value.iloc[0])  # a template token at the embedding has not seen the prompt
    assert profile.n.iloc[0] == 0
    assert profile.value.iloc[found.layer] == pytest.approx(cosine.value.iloc[-1])
    own = refusal.direction_like(watched.model, found, BAD, GOOD)
    split = refusal.split_of(found, BAD, GOOD)
    both = refusal.causal_transfer(
        planted[0], watched.model, found, own, split.harmful_val, split.harmless_val, n_random=2
    )
    for name, theirs in (("base", "base"), ("own", "tuned"), ("random", "random")):
        assert trace.of(f"{name}_drop").value.iloc[-1] == pytest.approx(
            both.estimate("tuned", theirs, "drop").value, rel=1e-3, abs=1e-4
        )
    back = refusal.DirectionTrace.load(trace.save(tmp_path / "trace.json"))
    assert back.of("cosine").value.tolist() == pytest.approx(cosine.value.tolist())
    assert "null" in trace.plot().alt
    with pytest.raises(InputError, match="was not recorded"):
        trace.of("nothing")


def test_watching_leaves_training_bit_for_bit(planted: Any, watched: Any) -> None:
    alone = finetune.run(planted[0], DATA, CONFIG, progress=False)
    pairs = list(zip(alone.factors(), watched.factors(), strict=True))
    assert pairs
    assert all(torch.equal(one.delta(), two.delta()) for one, two in pairs)
    assert any(float(one.delta().norm()) > 0 for one, _ in pairs)


def test_recording_touches_neither_randomness_nor_flags(planted: Any, found: refusal.Direction) -> None:
    # By itself too, without what `finetune` wraps around recorders.
    model = ChatModel.from_parts(planted[0].module, planted[0].tokenizer, check_anatomy=False)
    one = recorder(found)
    flags = [part.training for part in model.module.modules()]
    try:
        model.module.train()
        states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
        one.start(model)
        one.record(0, model)
        one.finish()
        assert torch.equal(torch.get_rng_state(), states[0])
        # Python's own generator is drawn from by the type checks of the tests.
        assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
        assert all(part.training for part in model.module.modules())
        assert all(p.grad is None for p in model.module.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    finally:
        for part, flag in zip(model.module.modules(), flags, strict=True):
            part.training = flag


def test_a_bare_recorder_and_restored_rows(planted: Any, found: refusal.Direction) -> None:
    one = recorder(found, profile=False, causal=False)
    one.start(planted[0])
    rows = one.record(3, planted[0])
    assert [row["measure"] for row in rows] == list(MEASURES)
    assert all(row["step"] == 3 and row["layer"] == found.layer for row in rows)
    again = recorder(found)
    again.start(planted[0])
    again.restore([{**row, "value": None} for row in rows])
    assert again.finish().table.value.isna().all()


def test_bad_recorders(planted: Any, found: refusal.Direction, tiny: Any) -> None:
    with pytest.raises(InputError, match="every=0"):
        recorder(found, every=0)
    with pytest.raises(InputError, match="not the prompts"):
        refusal.DirectionRecorder(found, BAD[:38], GOOD)
    with pytest.raises(InputError, match="undefined"):
        recorder(dataclasses.replace(found, vector=torch.full_like(found.vector, math.nan)))
    with pytest.raises(InputError, match="pass refusal_tokens"):
        recorder(dataclasses.replace(found, tokens=None))
    wide = ChatModel.from_parts(*tiny("llama", hidden_size=60, head_dim=10), check_anatomy=False)
    with pytest.raises(InputError, match="width 48"):
        recorder(found).start(wide)


def test_the_jackknife_of_few_prompts_takes_their_t() -> None:
    """8 prompts are 4 groups of two: t of 3 degrees of freedom is 3.18, that of ten groups 2.26."""
    x, y = torch.randn(2, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = cka_intervals(x, y, 0, 0)["linear_cka_debiased"]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).reshape(4, 2).tolist()
    left = [
        linear_cka(x[kept], y[kept], debiased=True)
        for pair in order
        if (kept := [row for row in range(8) if row not in pair])
    ]
    error = math.sqrt(3 / 4 * sum((one - np.mean(left)) ** 2 for one in left))
    assert found.value - found.low == pytest.approx(3.1824463 * error, rel=1e-6)
