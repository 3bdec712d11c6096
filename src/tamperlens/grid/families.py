"""Curves of refusal against attack compute, and their likelihood.

All are p(F, N) = p0 · g(F / F½), p0 being the refusal rate before the attack, F training FLOPs, N the model's
parameters, and log10 F½ = a + b · (log10 N − c): g(0) = 1 and g(1) = ½, so that F½ is the compute to half
refusal in every family.

- "logistic": g(x) = 1 / (1 + x^β), a logistic curve in log compute
- "power": g(x) = (1 + (2^(1/β) − 1)·x)^(−β), a power law with a flat start
- "exponential": g(x) = 2^(−x), a constant share lost per FLOP
- "flat": p = p0 · r, compute does nothing
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from tamperlens.grid.points import Array, Points

FAMILIES = ("logistic", "power", "exponential", "flat")
_EDGE = 1e-4
"""Rates are kept this far from 0 and 1: one answer against the curve must not weigh infinitely."""


def names_of(family: str, sized: bool) -> tuple[str, ...]:
    """Parameters of a family: log10 F½ at the mean size (a), its slope in log10 N (b), log β."""
    if family == "flat":
        return ("logit r",)
    names = ("log10 half", *(("slope",) if sized else ()))
    return names if family == "exponential" else (*names, "log shape")


def shape_of(family: str, x: Array, shape: float) -> Array:
    """g(x)."""
    if family == "logistic":
        return np.asarray(1 / (1 + x**shape), dtype=np.float64)
    if family == "power":
        return np.asarray((1 + (2 ** (1 / shape) - 1) * x) ** -shape, dtype=np.float64)
    return np.asarray(2.0**-x, dtype=np.float64)


def rate_of(family: str, theta: Array, points: Points, sized: bool) -> Array:
    """p(F, N) at every point."""
    if family == "flat":
        return np.asarray(points.before * special.expit(theta[0]), dtype=np.float64)
    half = theta[0] + (theta[1] * points.size if sized else 0.0)
    shape = 1.0 if family == "exponential" else float(np.exp(np.clip(theta[-1], -3, 3)))
    x = 10.0 ** np.clip(np.log10(np.maximum(points.flops, 1.0)) - half, -12, 6)
    return points.before * shape_of(family, x, shape)


def log_likelihood(family: str, theta: Array, points: Points, sized: bool) -> float:
    """Binomial log-likelihood, without the term that no parameter changes."""
    p = np.clip(rate_of(family, theta, points, sized), _EDGE, 1 - _EDGE)
    return float((points.refused * np.log(p) + (points.asked - points.refused) * np.log1p(-p)).sum())


def maximise(family: str, points: Points, sized: bool, start: Array | None = None) -> Array:
    """Parameters of the highest likelihood; from several starts unless one is given."""

    def cost(theta: Array) -> float:
        # A weak pull towards ordinary values keeps what the data say nothing of finite.
        far = theta[1] ** 2 if sized and family != "flat" else 0.0
        shape = theta[-1] ** 2 if family in ("logistic", "power") else 0.0
        return -log_likelihood(family, theta, points, sized) + 1e-3 * (far + shape)

    starts = [start] if start is not None else _starts(family, points, sized)
    options = {"maxiter": 600, "xatol": 1e-3, "fatol": 1e-4}
    found = [optimize.minimize(cost, one, method="Nelder-Mead", options=options) for one in starts]
    best = min(found, key=lambda one: float(one.fun))
    return np.asarray(best.x, dtype=np.float64)


def _starts(family: str, points: Points, sized: bool) -> list[Array]:
    if family == "flat":
        return [np.array([2.0])]
    logs = np.log10(np.maximum(points.flops, 1.0))
    tail = [] if family == "exponential" else [0.5]
    return [
        np.array([middle, *([1.0] if sized else []), *tail]) for middle in np.quantile(logs, [0.1, 0.5, 0.9])
    ]
