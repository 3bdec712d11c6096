"""What difference n prompts would show: minimum detectable differences. Surfaced in `tamperlens.stats`."""

from __future__ import annotations

import math

from scipy import optimize
from scipy import stats as sps

from tamperlens.base.errors import InputError


def minimum_detectable_difference(n: int, p: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest difference between two rates that n prompts per side would show with the given power.

    Normal approximation for two independent proportions around p (Cohen 1988); pairing only makes it smaller.
    """
    if n <= 0:
        return math.nan
    z = float(sps.norm.ppf(1 - alpha / 2) + sps.norm.ppf(power))
    return min(1.0, z * math.sqrt(2 * max(p * (1 - p), 1 / (4 * n)) / n))


def paired_minimum_detectable_difference(
    n: int, discordant: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest difference in rates on the same n prompts that McNemar's test shows with the given power.

    Solves n δ² = (z_{1−α/2} √ψ + z_power √(ψ − δ²))² for δ (Connor 1987), ψ the share of prompts that change.

    Args:
        n: number of prompts.
        discordant: share of prompts whose outcome differs between the two sides, in (0, 1].
        power: chance to find it.
        alpha: level of the two-sided test.

    Returns:
        The difference; NaN when n is 0 or even δ = ψ (every change in one direction) would not show.
    """
    if not 0 < discordant <= 1:
        raise InputError(f"discordant is {discordant}; it is a share in (0, 1]")
    if n <= 0:
        return math.nan
    a, b = float(sps.norm.ppf(1 - alpha / 2)), float(sps.norm.ppf(power))

    def short(delta: float) -> float:
        needed = a * math.sqrt(discordant) + b * math.sqrt(max(discordant - delta**2, 0.0))
        return needed - delta * math.sqrt(n)

    top = min(discordant, 1.0)
    return float(optimize.brentq(short, 0.0, top)) if short(top) < 0 else math.nan


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
