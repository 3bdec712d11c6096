"""Selections against full stable sorts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamperlens import neurons
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.parts import parts_of, shapes_of
from tamperlens.models import ChatModel
from tamperlens.neurons import WeightScores
from tamperlens.neurons.cutoffs import cutoffs, cutoffs_over_all, quota, take, top_of_rows


def literal_top(values: np.ndarray, k: int) -> np.ndarray:
    """Sort descending, stable, so that ties keep their index order; drop what is not positive."""
    flat = values.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:k]
    flags = np.zeros(flat.size, dtype=bool)
    flags[order] = True
    return (flags & (flat > 0)).reshape(values.shape)


def scores_of(model: ChatModel, seed: int, levels: int | None = None) -> WeightScores:
    """Random scores; with `levels` few different values, so that almost all are tied, a third of them 0."""
    generator = torch.Generator().manual_seed(seed)
    parts = parts_of(model)
    tensors = {}
    for name, shape in shapes_of(model, parts).items():
        drawn = torch.rand(shape, generator=generator)
        tensors[name] = drawn if levels is None else ((drawn * 1.5 - 0.5).clamp_min(0) * levels).floor()
    return WeightScores(
        tensors, parts, f"test {seed}", "none", "test", {}, {f"set {seed}": str(seed)}, 1,
        model.fingerprint, model.base_fingerprint, model.name,
    )  # fmt: skip


@pytest.fixture(scope="module")
def chat(tiny: Any) -> Any:
    def make(family: str) -> ChatModel:
        module, tokenizer = tiny(family)
        return ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)

    return make


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 2.0, 3.5, 1e-40, -1.0]), min_size=1, max_size=60),
    st.integers(0, 60),
)
def test_cutoff_is_the_stable_sort(values: list[float], k: int) -> None:
    array = np.array(values, dtype=np.float32)
    k = min(k, array.size)
    flags, _ = take(array, cutoffs(array, [k])[0])
    assert flags.tolist() == literal_top(array, k).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_rows_are_sorted_one_by_one(rows: int, columns: int, fraction: float, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.float32)
    literal = np.stack([literal_top(row, quota(fraction, columns)) for row in values])
    assert top_of_rows(values, fraction).tolist() == literal.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_streamed_histogram_is_the_sort_over_everything(sizes: list[int], p: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 6, size).astype(np.float32) * np.float32(0.1) for size in sizes]
    [cutoff], total = cutoffs_over_all(lambda: iter(arrays), [p])
    assert total == sum(sizes)
    found, left = [], cutoff
    for array in arrays:
        flags, used = take(array, left)
        left = replace(left, ties=left.ties - used)
        found.append(flags)
    literal = literal_top(np.concatenate(arrays), quota(p, total))
    assert np.concatenate(found).tolist() == literal.tolist()


def test_quota_takes_the_decimal_that_was_written() -> None:
    assert quota(0.29, 100) == 29  # 0.29 * 100 is 28.999999999999996
    assert quota(0.01, 9216) == 92
    assert quota(0.999, 1) == 0
    for p in (0.01, 0.03, 0.05, 0.1, 0.2, 0.5):
        for n in (1, 9, 96, 9216, 4096 * 11008):
            assert quota(p, n) == math.floor(p * n)


def test_twenty_percent_of_millions_equals_a_full_sort() -> None:
    """4.2 M scores in three matrices, spread over 12 orders of magnitude, one value in ten repeated."""
    generator = np.random.default_rng(0)
    arrays = []
    for size in (2_000_000, 1_500_000, 700_001):
        drawn = np.exp(generator.normal(-8, 4, size)).astype(np.float32)
        drawn[::10] = np.float32(3e-4)
        arrays.append(drawn)
    [cutoff], total = cutoffs_over_all(lambda: iter(arrays), [0.2])
    everything = np.concatenate(arrays)
    k = quota(0.2, total)
    assert cutoff.threshold == np.sort(everything)[::-1][k - 1]
    found, left = [], cutoff
    for array in arrays:
        flags, used = take(array, left)
        left = replace(left, ties=left.ties - used)
        found.append(flags)
    flags = np.concatenate(found)
    assert flags.sum() == k
    order = np.argsort(-everything, kind="stable")[:k]
    assert np.array_equal(np.sort(order), np.flatnonzero(flags))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("levels", [None, 3])
def test_top_by_group(chat: Any, family: str, levels: int | None) -> None:
    model = chat(family)
    scores = scores_of(model, 0, levels)
    for fraction in (0.01, 0.2, 0.9):
        mask = scores.top(fraction)
        for part in scores.parts:
            values = scores.part(part).numpy()
            literal = literal_top(values, quota(fraction, values.size))
            assert mask.part(part).tolist() == literal.tolist()
    rows = scores.top(0.1, group="row")
    for part in scores.parts:
        values = scores.part(part).numpy()
        literal = np.stack([literal_top(row, quota(0.1, row.size)) for row in values])
        assert rows.part(part).tolist() == literal.tolist()
    everything = np.concatenate([scores.part(part).numpy().reshape(-1) for part in scores.parts])
    chosen = scores.top(0.1, group="global")
    found = np.concatenate([chosen.part(part).numpy().reshape(-1) for part in scores.parts])
    assert found.tolist() == literal_top(everything, quota(0.1, everything.size)).tolist()


def test_storage_does_not_decide_ties(chat: Any) -> None:
    """A transposed weight is ranked in logical order: the same map stored either way gives the same set."""
    model = chat("gpt2")
    scores = scores_of(model, 1, levels=2)
    part = next(part for part in scores.parts if part.projection == "up")
    assert part.transposed
    flags = scores.top(0.05).part(part)
    literal = literal_top(scores.part(part).numpy(), quota(0.05, part.numel))
    in_storage_order = literal_top(scores.part(part).T.contiguous().numpy(), quota(0.05, part.numel)).T
    assert flags.tolist() == literal.tolist()
    assert literal.tolist() != in_storage_order.tolist()


@pytest.mark.parametrize("group", ["matrix", "row", "global"])
@pytest.mark.parametrize("levels", [None, 5])
def test_set_difference_is_top_minus_top(chat: Any, group: Any, levels: int | None) -> None:
    model = chat("phi3")
    safety, utility = scores_of(model, 1, levels), scores_of(model, 2, levels)
    grid = [(p, q) for p in (0.05, 0.3) for q in (0.1, 0.5)]
    for p, q, mask in neurons.sweep(safety, utility, grid, group):
        literal = safety.top(q, group) - utility.top(p, group)
        assert mask == literal
        assert neurons.set_difference(safety, utility, p=p, q=q, group=group) == literal
        assert mask.prompts == {"set 1": "1", "set 2": "2"}
    small = neurons.set_difference(safety, utility, p=0.3, q=0.1, group=group)
    assert "top 0.1 of [test 1" in small.definition
    assert "without top 0.3 of [test 2" in small.definition


def test_bad_fractions_and_groups(chat: Any, tiny: Any) -> None:
    model = chat("llama")
    one, two = scores_of(model, 1), scores_of(model, 2)
    for bad in (0, 1, -0.1, 7, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            one.top(bad)
        with pytest.raises(InputError, match=r"p( is|=nan must be)"):
            neurons.set_difference(one, two, p=bad, q=0.1)
        with pytest.raises(InputError, match=r"q( is|=nan must be)"):
            neurons.set_difference(one, two, p=0.1, q=bad)
    with pytest.raises(InputError, match=r"for 7 % write 0.07"):
        neurons.set_difference(one, two, p=7, q=0.1)
    with pytest.raises(InputError, match="group='layer' must be one of 'matrix', 'row', 'global'"):
        one.top(0.1, group="layer")
    with pytest.raises(InputError, match=r"chooses nothing: a row has at most 80 weights"):
        one.top(0.01, group="row")
    with pytest.raises(InputError, match="no points"):
        neurons.sweep(one, two, [])
    module, tokenizer = tiny("llama", seed=3)
    other = ChatModel.from_parts(module, tokenizer, name="other", check_anatomy=False)
    with pytest.raises(InputError, match=r"different models .*llama.*other"):
        neurons.set_difference(one, scores_of(other, 1), p=0.1, q=0.1)
    fewer = replace(two, parts=two.parts[:3])
    with pytest.raises(InputError, match="different projections"):
        neurons.set_difference(one, fewer, p=0.1, q=0.1)


@pytest.mark.parametrize("group", ["matrix", "row", "global"])
def test_nan_scores_are_refused_by_name(chat: Any, group: Any) -> None:
    scores = scores_of(chat("llama"), 1)
    scores.tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    with pytest.raises(NumericsError, match=r"scores of 1\.up"):
        scores.top(0.1, group=group)
