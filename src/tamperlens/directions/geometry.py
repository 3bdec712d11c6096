"""Angles, subspaces and separation as pure functions of activations: float64 tensors in, numbers out."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import linalg, optimize
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.stats import Estimate, undefined


def cosine_and_angle(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> tuple[float, float]:
    """(cosine, angle in degrees) by 2·atan2(‖â − b̂‖, ‖â + b̂‖), exact for nearly parallel vectors."""
    one, two = a.double().cpu(), b.double().cpu()
    one, two = one / one.norm(), two / two.norm()
    angle = 2 * math.atan2(float((one - two).norm()), float((one + two).norm()))
    return math.cos(angle), math.degrees(angle)


def degrees(cosine: float) -> float:
    """The angle of a cosine, [0, 180]; NaN for NaN."""
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) if cosine == cosine else math.nan


def orthonormal(rows: Float[Tensor, "k d"]) -> Float64[Tensor, "k d"]:
    """An orthonormal basis of the rows by QR, row i within the span of the first i + 1 rows, same sense.

    Raises:
        InputError: the rows are dependent, so that they span fewer directions.
    """
    q, r = torch.linalg.qr(rows.double().T)
    diagonal = r.diagonal()
    if bool((diagonal.abs() <= 1e-9 * rows.double().norm(dim=1)).any()):
        raise InputError(f"{len(rows)} directions are linearly dependent; pass fewer of them")
    basis: Tensor = (q * diagonal.sign()).T.contiguous()
    return basis


def principal_angles(a: Float[Tensor, "k d"], b: Float[Tensor, "m d"]) -> Float64[Tensor, " j"]:
    """Principal angles between the spans of two bases, in radians, smallest first, exact where they are tiny.

    Args:
        a: rows that span one subspace.
        b: rows that span the other; j = min(k, m) angles come back.
    """
    one, two = (rows.detach().double().cpu().numpy().T for rows in (a, b))
    return torch.from_numpy(linalg.subspace_angles(one, two)[::-1].copy())


def geodesic(angles: Float[Tensor, " k"]) -> float:
    """Geodesic distance on the Grassmannian, √Σθ², in radians (Edelman, Arias & Smith 1998)."""
    return float(angles.double().norm())


def chordal(angles: Float[Tensor, " k"]) -> float:
    """Chordal distance, √Σ sin²θ = ‖P_a − P_b‖_F / √2 (Conway, Hardin & Sloane 1996)."""
    return float(angles.double().sin().norm())


def projection_energy(vector: Float[Tensor, " d"], basis: Float[Tensor, "k d"]) -> float:
    """Share of a vector's squared length inside the span of orthonormal rows, in [0, 1]; NaN for zero."""
    whole = float(vector.double() @ vector.double())
    return float((basis.double() @ vector.double()).square().sum()) / whole if whole > 0 else math.nan


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], *, debiased: bool = False) -> float:
    """Linear centred kernel alignment of two representations of the same prompts.

    Kornblith et al. 2019 (arXiv 1905.00414): ‖Yᵀ X‖²_F / (‖Xᵀ X‖_F ‖Yᵀ Y‖_F) with centred columns. With
    fewer prompts than dimensions it is high for any two representations; `debiased` uses the unbiased
    estimator of HSIC instead (Song et al. 2012), which is 0 on average for unrelated ones.

    Raises:
        InputError: unequal numbers of prompts, or fewer than 4.
    """
    if len(x) != len(y) or len(x) < 4:
        raise InputError(f"CKA needs the same prompts on both sides, 4 at least; got {len(x)} and {len(y)}")
    one, two = (z.double() - z.double().mean(0) for z in (x, y))
    k, m = one @ one.T, two @ two.T
    inner = _hsic_unbiased if debiased else _hsic
    scale = inner(k, k) * inner(m, m)
    return inner(k, m) / math.sqrt(scale) if scale > 0 else math.nan


def _hsic(k: Tensor, m: Tensor) -> float:
    return float((k * m).sum())


def _hsic_unbiased(k: Tensor, m: Tensor) -> float:
    n = len(k)
    k, m = (z - torch.diag(z.diagonal()) for z in (k, m))
    product = float((k * m).sum()) + float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
    return (product - 2 * float(k.sum(0) @ m.sum(0)) / (n - 2)) / (n * (n - 3))


def auroc(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """Probability that a random positive lies above a random negative, ties counting half."""
    if not len(positive) or not len(negative):
        return math.nan
    one, two = (side.detach().double().cpu().numpy() for side in (positive, negative))
    return float(sps.mannwhitneyu(one, two, method="asymptotic").statistic) / (one.size * two.size)


def auroc_estimate(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> Estimate:
    """AUROC with Newcombe's score-type interval (2006, method 5), which does not vanish at 0 and 1.

    The interval solves |A − θ| = z √V(θ) with the variance of Hanley & McNeil (1982) at θ.
    """
    n, m = len(positive), len(negative)
    if not n or not m:
        return undefined("no prompts on one side")
    value, z, half = auroc(positive, negative), float(sps.norm.ppf(0.975)), (n + m) / 2 - 1

    def gap(theta: float) -> float:
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        return (value - theta) ** 2 - z * z * theta * (1 - theta) * spread / (n * m)

    # 1e-9 inside the value, because 0 and 1 solve the equation when they are the value.
    low = 0.0 if value <= 0 else float(optimize.brentq(gap, 0.0, value - 1e-9))
    high = 1.0 if value >= 1 else float(optimize.brentq(gap, value + 1e-9, 1.0))
    return Estimate(value, low, high, min(n, m), "newcombe 95%")


def d_prime(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """Difference of means in units of the pooled standard deviation, √((s₊² + s₋²) / 2); NaN below 2 each."""
    if len(positive) < 2 or len(negative) < 2:
        return math.nan
    pooled = math.sqrt(float(positive.double().var() + negative.double().var()) / 2)
    gap = float(positive.double().mean() - negative.double().mean())
    return gap / pooled if pooled > 0 else math.nan


def tpr_at_fpr(
    positive: Float[Tensor, " n"], negative: Float[Tensor, " m"], fpr: float = 0.01
) -> tuple[int, float]:
    """How many positives lie above the threshold that at most the share `fpr` of negatives exceeds.

    Args:
        positive: projections that should be high.
        negative: projections that should be low; with fewer than 1 / fpr of them none may exceed the
            threshold.
        fpr: false positive rate allowed.

    Returns:
        (count of positives strictly above, threshold).

    Raises:
        InputError: no negatives, or fpr outside [0, 1).
    """
    if not len(negative) or not 0 <= fpr < 1:
        raise InputError(f"a threshold needs negatives and 0 ≤ fpr < 1; got {len(negative)} and {fpr}")
    allowed = int(np.floor(fpr * len(negative) + 1e-9))
    threshold = float(negative.double().sort(descending=True).values[allowed])
    return int((positive.double() > threshold).sum()), threshold
