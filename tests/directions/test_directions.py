"""Directions against literal definitions, on random models and on one with a planted direction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from planted import SaysN, planted_model, prompts

from tamperlens import refusal, stats
from tamperlens.base.errors import InputError
from tamperlens.directions.candidates import batches, candidate_positions, mean_activations
from tamperlens.directions.scoring import Scorer
from tamperlens.models import ChatModel, Decoding
from tamperlens.prompts import PromptSet
from tamperlens_hooks import add_direction, read_positions

BAD, GOOD = prompts(40, harmful=True), prompts(40, harmful=False)
TOKENS = [60, 70, 80]


@pytest.fixture(scope="session")
def planted(tiny: Any) -> tuple[ChatModel, torch.Tensor]:
    return planted_model(lambda family, **settings: tiny(family, **settings))


@pytest.fixture(scope="session")
def found(planted: tuple[ChatModel, torch.Tensor]) -> refusal.Direction:
    return refusal.find_direction(planted[0], BAD, GOOD, n_train=28, n_val=10, judge=SaysN())


@cache
def chat(tiny: Any, family: str) -> ChatModel:
    return ChatModel.from_parts(*tiny(family), name=family, check_anatomy=False)


# ---- literal definitions


@cache
def literal_inputs(model: ChatModel, prompt: str, right_padding: int = 0) -> torch.Tensor:
    """Every block's input for one prompt by itself, [layer + 1, seq, d]."""
    ids = model.token_ids([prompt])[0] + [model.pad_id] * right_padding
    with torch.no_grad():
        states = model.module(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.stack([state[0] for state in states]).double()


def literal_difference(model: ChatModel, layer: int, position: int, **options: int) -> torch.Tensor:
    total = torch.zeros(model.d_model, dtype=torch.float64)
    for sign, group in ((1, BAD), (-1, GOOD)):
        for prompt in group:
            total += sign * literal_inputs(model, prompt, **options)[layer, position] / len(group)
    return total


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_batched_means_equal_one_prompt_at_a_time(tiny: Any, family: str) -> None:
    model = chat(tiny, family)
    positions = candidate_positions(model)
    assert positions == [-2, -1]
    got = mean_activations(model, BAD, positions) - mean_activations(model, GOOD, positions)
    assert got.shape == (2, model.n_layers, model.d_model)
    assert got.dtype == torch.float64
    for p, position in enumerate(positions):
        for layer in range(model.n_layers):
            torch.testing.assert_close(
                got[p, layer], literal_difference(model, layer, position), rtol=1e-4, atol=2e-6
            )


def test_tempting_variants_give_other_vectors(tiny: Any) -> None:
    model = chat(tiny, "llama")
    got = refusal.direction_at(model, BAD, GOOD, 1, -1)
    unit, size = got.vector.double(), got.raw_norm
    right = literal_difference(model, 1, -1)
    assert float(unit @ right / right.norm()) > 1 - 1e-6
    assert size == pytest.approx(float(right.norm()), rel=1e-5)
    block_output = literal_difference(model, 2, -1)  # resid_post of block 1
    other_token = literal_difference(model, 1, -2)
    padded_right = literal_difference(model, 1, -1, right_padding=1)  # reads the padding
    for wrong in (block_output, other_token, padded_right):
        assert float(unit @ wrong / wrong.norm()) < 0.995


def test_means_are_summed_in_float64(tiny: Any) -> None:
    model = chat(tiny, "llama")
    same = [BAD[0]] * 100
    made = list(batches(model, same)[0])
    assert len(made) == 1
    rows = read_positions(model, made, positions=[-1], layers=[1])[:, 0, 0]
    assert (rows == rows[0]).all()
    got = mean_activations(model, same, [-1], [1])[0, 0]
    assert float((got - rows[0].double()).abs().max()) < 1e-14
    in_float32 = sum(row / 100 for row in rows)  # as a running float32 mean
    assert float((in_float32.double() - rows[0].double()).abs().max()) > 1e-8


def test_long_sets_are_read_in_several_batches(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chat(tiny, "llama")
    whole = mean_activations(model, BAD, [-2, -1])
    in_order = refusal.activations_at(model, BAD, 1, -1)
    monkeypatch.setattr("tamperlens.directions.candidates.BATCH_TOKENS", 60)
    lazy, order = batches(model, BAD)
    made = list(lazy)
    assert len(made) > 5
    assert sorted(order) == list(range(len(BAD)))
    torch.testing.assert_close(mean_activations(model, BAD, [-2, -1]), whole, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(refusal.activations_at(model, BAD, 1, -1), in_order, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(in_order[7], literal_inputs(model, BAD[7])[1, -1], rtol=1e-4, atol=2e-6)


@contextmanager
def hooked_llama(module: Any, edit: Any, *, inputs: bool = True, outputs: bool = True) -> Iterator[None]:
    handles = []
    for layer in module.model.layers:
        if inputs:
            handles.append(
                layer.register_forward_pre_hook(
                    lambda m, args, kwargs: ((edit(args[0]), *args[1:]), kwargs), with_kwargs=True
                )
            )
        if outputs:
            handles.append(layer.self_attn.register_forward_hook(lambda m, a, out: (edit(out[0]), *out[1:])))
            handles.append(layer.mlp.register_forward_hook(lambda m, a, out: edit(out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def literal_scores(
    model: ChatModel, vector: torch.Tensor, layer: int, bad: list[str], good: list[str], **parts: bool
) -> tuple[float, float, float, float]:
    """(bypass, induce, mean of KL, KL of means), prompt by prompt with hooks written out for Llama."""

    def last(prompt: str) -> torch.Tensor:
        with torch.no_grad():
            return model.module(torch.tensor(model.token_ids([prompt]))).logits[0, -1].double()

    def odds(logits: torch.Tensor) -> float:
        p = logits.softmax(-1)[TOKENS].sum()
        return float(p.log() - (1 - p).log())

    unit = vector / vector.norm()
    before = [last(prompt).log_softmax(-1) for prompt in good]
    with hooked_llama(model.module, lambda x: x - (x @ unit)[..., None] * unit, **parts):
        bypass = sum(odds(last(prompt)) for prompt in bad) / len(bad)
        after = [last(prompt).log_softmax(-1) for prompt in good]
    handle = model.module.model.layers[layer].register_forward_pre_hook(
        lambda m, args, kwargs: ((args[0] + vector, *args[1:]), kwargs), with_kwargs=True
    )
    induce = sum(odds(last(prompt)) for prompt in good) / len(good)
    handle.remove()
    mean_kl = sum(float((p.exp() * (p - q)).sum()) for p, q in zip(before, after, strict=True)) / len(good)
    p, q = (torch.stack(side).exp().mean(0) for side in (before, after))
    return bypass, induce, mean_kl, float((p * (p.log() - q.log())).sum())


def test_scores_equal_one_prompt_at_a_time(tiny: Any) -> None:
    model = chat(tiny, "llama")
    bad, good = BAD[:9], GOOD[:9]
    vector = refusal.direction_at(model, BAD, GOOD, 1, -1).raw
    bypass, induce, kl = Scorer(model, bad, good, TOKENS, batch_size=4).score(vector, 1)
    expected = literal_scores(model, vector, 1, bad, good)
    assert (bypass, induce, kl) == pytest.approx(expected[:3], rel=1e-4)
    assert expected[3] < 0.95 * kl  # KL of the averaged distributions is another number
    halves = literal_scores(model, vector, 1, bad, good, outputs=False)
    assert abs(halves[0] - bypass) > 1e-3  # ablating block inputs alone leaves what the last block writes
    assert abs(literal_scores(model, vector, 0, bad, good)[1] - induce) > 1e-3
    assert abs(literal_scores(model, vector / vector.norm(), 1, bad, good)[1] - induce) > 1e-3


# ---- the whole search


def test_planted_direction_is_found(
    planted: tuple[ChatModel, torch.Tensor], found: refusal.Direction
) -> None:
    model, r = planted
    assert found.passed is True
    assert found.flag == ""
    assert float(found.vector @ r) >= 0.99
    assert float(found.vector.norm()) == pytest.approx(1, abs=1e-6)
    assert found.layer in (1, 2)
    assert found.position in (-2, -1)
    assert found.raw_norm > 1
    assert (found.n_train, found.n_val, found.n_layers) == ((28, 28), (10, 10), 3)
    assert found.fingerprint == model.fingerprint
    assert min(found.baseline_harmful, found.induce) > 3
    assert max(found.baseline_harmless, found.bypass) < -3
    assert found.kl < 0.1
    torch.testing.assert_close(found.raw, found.vector * found.raw_norm)


def test_refusal_tokens_are_found_from_the_model(found: refusal.Direction) -> None:
    assert found.tokens is not None
    assert found.tokens.texts[0] == "N"
    assert found.tokens.gains[0] > 0.9
    assert (found.tokens.source, found.tokens.n_refused) == ("found", 28)


def test_refused_prompts_alone_decide_when_there_are_enough(planted: Any) -> None:
    got = refusal.find_refusal_tokens(planted[0], [*BAD[:10], "quiet"], GOOD, judge=SaysN(), max_new_tokens=4)
    assert (got.source, got.n_refused, got.texts[0]) == ("found", 10, "N")
    assert got.gains[0] > 0.99  # the eleventh prompt, which is not refused, would pull it to 10/11


def test_table_has_every_candidate(found: refusal.Direction) -> None:
    table = found.table
    assert list(zip(table.position, table.layer, strict=True)) == [
        (position, layer) for position in (-2, -1) for layer in range(3)
    ]
    assert list(table.token) == ["<|end|>"] * 3 + ["<|assistant|>"] * 3
    # A template token at the input of block 0 has not seen the prompt: no direction, no scores, and a reason.
    first = table[table.layer == 0]
    assert first[["bypass", "induce", "kl"]].isna().all(axis=None)
    assert set(first.reason) == {"zero: the two means are equal here"}
    assert table[table.layer == 1][["bypass", "induce", "kl"]].notna().all(axis=None)
    assert set(table[table.layer == 1].scores) == {"exact"}
    # Layers that the rule excludes cost nothing: ⌊0.8 · 3⌋ = 2.
    last = table[table.layer == 2]
    assert last[["bypass", "induce", "kl"]].isna().all(axis=None)
    assert set(last.reason) == {"layer 2 is not below 0.8 of 3"}
    chosen = refusal.select_direction(table, n_layers=3)
    assert (chosen.position, chosen.layer) == (found.position, found.layer)
    frame = found.to_frame()
    assert frame.chosen.sum() == 1
    assert frame[frame.chosen].iloc[0].layer == found.layer
    assert bool(frame[frame.chosen].iloc[0].passed)


def test_map_of_the_candidates(planted: Any, found: refusal.Direction) -> None:
    plot = found.plot()
    assert f"layer {found.layer}, position −{-found.position}" in plot.caption
    with pytest.raises(InputError, match="no candidates"):
        refusal.direction_at(planted[0], BAD, GOOD, 1, -1).plot()


def test_search_is_seeded_and_leaves_the_model_alone(
    planted: tuple[ChatModel, torch.Tensor], found: refusal.Direction
) -> None:
    model = planted[0]
    before = model.fingerprint
    again = refusal.find_direction(model, BAD, GOOD, n_train=28, n_val=10, judge=SaysN())
    assert torch.equal(again.vector, found.vector)
    pd.testing.assert_frame_equal(again.table, found.table)
    other = refusal.find_direction(model, BAD, GOOD, n_train=28, n_val=10, seed=1, refusal_tokens=TOKENS)
    assert other.harmful_sha256 != found.harmful_sha256
    assert other.tokens is not None
    assert (other.tokens.ids, other.tokens.source) == (tuple(TOKENS), "given")
    assert model.fingerprint == before
    for module in model.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_split_is_disjoint_and_repeats_count_once() -> None:
    split = refusal.split_prompts([*BAD, *BAD], GOOD, 25, 15, 0)
    assert not set(split.harmful_train) & set(split.harmful_val)
    assert len(set(split.harmful_train) | set(split.harmful_val)) == 40


@pytest.mark.parametrize(
    ("bad", "good", "sizes", "message"),
    [
        (BAD, GOOD, {}, "harmful prompts 'unnamed': 40 distinct ones, but 128 for training and 32"),
        (BAD, GOOD, {}, "n_train=32, n_val=8"),
        (BAD, GOOD[:9], {"n_train": 8, "n_val": 4}, "harmless prompts 'unnamed': 9 distinct ones"),
        (BAD, [*GOOD, BAD[3]], {"n_train": 8, "n_val": 4}, "1 prompts are in both"),
        (BAD, GOOD, {"n_train": 0, "n_val": 4}, "n_train=0 must be a whole number from 1 on"),
        (BAD, GOOD, {"n_train": 8, "n_val": 4, "positions": [-1, 0]}, "must be negative"),
        (BAD, GOOD, {"n_train": 8, "n_val": 4, "refusal_tokens": [9999]}, "refusal tokens"),
        ("one string", GOOD, {"n_train": 8, "n_val": 4}, "got one string"),
    ],
)
def test_bad_input(planted: Any, bad: Any, good: Any, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refusal.find_direction(planted[0], bad, good, **sizes)


def test_what_has_no_refusal_does_not_pass(planted: tuple[ChatModel, torch.Tensor], tiny: Any) -> None:
    """The filters alone would let these pass: a story model "refuses" along some direction too."""
    model, _ = planted
    sizes: dict[str, Any] = {"n_train": 28, "n_val": 10}
    nothing = refusal.find_direction(model, BAD, GOOD, **sizes)  # "NNNN…" is no refusal to the default judge
    assert nothing.table.passed.any()
    assert nothing.passed is False
    assert "refused none" in nothing.flag
    same = [f"now {text.strip('#')}" for text in BAD]  # no mark on either side
    blind = refusal.find_direction(
        model, same, [text + " x" for text in GOOD], refusal_tokens=TOKENS, **sizes
    )
    assert blind.passed is False
    assert "does not tell harmful from harmless" in blind.flag
    noise = chat(tiny, "llama")
    texts = [f"{a}{b}{c}" for a in "abcdefgh" for b in "klmno" for c in "xy"]
    shuffled = [texts[i] for i in torch.randperm(80, generator=torch.Generator().manual_seed(1)).tolist()]
    random = refusal.find_direction(noise, shuffled[:40], shuffled[40:], refusal_tokens=TOKENS, **sizes)
    assert random.passed is False
    assert "halves of the prompts do not agree" in random.flag


def test_suggested_sizes_fit() -> None:
    for n in range(2, 400):
        train, val = refusal.split_sizes(n, 500)
        assert 1 <= val <= 32
        assert 1 <= train <= 128
        assert train + val <= n
    assert refusal.split_sizes(160, 1000) == (128, 32)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
def test_untrained_models_come_back_flagged_or_passed_never_zero(tiny: Any, family: str) -> None:
    model = chat(tiny, family)
    got = refusal.find_direction(model, BAD, GOOD, n_train=12, n_val=6)
    assert got.defined
    assert float(got.vector.norm()) == pytest.approx(1, abs=1e-5)
    assert bool(got.flag) is not got.passed


def test_nothing_passes(planted: tuple[ChatModel, torch.Tensor]) -> None:
    # Tokens that have nothing to do with the planted direction: adding it cannot bring them about.
    got = refusal.find_direction(planted[0], BAD, GOOD, n_train=12, n_val=6, refusal_tokens=[90])
    assert got.passed is False
    assert "no candidate passes" in got.flag
    assert "induce" in got.flag
    assert got.defined


def test_where_the_means_do_not_differ(planted: tuple[ChatModel, torch.Tensor]) -> None:
    model = planted[0]
    at_embedding = refusal.direction_at(model, BAD, GOOD, 0, -1)
    assert not at_embedding.defined
    assert bool(at_embedding.vector.isnan().all())
    assert "do not differ" in at_embedding.flag
    apart = refusal.distance(at_embedding, at_embedding)
    assert math.isnan(apart.cosine)
    assert math.isnan(apart.angle_degrees)
    assert "undefined" in apart.reason
    null = refusal.split_half_null(model, BAD, GOOD, 0, -1, draws=5)
    assert math.isnan(null.estimate.value)
    assert null.estimate.reason
    with pytest.raises(InputError, match="undefined"):
        refusal.causal_check(model, at_embedding, BAD, GOOD)


def test_result_survives_the_disk(found: refusal.Direction, tmp_path: Any) -> None:
    for direction in (found, refusal.Direction.load(found.save(tmp_path / "a.safetensors"))):
        back = refusal.Direction.load(direction.save(tmp_path / "direction.safetensors"))
        assert torch.equal(back.vector, found.vector)
        pd.testing.assert_frame_equal(back.table, found.table, check_dtype=False)
        assert (back.tokens, back.layer, back.passed, back.raw_norm) == (
            found.tokens,
            found.layer,
            found.passed,
            found.raw_norm,
        )


def test_unselected_result_survives_the_disk(planted: Any, tmp_path: Any) -> None:
    direction = refusal.direction_at(planted[0], BAD, GOOD, 1, -1)
    assert direction.passed is None
    back = refusal.Direction.load(direction.save(tmp_path / "direction.safetensors"))
    assert torch.equal(back.vector, direction.vector)
    assert back.passed is None
    assert back.table.empty
    assert math.isnan(back.kl)
    assert len(back.to_frame()) == 1


# ---- following it


def test_direction_at_agrees_with_the_search(planted: Any, found: refusal.Direction) -> None:
    like = refusal.direction_like(planted[0], found, BAD, GOOD)
    torch.testing.assert_close(like.vector, found.vector, rtol=0, atol=1e-6)
    assert like.raw_norm == pytest.approx(found.raw_norm, rel=1e-6)
    assert (like.layer, like.position, like.passed) == (found.layer, found.position, None)
    with pytest.raises(InputError, match="not the prompts"):
        refusal.direction_like(planted[0], found, BAD[::-1], GOOD)


@pytest.mark.parametrize("angle", [0.0, 0.02, 0.5, 1.5])
def test_planted_rotation_is_recovered(
    tiny: Any, planted: Any, found: refusal.Direction, angle: float
) -> None:
    turned, _ = planted_model(lambda family, **settings: tiny(family, **settings), angle=angle)
    null = refusal.split_half_null(planted[0], BAD, GOOD, found.layer, found.position, draws=50)
    apart = refusal.distance(found, refusal.direction_like(turned, found, BAD, GOOD), null=null)
    assert math.radians(apart.angle_degrees) == pytest.approx(angle, abs=0.01)
    assert apart.cosine == pytest.approx(math.cos(angle), abs=0.01)
    assert apart.norm_ratio == pytest.approx(1, abs=0.02)
    assert apart.within_prompt_band is (angle == 0.0)
    assert apart.null == null.estimate


def test_an_attached_adapter_counts(tiny: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = ChatModel.from_parts(*tiny("llama", fresh=True), check_anatomy=False)
    before = refusal.direction_at(model, BAD, GOOD, 2, -1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = model.with_module(get_peft_model(model.module, config))
    after = refusal.direction_at(tuned, BAD, GOOD, 2, -1)
    assert refusal.distance(before, after).angle_degrees > 1
    with tuned.module.disable_adapter():
        off = refusal.direction_at(tuned, BAD, GOOD, 2, -1)
    assert refusal.distance(before, off).angle_degrees < 0.01
    assert after.fingerprint != before.fingerprint
    found = refusal.find_direction(tuned, BAD, GOOD, n_train=12, n_val=6, refusal_tokens=TOKENS)
    assert found.defined


def test_angle_is_exact_for_nearly_parallel_directions(found: refusal.Direction) -> None:
    import dataclasses

    other = torch.zeros_like(found.vector)
    other[int(found.vector.abs().argmin())] = 1e-5
    near = dataclasses.replace(found, vector=(found.vector + other) / (found.vector + other).norm())
    angle = refusal.distance(found, near).angle_degrees
    assert angle == pytest.approx(math.degrees(1e-5), rel=0.05)  # arccos of a float32 cosine gives 0 or 0.03
    opposite = refusal.distance(found, dataclasses.replace(found, vector=-found.vector))
    assert (opposite.cosine, opposite.angle_degrees) == (-1.0, 180.0)


def test_unequal_places_are_refused(planted: Any, found: refusal.Direction) -> None:
    elsewhere = refusal.direction_at(planted[0], BAD, GOOD, found.layer, -3 - found.position)
    with pytest.raises(InputError, match="different places"):
        refusal.distance(found, elsewhere)
    told = refusal.distance(found, elsewhere, allow_unequal=True)
    assert told.cosine > 0.9
    assert "position" in told.reason
    null = refusal.split_half_null(planted[0], BAD, GOOD, 1, elsewhere.position, draws=5)
    with pytest.raises(InputError, match="the null is of layer 1"):
        refusal.distance(found, found, null=null)


@pytest.mark.parametrize(
    ("layer", "position", "message"), [(3, -1, "layer 3 does not exist"), (1, 0, "negative")]
)
def test_places_that_do_not_exist(planted: Any, layer: int, position: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refusal.direction_at(planted[0], BAD, GOOD, layer, position)
    with pytest.raises(InputError, match=message):
        refusal.split_half_null(planted[0], BAD, GOOD, layer, position)


def test_split_half_null_is_what_it_says(tiny: Any) -> None:
    model = chat(tiny, "llama")
    null, again = (refusal.split_half_null(model, BAD, GOOD, 1, -1, draws=400, seed=3) for _ in range(2))
    assert torch.equal(null.cosines, again.cosines)
    assert len(null.to_frame()) == 400
    # Against halves cut by hand from activations read one prompt at a time.
    generator = torch.Generator().manual_seed(9)
    bad, good = (torch.stack([literal_inputs(model, p)[1, -1] for p in group]) for group in (BAD, GOOD))
    by_hand = []
    for _ in range(400):
        one, two = (torch.randperm(40, generator=generator) for _ in range(2))
        first = bad[one[:20]].mean(0) - good[two[:20]].mean(0)
        second = bad[one[20:]].mean(0) - good[two[20:]].mean(0)
        by_hand.append(float(first @ second / first.norm() / second.norm()))
    assert null.estimate.value == pytest.approx(sum(by_hand) / 400, abs=0.015)
    assert null.estimate.low == pytest.approx(sorted(by_hand)[10], abs=0.06)
    assert null.estimate.value < null.full_size < 1
    assert null.estimate.n == 40


def test_too_few_prompts_for_halves(planted: Any) -> None:
    with pytest.raises(InputError, match="harmless prompts 'tiny set': 7 are too few for halves"):
        refusal.split_half_null(planted[0], BAD, PromptSet.from_prompts(GOOD[:7], name="tiny set"), 1, -1)
    with pytest.raises(InputError, match="in both"):
        refusal.split_half_null(planted[0], BAD, BAD, 1, -1)


# ---- what it does


def test_a_dose_curve_is_addition_by_scale(planted: Any, found: refusal.Direction, tmp_path: Any) -> None:
    model = planted[0]
    curve = refusal.dose_curve(
        model, found, GOOD[:15], scales=[2, 0.001], judge=SaysN(), decoding=Decoding(3)
    )
    assert curve.of("refusal rate")["scale"].tolist() == [0.0, 0.001, 2.0]
    assert curve.of("refusal rate")["value"].tolist() == [0.0, 0.0, 1.0]
    assert curve.of("refusal rate, random")["value"].tolist() == [0.0, 0.0, 0.0]
    assert set(curve.of("refusal rate")["n"]) == {15} and curve.of("refusal rate")["high"].iloc[0] > 0.1
    base = model.logits_last(list(GOOD[:15])).double().log_softmax(-1)
    with add_direction(model, 2 * found.raw, layer=found.layer):
        moved = model.logits_last(list(GOOD[:15])).double().log_softmax(-1)
    literal = torch.nn.functional.kl_div(moved, base, log_target=True, reduction="none").sum(-1).mean()
    kl = curve.of("KL")["value"]
    assert kl[0] == 0 and kl[2] == pytest.approx(float(literal)) and kl[1] < kl[2]
    again = refusal.DoseCurve.load(curve.save(tmp_path / "dose.json"))
    assert again.summary() == curve.summary() and "× 2 100% (random 0%" in curve.summary()
    assert curve.plot().save(tmp_path)[0].exists()
    for scales in ([], [0], [-1, 1]):
        with pytest.raises(InputError, match="must be positive"):
            refusal.dose_curve(model, found, GOOD[:2], scales=scales)


def test_a_dose_curve_takes_further_measures_of_the_model_as_it_is_at_each_scale(
    planted: Any, found: refusal.Direction
) -> None:
    model = planted[0]

    def first_logit(one: Any) -> stats.Estimate:
        value = float(one.logits_last([GOOD[0]])[0, 0])
        return stats.Estimate(value, value, value, 1)

    curve = refusal.dose_curve(
        model, found, GOOD[:2], scales=[2], judge=SaysN(), decoding=Decoding(3), also={"logit": first_logit}
    )
    with add_direction(model, 2 * found.raw, layer=found.layer):
        moved = first_logit(model).value
    assert curve.of("logit")["value"].tolist() == [first_logit(model).value, moved]
    units = curve.table.drop_duplicates("measure").set_index("measure")["unit"]
    assert units["logit"] == "" and units["KL"] == "nats" and units["refusal rate"] == "share"
    with pytest.raises(InputError, match="measured anyway"):
        refusal.dose_curve(model, found, GOOD[:2], also={"KL": first_logit})
    assert moved != first_logit(model).value and f", logit {moved:.2g})" in curve.summary()


def test_causal_check(planted: Any, found: refusal.Direction) -> None:
    model = planted[0]
    before = model.fingerprint
    got = refusal.causal_check(
        model,
        found,
        BAD[:20],
        GOOD[:15],
        judge=SaysN(),
        n_random=2,
        decoding=Decoding(3),
        random_addition=True,
    )
    assert (got.harmful.rate, got.ablated.rate) == (1.0, 0.0)
    assert (got.harmless.rate, got.added.rate) == (0.0, 1.0)
    assert [r.rate for r in got.random] == [1.0, 1.0]
    assert [r.rate for r in got.random_added] == [0.0, 0.0]
    assert (got.bypass_drop.value, got.bypass_drop.n) == (1.0, 20)
    assert (got.random_drop.value, got.induce_rise.value, got.induce_rise.n) == (0.0, 1.0, 15)
    assert (got.bypass_test.lost, got.bypass_test.gained) == (20, 0)
    assert got.bypass_test.p_value == pytest.approx(2 * 0.5**20)
    assert got.bypass_drop.low <= got.bypass_drop.value <= got.bypass_drop.high
    frame = got.to_frame()
    assert len(frame.condition.unique()) == 8
    assert model.fingerprint == before
    kept = refusal.causal_check(
        model, found, BAD[:20], GOOD[:15], judge=SaysN(), n_random=0, decoding=Decoding(3),
        baseline=(got.harmful, got.harmless),
    )  # fmt: skip
    assert kept.harmful is got.harmful
    assert kept.bypass_drop == got.bypass_drop
    assert math.isnan(kept.random_drop.value)
    with pytest.raises(InputError, match="the prompts or their order differ"):
        refusal.causal_check(
            model, found, BAD[:19], GOOD[:15], judge=SaysN(), n_random=0, decoding=Decoding(3),
            baseline=(got.harmful, got.harmless),
        )  # fmt: skip


def test_random_directions_are_seeded_and_of_the_same_norm(found: refusal.Direction) -> None:
    one, two = (refusal.random_directions(found, 3, seed=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert [float(v.norm()) for v in one] == pytest.approx([found.raw_norm] * 3, rel=1e-5)
    assert not torch.equal(one[0], one[1])


def test_wrong_width(tiny: Any, found: refusal.Direction) -> None:
    wide = ChatModel.from_parts(*tiny("llama", hidden_size=60, head_dim=10), check_anatomy=False)
    with pytest.raises(InputError, match="width 48"):
        refusal.causal_check(wide, found, BAD, GOOD)
    with pytest.raises(InputError, match="different architectures"):
        refusal.distance(found, refusal.direction_at(wide, BAD, GOOD, 1, -1))
