"""Effect sizes of paired drift: d_z and Cliff's delta over matrices, with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tamperlens.base.stats import Estimate, undefined

Array = npt.NDArray[np.float64]


def effects(
    x: Array, mine: Array, theirs: Array, draws: int, rng: np.random.Generator
) -> tuple[Estimate, Estimate]:
    """d_z and Cliff's delta over matrices, with intervals that resample matrices and seeds together."""
    n_seeds, n = x.shape
    units = rng.integers(0, n, (draws, n))
    seeds = rng.integers(0, n_seeds, (draws, n_seeds))
    weights = np.stack([(seeds == s).mean(1) for s in range(n_seeds)], 1)
    resampled = np.take_along_axis(weights @ x, units, 1)
    a, b = np.log(mine), np.log(theirs)
    sampled = _cliff(np.take_along_axis(weights @ a, units, 1), np.take_along_axis(weights @ b, units, 1))
    d_z = _bootstrapped(_d(x.mean(0)[None])[0], _d(resampled), n)
    return d_z, _bootstrapped(_cliff(a.mean(0)[None], b.mean(0)[None])[0], sampled, n)


def _d(x: Array) -> Array:
    """Cohen's d_z of each row."""
    spread = x.std(1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = x.mean(1) / spread
    return found


def _cliff(a: Array, b: Array) -> Array:
    """Cliff's delta of each pair of rows."""
    found = np.empty(len(a))
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        ordered = np.sort(other)
        low, high = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
        found[i] = (low.sum() - (other.size - high).sum()) / (one.size * other.size)
    return found


def _bootstrapped(value: float, samples: Array, n: int) -> Estimate:
    samples = samples[np.isfinite(samples)]
    if not math.isfinite(value) or samples.size == 0:
        return undefined("the differences do not vary", n)
    low, high = np.quantile(samples, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), n, "bootstrap 95%")
