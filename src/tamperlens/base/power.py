"""What difference n prompts would show: minimum detectable differences. Surfaced in `tamperlens.stats`."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy import stats as sps

from tamperlens.base.errors import InputError


def minimum_detectable_difference(n: int, p: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest difference between two rates that n prompts per side would show with the given power.

    Normal approximation for two independent proportions around p (Cohen 1988); pairing only makes it smaller.

    Examples:
        >>> from tamperlens import stats
        >>> round(stats.minimum_detectable_difference(100, 0.5), 3)
        0.198
    """
    _check(alpha)
    if not 0 <= p <= 1:
        raise InputError(f"p is {p}; a rate lies in [0, 1]")
    if n <= 0:
        return math.nan
    z = float(sps.norm.ppf(1 - alpha / 2) + sps.norm.ppf(power))
    return min(1.0, z * math.sqrt(2 * max(p * (1 - p), 1 / (4 * n)) / n))


def paired_minimum_detectable_difference(
    n: int, discordant: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest difference in rates on the same n prompts that the exact McNemar test shows with that power.

    The power is summed over the number of prompts that change, D ~ Bin(n, ψ), of which Bin(D, ½ + δ / 2ψ)
    change one way; Connor's (1987) normal approximation promises .80 where the exact test has .77 to .79.

    Args:
        n: number of prompts.
        discordant: ψ, share of prompts whose outcome differs between the two sides, in (0, 1].
        power: chance to find it.
        alpha: level of the two-sided test.

    Returns:
        The difference δ; NaN when n is 0 or even δ = ψ (every change in one direction) would not show.

    Raises:
        InputError: a share outside (0, 1], or a power or level outside (0, 1).
    """
    if not 0 < discordant <= 1:
        raise InputError(f"discordant is {discordant}; it is a share in (0, 1]")
    _check(alpha)
    if n <= 0:
        return math.nan
    changed = np.arange(n + 1)
    weight = sps.binom.pmf(changed, n, discordant)
    changed, weight = changed[weight > 1e-12], weight[weight > 1e-12]
    # The test rejects where the rarer direction has at most `most` of the D changes.
    most = sps.binom.ppf(alpha / 2, changed, 0.5)
    most = np.where(2 * sps.binom.cdf(most, changed, 0.5) > alpha, most - 1, most)

    def short(delta: float) -> float:
        share = 0.5 + delta / (2 * discordant)
        found = sps.binom.cdf(most, changed, share) + sps.binom.sf(changed - most - 1, changed, share)
        return power - float((weight * found).sum())

    return float(optimize.brentq(short, 0.0, discordant)) if short(discordant) < 0 else math.nan


def _check(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha} must lie between 0 and 1")


def two_sample_minimum_detectable_difference(
    n: int, p: float, *, power: float = 0.8, alpha: float = 0.05, upward: bool = True
) -> float:
    """Smallest change from a rate p that n prompts a side would show, with the variance at both rates.

    Solves (p₂ − p)² n = (z_{1−α/2} √(2 p̄ q̄) + z_power √(p q + p₂ q₂))² for p₂ (Fleiss, Levin & Paik 2003,
    chapter 4, without continuity correction). Unlike `minimum_detectable_difference` it knows that a rate of
    .02 has more room upward than downward.

    Returns:
        |p₂ − p|; NaN when n is 0 or no rate on that side is far enough.
    """
    if not 0 <= p <= 1:
        raise InputError(f"p is {p}; a rate lies in [0, 1]")
    _check(alpha)
    if n <= 0:
        return math.nan
    a, b = float(sps.norm.ppf(1 - alpha / 2)), float(sps.norm.ppf(power))

    def short(delta: float) -> float:
        other = p + delta if upward else p - delta
        middle = (p + other) / 2
        spread = a * math.sqrt(max(2 * middle * (1 - middle), 0.0))
        return spread + b * math.sqrt(max(p * (1 - p) + other * (1 - other), 0.0)) - delta * math.sqrt(n)

    top = 1 - p if upward else p
    # At a rate of 0 or 1 no difference at all solves the equation too; the bracket leaves that root out.
    return float(optimize.brentq(short, 1e-9, top)) if top > 0 and short(top) < 0 else math.nan
