"""Angles, subspaces, CKA and separation against literal definitions."""

from __future__ import annotations

import math

import pytest
import torch

from tamperlens.base.errors import InputError
from tamperlens.directions import geometry
from tamperlens.directions.separation import separate


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_principal_angles_are_those_of_the_cosines_and_exact_when_tiny() -> None:
    a, b = geometry.orthonormal(draw(3, 20)), geometry.orthonormal(draw(3, 20, seed=1))
    expected = torch.linalg.svdvals(a @ b.T).arccos()
    torch.testing.assert_close(geometry.principal_angles(a, b), expected, rtol=1e-10, atol=1e-12)
    assert geometry.geodesic(expected) == pytest.approx(float(expected.square().sum().sqrt()))
    difference = a.T @ a - b.T @ b
    assert geometry.chordal(expected) == pytest.approx(float(difference.norm()) / math.sqrt(2))
    # A rotation of 1e-9, of which the arc cosine of the cosine sees nothing.
    turned = a.clone()
    turned[0] = math.cos(1e-9) * a[0] + math.sin(1e-9) * geometry.orthonormal(torch.cat([a, b]))[3]
    angles = geometry.principal_angles(a, turned)
    assert float(angles.max()) == pytest.approx(1e-9, rel=1e-4)
    assert float(torch.linalg.svdvals(a @ turned.T).clamp(max=1).arccos().max()) != pytest.approx(
        1e-9, rel=0.1
    )


def test_spans_of_unequal_size() -> None:
    a = geometry.orthonormal(draw(4, 12))
    angles = geometry.principal_angles(a[:2], a)
    assert angles.shape == (2,)
    assert float(angles.max()) < 1e-7
    assert geometry.principal_angles(a, a[:1]).shape == (1,)


def test_orthonormal_keeps_order_and_sense() -> None:
    rows = draw(3, 8)
    basis = geometry.orthonormal(rows)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(basis[0], rows[0] / rows[0].norm())
    assert bool(((basis * rows).sum(1) > 0).all())
    with pytest.raises(InputError, match="linearly dependent"):
        geometry.orthonormal(torch.stack([rows[0], 2 * rows[0]]))


def test_projection_energy() -> None:
    basis = torch.eye(4, dtype=torch.float64)[:2]
    assert geometry.projection_energy(torch.tensor([3.0, 0, 4, 0]), basis) == pytest.approx(9 / 25)
    assert math.isnan(geometry.projection_energy(torch.zeros(4), basis))


def test_cka_is_the_literal_formula_and_ignores_rotation_and_scale() -> None:
    x, y = draw(30, 6), draw(30, 9, seed=1)
    one, two = x - x.mean(0), y - y.mean(0)
    literal = (two.T @ one).norm() ** 2 / ((one.T @ one).norm() * (two.T @ two).norm())
    assert geometry.linear_cka(x, y) == pytest.approx(float(literal))
    rotation = torch.linalg.qr(draw(6, 6, seed=2))[0]
    assert geometry.linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    assert geometry.linear_cka(x, x, debiased=True) == pytest.approx(1)


def test_debiased_cka_is_near_zero_where_the_plain_one_is_high() -> None:
    plain = [geometry.linear_cka(draw(20, 200, seed=s), draw(20, 200, seed=99 + s)) for s in range(20)]
    fair = [
        geometry.linear_cka(draw(20, 200, seed=s), draw(20, 200, seed=99 + s), debiased=True)
        for s in range(20)
    ]
    assert sum(plain) / 20 > 0.8
    assert abs(sum(fair) / 20) < 0.05
    with pytest.raises(InputError, match="same prompts"):
        geometry.linear_cka(draw(5, 2), draw(6, 2))


def test_auroc_counts_pairs_with_ties_half() -> None:
    high, low = torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.tensor([0.0, 2.0, 3.0])
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in high.tolist() for b in low.tolist()]
    assert geometry.auroc(high, low) == pytest.approx(sum(pairs) / 12)
    assert math.isnan(geometry.auroc(high, low[:0]))


def test_auroc_interval_covers_and_does_not_vanish_at_one() -> None:
    perfect = geometry.auroc_estimate(draw(10) + 100, draw(10, seed=1))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.6 < perfect.low < 0.95
    true = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    covered = 0
    for seed in range(300):
        found = geometry.auroc_estimate(draw(25, seed=seed) + 1, draw(30, seed=1000 + seed))
        covered += found.low <= true <= found.high
    assert covered / 300 > 0.92


def test_threshold_at_one_percent() -> None:
    low = torch.arange(100.0)  # one of a hundred may exceed: 99 does, so the threshold is 98
    assert geometry.tpr_at_fpr(torch.tensor([98.0, 98.5, 200.0]), low) == (2, 98.0)
    few = torch.arange(50.0)  # none may exceed
    assert geometry.tpr_at_fpr(torch.tensor([48.5, 49.0, 49.5]), few) == (1, 49.0)
    assert geometry.tpr_at_fpr(torch.tensor([48.5, 49.0, 49.5]), few, 0.02) == (3, 48.0)
    with pytest.raises(InputError, match="negatives"):
        geometry.tpr_at_fpr(few, few[:0])


def test_separation_of_two_gaussians() -> None:
    high, low = 2 * draw(4000) + 3, 2 * draw(5000, seed=1)
    found = separate(high, low)
    assert found.d_prime.value == pytest.approx(1.5, abs=0.08)
    assert found.d_prime.low < 1.5 < found.d_prime.high
    assert found.gap.value == pytest.approx(float(high.mean() - low.mean()))
    assert found.auroc.value == pytest.approx(0.5 * (1 + math.erf(1.5 / 2)), abs=0.02)
    assert found.tpr.value == pytest.approx(0.5 * (1 + math.erf((1.5 - 2.326) / math.sqrt(2))), abs=0.04)
    alone = separate(high[:1], low[:1])
    assert math.isnan(alone.d_prime.value)
    assert alone.d_prime.reason
