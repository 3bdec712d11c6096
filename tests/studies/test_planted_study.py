"""The sanity of the benchmark: who reads the answer scores 1, who knows nothing scores chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from tamperlens import neurons, planted
from tamperlens.models import Decoding
from tamperlens.studies.planted import directions, methods
from tamperlens.studies.planted.causal import top_units


@pytest.fixture(scope="module")
def neuron_organism() -> Any:
    return planted.make("neurons", 0)


def test_a_cheat_scores_one_and_a_random_method_chance(neuron_organism: Any) -> None:
    model, truth = neuron_organism
    answer = methods.flat_mask(truth.mask)
    cheat = planted.localise(methods.flat(neurons.magnitude(model, reference=truth.base)), answer)
    perfect = (cheat.precision, cheat.recall, cheat.average_precision, cheat.auroc)
    assert perfect == pytest.approx((1, 1, 1, 1), abs=1e-9)
    blind = planted.localise(methods.flat(neurons.random(model, seed=0)), answer)
    # 18,432 planted weights: the standard error of AUROC is .002, of precision .001.
    assert abs(blind.auroc - 0.5) < 0.01
    assert abs(blind.precision - blind.chance) < 0.005
    by_neuron = neurons.by_neuron(model, neurons.magnitude(model, reference=truth.base)).scores.flatten()
    units = methods.unit_truth(truth, "neurons")
    assert planted.localise(by_neuron.numpy(), units).auroc == 1
    assert units.reshape(5, -1).nonzero()[0].tolist() == [layer for layer, _ in truth.neurons]
    assert not methods.unit_truth(truth, "heads").any()


def test_flat_order_and_its_inverse(neuron_organism: Any) -> None:
    model, truth = neuron_organism
    flags = methods.flat_mask(truth.mask)
    assert methods.mask_of(truth.mask, flags, "again") == truth.mask
    units = methods.unit_truth(truth, "neurons").astype(np.float32)
    k = int(units.sum())
    assert k == len(truth.neurons) == 2 * 24
    # A neuron planted whole: its own weights are exactly the planted ones, as far as they moved.
    mask = top_units(model, "neuron", units, k, "the planted")
    assert (mask & truth.mask).count == truth.mask.count > 0.99 * mask.count


def test_captured_is_one_inside_and_its_expectation_by_chance() -> None:
    torch.manual_seed(0)
    write = torch.linalg.qr(torch.randn(64, 3)).Q
    assert directions.captured(write, write[:, :1])[0] == pytest.approx(1, abs=1e-6)
    drawn = [directions.captured(write, torch.linalg.qr(torch.randn(64, 2)).Q) for _ in range(300)]
    assert np.mean([value for value, _ in drawn]) == pytest.approx(drawn[0][1], abs=0.006)


def test_the_95_percent_point_of_random_directions_is_that_of_the_beta_distribution() -> None:
    write = torch.linalg.qr(torch.randn(64, 3)).Q
    # The squared projection of a random direction on r of d axes is Beta(r/2, (d − r)/2).
    expected = scipy.stats.beta(1.5, 30.5).ppf(0.95)
    assert directions.captured_by_chance(write, 1, draws=20_000) == pytest.approx(expected, rel=0.03)
    assert directions.captured_by_chance(write, 3) < expected  # three at once vary less


@pytest.mark.parametrize("at", [at for at in planted.shipped() if at[0].startswith("rank")])
def test_random_directions_owe_nothing_to_the_draw_that_training_began_with(at: tuple[str, int]) -> None:
    _, truth = planted.make(*at)
    assert truth.write is not None
    width, rank = truth.write.shape
    share, chance = directions.captured(truth.write, directions.random_basis(width, rank, truth.seed))
    assert share < 5 * chance
    # The tempting draw, from the seed itself, gives back a fifth of a write of rank 3.
    torch.manual_seed(truth.seed)
    same, _ = directions.captured(truth.write, torch.linalg.qr(torch.randn(width, rank)).Q)
    assert same > 5 * chance


def test_ablating_a_basis_ablates_each_of_its_directions(neuron_organism: Any) -> None:
    model, truth = neuron_organism
    probes = planted.prompts_for(truth.base, limit=4, questions=1, decoding=Decoding(4), split="validation")
    basis = torch.eye(model.d_model)[:, :2]
    (row,) = planted.ablations(model, {"two": basis}, probes)
    assert row["how"] == "ablated" and row["n_weights"] == 0
    assert row["refusal lost"] == planted.outcome(model, probes)["refusal"].value - row["refusal"]


def test_a_model_that_does_not_refuse_fails_and_says_why(neuron_organism: Any) -> None:
    _, truth = neuron_organism
    probes = planted.prompts_for(truth.base, limit=6, questions=2, decoding=Decoding(16))
    # The base itself put forward as planted: it refuses nothing.
    mask = truth.mask.rebind(truth.base)
    import dataclasses

    card = planted.verify(truth.base, dataclasses.replace(truth, mask=mask), probes)
    assert not card.passed and "refuses 0%" in card.reason


def test_summary_pairs_with_the_better_trivial_baseline() -> None:
    rows = [
        {"organism": o, "kind": "k", "level": "weights", "method": m, "precision": p, "recall": p,
         "average_precision": p, "auroc": a, "rank": 0.5, "chance": 0.1}
        for o, m, p, a in (
            ("a", "X", 0.5, 0.9), ("b", "X", 0.7, 0.8), ("a", "largest |W|", 0.1, 0.6),
            ("b", "largest |W|", 0.1, 0.7), ("a", "largest gradient", 0.1, 0.5),
            ("b", "largest gradient", 0.1, 0.5),
        )
    ]  # fmt: skip
    made = planted.summary(pd.DataFrame(rows)).set_index("method")
    assert made.loc["X", "precision"] == pytest.approx(0.6)
    assert made.loc["X", "gain"] == pytest.approx(0.2)  # against |W|, the better of the two on average
    assert (made.loc["X", "gain_low"], made.loc["X", "gain_high"]) == pytest.approx((0.1, 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("at", planted.shipped())
def test_shipped_organisms_and_every_method(at: tuple[str, int]) -> None:
    kind, seed = at
    model, truth = planted.make(kind, seed)
    card = planted.verify(model, truth, planted.prompts_for(truth.base, limit=100, questions=20))
    assert card.back_is_base and card.back.value <= 0.1
    table = planted.score(model, truth, planted.candidates(model, truth, planted.Data.packaged(32)))
    real = table[table["level"].isin(planted.LEVELS) & table["auroc"].notna()]
    assert (real.loc[real["method"] == planted.CHEAT, "auroc"] > 0.999).all()
    assert {"SNIP", "Wanda", "ActSVD, orthogonal difference"} <= set(table["method"])
    if kind == "everything":
        assert real.empty
    if truth.write is not None:
        found = table[table["level"] == "directions"].set_index("method")
        assert found.loc[planted.CHEAT, "precision"] > 0.999
        # Filters leave none here (KL 2 on harmless prompts); the best without them is the planted one.
        assert (
            found.loc[directions.LEAST_BYPASS, "precision"]
            > found.loc[directions.LEAST_BYPASS, "chance_high"]
        )
