"""The selection rule at its boundaries, the refusal metric, and the KL divergence."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from tamperlens.base.errors import InputError
from tamperlens.directions.tokens import characteristic_tokens
from tamperlens.refusal import SelectionRule, kl_divergence, refusal_metric, select_direction

NAN = math.nan


def table(*rows: tuple[int, int, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["position", "layer", "bypass", "induce", "kl"])


def test_least_bypass_among_those_that_pass() -> None:
    chosen = select_direction(
        table((-1, 1, -2.0, 1.0, 0.01), (-2, 2, -5.0, 1.0, 0.01), (-1, 3, -9.0, 1.0, 0.2)), n_layers=10
    )
    assert (chosen.position, chosen.layer, chosen.passed, chosen.reason) == (-2, 2, True, "")
    assert (chosen.bypass, chosen.induce, chosen.kl, chosen.row) == (-5.0, 1.0, 0.01, 1)


@pytest.mark.parametrize(
    ("row", "passes"),
    [
        ((-1, 2, -5.0, 1.0, 0.1), True),  # KL exactly 0.1 passes
        ((-1, 2, -5.0, 1.0, math.nextafter(0.1, 1)), False),
        ((-1, 2, -5.0, 0.0, 0.0), True),  # induce exactly 0 passes
        ((-1, 2, -5.0, -0.0, 0.0), True),
        ((-1, 2, -5.0, math.nextafter(0.0, -1), 0.0), False),
        ((-1, 7, -5.0, 1.0, 0.0), True),
        ((-1, 8, -5.0, 1.0, 0.0), False),  # layer exactly 0.8 L fails
        ((-1, 9, -5.0, 1.0, 0.0), False),
        ((-1, 2, NAN, 1.0, 0.0), False),
        ((-1, 2, -5.0, NAN, 0.0), False),
        ((-1, 2, -5.0, 1.0, NAN), False),
        ((-1, 2, -math.inf, 1.0, 0.0), True),
    ],
)
def test_boundaries(row: tuple[int, int, float, float, float], passes: bool) -> None:
    good = (-3, 1, -1.0, 0.5, 0.05)
    chosen = select_direction(table(row, good), n_layers=10)
    assert chosen.passed
    assert chosen.position == (-1 if passes else -3)


@pytest.mark.parametrize("n_layers", range(1, 101))
def test_layer_limit_in_exact_arithmetic(n_layers: int) -> None:
    rows = [(-1, layer, -float(layer), 1.0, 0.0) for layer in range(n_layers)]
    chosen = select_direction(table(*rows), n_layers=n_layers, rule=SelectionRule(layer_rule="paper"))
    allowed = [layer for layer in range(n_layers) if 5 * layer < 4 * n_layers]
    assert chosen.layer == max(allowed)
    assert chosen.passed
    by_code = select_direction(table(*rows), n_layers=n_layers)
    below = [layer for layer in range(n_layers) if layer < (4 * n_layers) // 5]
    assert by_code.passed == bool(below)
    if below:
        assert by_code.layer == max(below)


def test_paper_and_code_differ_on_eight_layers() -> None:
    rows = table(*((-1, layer, -float(layer), 1.0, 0.0) for layer in range(8)))
    assert select_direction(rows, n_layers=8, rule=SelectionRule(layer_rule="paper")).layer == 6
    assert select_direction(rows, n_layers=8).layer == 5, "the published code, which its choices follow"


def test_when_nothing_passes_the_least_violation_comes_back_with_a_reason() -> None:
    """Not the least bypass: that is the candidate that wrecks the model."""
    wreck, usable = (-1, 3, -9.0, 4.0, 6.1), (-1, 2, -1.0, -0.4, 0.099)
    chosen = select_direction(
        table((-1, 1, NAN, NAN, NAN), wreck, usable, (-2, 9, -4.0, 1.0, 0.0), (-2, 4, -2.0, 1.0, 0.5)),
        n_layers=10,
    )
    assert (chosen.position, chosen.layer, chosen.passed) == (-1, 2, False)
    assert chosen.reason == (
        "no candidate passes every filter; the one that violates them least: induce -0.4 below 0"
    )
    assert select_direction(table(wreck, (-2, 5, 3.0, -80.0, 0.9)), n_layers=10).layer == 5, (
        "below the ceiling"
    )
    only = select_direction(table(wreck, (-1, 1, -3.0, 1.0, 61.0)), n_layers=10)
    assert (only.layer, only.passed) == (3, False)
    assert "do not use it" in only.reason


def test_estimates_are_never_chosen() -> None:
    rows = table((-1, 1, -9.0, 1.0, 0.0), (-1, 2, -2.0, 1.0, 0.0), (-1, 3, -5.0, 1.0, 0.0))
    rows["scores"] = ["estimated", "exact", "sampled"]
    chosen = select_direction(rows, n_layers=10)
    assert (chosen.layer, chosen.row, chosen.passed) == (2, 1, True)


def test_only_nan_still_comes_back() -> None:
    chosen = select_direction(table((-2, 0, NAN, NAN, NAN), (-1, 1, NAN, NAN, NAN)), n_layers=4)
    assert (chosen.position, chosen.layer, chosen.passed) == (-2, 0, False)
    assert "NaN" in chosen.reason


def test_ties_go_to_the_first_row() -> None:
    chosen = select_direction(table((-2, 3, -1.0, 1.0, 0.0), (-1, 1, -1.0, 1.0, 0.0)), n_layers=10)
    assert (chosen.position, chosen.layer) == (-2, 3)


@pytest.mark.parametrize(
    ("frame", "n_layers", "message"),
    [
        (table(), 4, "no candidates"),
        (table((-1, 0, 0.0, 0.0, 0.0)).drop(columns=["kl", "induce"]), 4, "lacks induce, kl"),
        (table((-1, 0, 0.0, 0.0, 0.0)), 0, "n_layers is 0"),
    ],
)
def test_bad_tables(frame: pd.DataFrame, n_layers: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_direction(frame, n_layers=n_layers)


def test_a_frame_with_any_index_and_further_columns() -> None:
    frame = table((-1, 1, -2.0, 1.0, 0.0), (-1, 2, -3.0, 1.0, 0.0)).assign(note="x")
    frame.index = pd.Index([7, 7])
    assert select_direction(frame, n_layers=10).layer == 2


# ---- metric


def test_metric_is_log_odds_of_the_summed_probability() -> None:
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(-1)[:, [2, 5]].sum(-1)
    torch.testing.assert_close(refusal_metric(logits, [5, 2, 5]), p.log() - (1 - p).log(), rtol=1e-12, atol=0)


def test_metric_is_exact_where_one_minus_p_is_not() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0], [-60.0, 0.0, 0.0]])
    found = refusal_metric(logits, [0])
    expected = 60 - math.log(2)
    assert found.tolist() == pytest.approx([expected, -60 - math.log(2)], rel=1e-12)
    p = logits.softmax(-1)[:, 0]
    assert not math.isfinite(float((p.log() - (1 - p).log())[0]))  # the formula as written, in float32


def test_metric_is_log_of_summed_not_sum_of_logs() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5, 0.0]])
    both = float(refusal_metric(logits, [0, 1]))
    assert both != pytest.approx(sum(float(refusal_metric(logits, [t])) for t in (0, 1)), abs=0.1)


@pytest.mark.parametrize("tokens", [[], [0, 1, 2], [3], [-1]])
def test_metric_refuses_impossible_tokens(tokens: list[int]) -> None:
    with pytest.raises(InputError, match=r"refusal.token"):
        refusal_metric(torch.zeros(1, 3), tokens)


def test_kl_is_zero_for_equal_and_known_for_two_outcomes() -> None:
    a = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    b = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.0]
    assert kl_divergence(a, b).tolist() == pytest.approx(expected, abs=1e-7)
    assert kl_divergence(a + 100, b - 7).tolist() == pytest.approx(expected, abs=1e-5)  # logits shift freely


def test_kl_with_impossible_tokens() -> None:
    inf = math.inf
    base = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, 0.0]])
    changed = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, -inf]])
    assert kl_divergence(base, changed).tolist() == [0.0, inf]


def test_mean_of_kl_is_not_kl_of_means() -> None:
    base = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    changed = base.flip(0)
    assert float(kl_divergence(base, changed).mean()) > 1
    means = [x.softmax(-1).mean(0, keepdim=True).log() for x in (base, changed)]
    assert float(kl_divergence(*means)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ([0.0, 0.6, 0.3, 0.1, -1.0], [1, 2]),  # 0.9 of the gain is reached exactly by two
        ([0.0, 0.5, 0.3, 0.2, -1.0], [1, 2, 3]),
        ([-0.2, -0.1, -0.3], [1]),
        ([0.1] * 10, list(range(8))),
    ],
)
def test_characteristic_tokens(gain: Any, expected: list[int]) -> None:
    assert characteristic_tokens(torch.tensor(gain)) == expected
