"""Honest statistics: every rate with n and an interval, every comparison paired where it can be.

Surfaced as `tamperlens.stats`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import stats as sps

from tamperlens.base.boundary import guard
from tamperlens.base.errors import InputError
from tamperlens.base.estimate import Array, Estimate, complement, flags_of, numbers, rate, undefined, wilson
from tamperlens.base.power import minimum_detectable_difference as minimum_detectable_difference
from tamperlens.base.power import (
    paired_minimum_detectable_difference as paired_minimum_detectable_difference,
)
from tamperlens.base.power import (
    two_sample_minimum_detectable_difference as two_sample_minimum_detectable_difference,
)
from tamperlens.base.results import Result

__all__ = [
    "Estimate",
    "PairedTest",
    "bootstrap",
    "clustered",
    "cohen_kappa",
    "complement",
    "holm",
    "mcnemar",
    "minimum_detectable_difference",
    "paired_difference",
    "paired_minimum_detectable_difference",
    "rate",
    "ratio",
    "standardised_mean",
    "two_sample_minimum_detectable_difference",
    "undefined",
    "wilson",
]


@dataclass(frozen=True)
class PairedTest(Result):
    """A paired before/after comparison of yes/no outcomes on the same prompts.

    Attributes:
        difference: rate after − rate before, with Newcombe's paired score interval.
        gained: prompts that turned from no to yes.
        lost: prompts that turned from yes to no.
        p_value: exact two-sided McNemar p (binomial on the discordant pairs); 1 when none is discordant.
    """

    difference: Estimate
    gained: int
    lost: int
    p_value: float

    def summary(self) -> str:
        """The change, how many changed and McNemar's p."""
        return (
            f"Change {self.difference}: {self.gained} gained, {self.lost} lost, exact McNemar "
            f"p = {self.p_value:.2g}."
        )


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> PairedTest:
    """Exact McNemar test (McNemar 1947) with Newcombe's interval of the difference in rates.

    Args:
        before: an outcome per prompt.
        after: likewise, of the same prompts in the same order.

    Raises:
        InputError: unequal lengths, or outcomes that are not yes or no.

    Examples:
        >>> mcnemar([True] * 201, [False] * 201).difference.interval
        (-1.0, -0.9734...)
    """
    one, two = _paired(before, after)
    gained, lost = int((~one & two).sum()), int((one & ~two).sum())
    discordant = gained + lost
    p = 1.0 if discordant == 0 else float(sps.binomtest(gained, discordant, 0.5).pvalue)
    return PairedTest(paired_difference(before, after), gained, lost, p)


def paired_difference(before: Sequence[bool], after: Sequence[bool], *, confidence: float = 0.95) -> Estimate:
    """Rate after − rate before on the same prompts, with Newcombe's score interval.

    Newcombe 1998 ("Improved confidence intervals for the difference between binomial proportions based on
    paired data"), method 10. Unlike a bootstrap it does not shrink to a point when all pairs agree: 200 of
    200 turned is a difference of −1 [−1, −0.97].

    Raises:
        InputError: unequal lengths, or outcomes that are not yes or no.

    Examples:
        >>> from tamperlens import stats
        >>> print(stats.paired_difference([True] * 20, [False] * 20))
        -1 [-1, -0.772] (n=20)
    """
    first, second = _paired(before, after)
    n = len(first)
    if n == 0:
        return undefined("no pairs")
    both, lost, gained = (int(pair.sum()) for pair in (first & second, first & ~second, ~first & second))
    neither = n - both - lost - gained
    one, two = wilson(both + lost, n, confidence), wilson(both + gained, n, confidence)
    product = float((both + lost) * (gained + neither) * (both + gained) * (lost + neither))
    overlap = both * neither - lost * gained
    corrected = max(overlap - n / 2, 0.0) if overlap > 0 else float(overlap)
    phi = corrected / math.sqrt(product) if product else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    value = two.value - one.value
    low = value - reach(two.value - two.low, one.high - one.value)
    high = value + reach(two.high - two.value, one.value - one.low)
    return Estimate(value, max(-1.0, low), min(1.0, high), n, f"newcombe {confidence:.0%}")


def ratio(numerator: Estimate, denominator: Estimate) -> Estimate:
    """numerator / denominator of two independent estimates, with the interval that theirs imply.

    Fieller's (1954) interval in the form of Donner & Zou 2012 ("Closed-form confidence intervals for
    functions of the normal mean and standard deviation", MOVER-R): all ρ for which numerator − ρ·denominator
    can be 0, its limits being put together from the limits of the two. With limits that are value ± z·se it
    is Fieller's; with score intervals it does not shrink to a point when all pairs agree. The confidence is
    that of the two intervals.

    Args:
        numerator: estimate with its interval.
        denominator: likewise; from other units than the numerator's.

    Returns:
        The ratio, with the smaller n; undefined, with the reason, where either is undefined or the
        denominator's interval holds 0: then no ratio can be ruled out.

    Examples:
        >>> from tamperlens import stats
        >>> print(stats.ratio(stats.wilson(30, 60), stats.wilson(40, 60)))
        0.75 [0.547, 1.02] (n=60)
    """
    n = min(numerator.n, denominator.n)
    for name, one in (("numerator", numerator), ("denominator", denominator)):
        if not all(map(math.isfinite, (one.value, one.low, one.high))):
            return undefined(f"the {name} has no value with an interval ({one.reason or one.method})", n)
    if denominator.low <= 0 <= denominator.high:
        return undefined(
            f"the denominator's interval [{denominator.low:.3g}, {denominator.high:.3g}] holds 0", n
        )
    if denominator.value < 0:
        return -ratio(numerator, -denominator)
    value = numerator.value / denominator.value
    below, above = numerator.value - numerator.low, numerator.high - numerator.value

    def least(rho: float) -> float:  # lower limit of numerator − rho·denominator
        reach = denominator.high - denominator.value if rho >= 0 else denominator.value - denominator.low
        return numerator.value - rho * denominator.value - math.hypot(below, rho * reach)

    def most(rho: float) -> float:
        reach = denominator.value - denominator.low if rho >= 0 else denominator.high - denominator.value
        return numerator.value - rho * denominator.value + math.hypot(above, rho * reach)

    step = abs(value) + 1.0
    low, high = value - step, value + step
    while least(low) < 0:  # ends: for rho → −∞ it is |rho| times the denominator's lower limit, above 0
        low -= (step := 2 * step)
    step = abs(value) + 1.0
    while most(high) > 0:
        high += (step := 2 * step)
    tiny = 1e-12
    bottom = value if least(value) >= -tiny else float(optimize.brentq(least, low, value))
    top = value if most(value) <= tiny else float(optimize.brentq(most, value, high))
    return Estimate(value, bottom, top, n, "fieller (from the two intervals)")


def bootstrap(
    values: npt.ArrayLike,
    statistic: Callable[[Array], float] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap over independent units (Efron 1979).

    Args:
        values: one value per unit, shape [n]; pass paired differences for a paired interval.
        statistic: function of a 1-D array; the mean by default.
        confidence: coverage, in (0, 1).
        draws: number of resamples.
        seed: of the resampling, so that the interval is reproducible.

    Examples:
        >>> from tamperlens import stats
        >>> print(stats.bootstrap([1.0, 2.0, 3.0, 4.0], seed=0))
        2.5 [1.5, 3.5] (n=4)
    """
    data = numbers(values, "values to resample")
    if data.size == 0:
        return undefined("no units to resample")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, data.size, size=(draws, data.size))
    if statistic is None:
        value = float(data.mean())
        samples = data[picks].mean(axis=1)
    else:
        value = float(statistic(data))
        if statistic is np.median:  # over rows at once, few of them: there may be many units
            chunks = np.array_split(picks, draws // 50 + 1)
            samples = np.concatenate([np.median(data[rows], axis=1) for rows in chunks])
        else:
            samples = np.array([statistic(data[pick]) for pick in picks])
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), int(data.size), f"bootstrap {confidence:.0%}")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given.

    Examples:
        >>> from tamperlens import stats
        >>> stats.holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    given = numbers(p_values, "p-values")
    if ((given < 0) | (given > 1)).any():
        raise InputError("a p-value lies between 0 and 1")
    p_values, m = given.tolist(), len(given)
    order = sorted(range(m), key=lambda i: p_values[i])
    adjusted = [0.0] * m
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _paired(
    before: Sequence[bool], after: Sequence[bool]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    one, two = flags_of(before, "outcomes before"), flags_of(after, "outcomes after")
    if len(one) != len(two):
        raise InputError(
            f"a paired test needs the same prompts on both sides: {len(one)} before, {len(two)} after"
        )
    return one, two


def standardised_mean(values: Sequence[float] | Array, *, confidence: float = 0.95) -> Estimate:
    """Mean over standard deviation (Cohen's d_z of paired differences), for few values.

    The interval holds the d whose noncentral t distribution with n − 1 degrees of freedom puts neither tail
    beyond the t that was found (Steiger and Fouladi 1997); exact where the values are normal.

    Args:
        values: differences.
        confidence: coverage, in (0, 1).
    """
    x = numbers(values, "values")
    n = len(x)
    if n < 2:
        return undefined("fewer than 2 values", n)
    spread = float(x.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(x).max()):
        return undefined("the values do not vary", n)
    d, tail = float(x.mean()) / spread, (1 - confidence) / 2
    # P(T < t) = E Φ(t χ / √(n − 1) − c): scipy's own nct gives NaN where t or c is large.
    scale = np.sqrt(sps.chi2.ppf((np.arange(4096) + 0.5) / 4096, n - 1) / (n - 1))
    t = d * math.sqrt(n)

    def end(below: float) -> float:
        """The noncentrality c that puts `below` of the distribution below t, as a d."""
        reach = 10 + 10 * abs(t)
        found = optimize.brentq(lambda c: float(sps.norm.cdf(t * scale - c).mean()) - below, -reach, reach)
        return float(found) / math.sqrt(n)

    return Estimate(d, end(1 - tail), end(tail), n, f"noncentral t {confidence:.0%}")


def cohen_kappa(
    both: int,
    only_first: int,
    only_second: int,
    neither: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Cohen's kappa of two raters' yes/no verdicts with a percentile bootstrap interval (Cohen 1960).

    Resampling n verdict pairs with replacement is drawing the four counts from a multinomial, which is what
    is done. Undefined when both raters say the same of everything.

    Args:
        both: items that both call yes.
        only_first: yes by the first rater alone.
        only_second: yes by the second alone.
        neither: items that both call no.
        draws: number of resamples.
        seed: of the resampling.
        confidence: coverage, in (0, 1).

    Examples:
        >>> from tamperlens import stats
        >>> round(stats.cohen_kappa(40, 5, 5, 50).value, 3)
        0.798
    """
    counts = np.array([both, only_first, only_second, neither], dtype=np.float64)
    n = int(counts.sum())
    if n == 0:
        return undefined("no items")
    value = float(_kappa(counts[None])[0])
    if math.isnan(value):
        return undefined("one verdict for every item: agreement beyond chance is undefined", n)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws).astype(np.float64)
    samples = _kappa(drawn)
    samples = samples[~np.isnan(samples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n, f"bootstrap {confidence:.0%}")


def _kappa(counts: Array) -> Array:
    """Kappa of rows (both, only first, only second, neither)."""
    both, first, second, neither = counts.T
    n = counts.sum(1)
    agreed = (both + neither) / n
    chance = ((both + first) * (both + second) + (second + neither) * (first + neither)) / n**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (agreed - chance) / (1 - chance), math.nan)


def clustered(values: npt.ArrayLike, clusters: Sequence[object], confidence: float = 0.95) -> Estimate:
    """A mean over units that come in clusters (samples of one prompt), with a cluster-robust interval.

    Linearised variance of a ratio mean, G/(G−1) · Σ_g (Σ_{i∈g} (x_i − x̄))² / N², Student's t with G − 1
    degrees of freedom (Liang & Zeger 1986; Cameron & Miller 2015). n is the number of clusters. For 0/1
    values that are all equal the variance is 0, and Wilson's interval over the clusters is given instead.

    Args:
        values: one number per unit, shape [N].
        clusters: which cluster each unit belongs to, length N.
        confidence: coverage, in (0, 1).

    Raises:
        InputError: unequal lengths.
    """
    data = numbers(values, "values")
    if data.shape != (len(clusters),):
        raise InputError(f"{data.shape} values for {len(clusters)} cluster names; give one name per value")
    if data.size == 0:
        return undefined("no units")
    _, index = np.unique(np.asarray(list(map(str, clusters))), return_inverse=True)
    groups = int(index.max()) + 1
    mean = float(data.mean())
    if np.ptp(data) == 0 and mean in (0.0, 1.0):
        same = wilson(int(mean) * groups, groups, confidence)
        return Estimate(mean, same.low, same.high, groups, f"wilson over clusters {confidence:.0%}")
    if groups < 2:
        return Estimate(mean, math.nan, math.nan, 1, "", "one cluster has no interval")
    residuals = np.bincount(index, weights=data - mean)
    error = math.sqrt(groups / (groups - 1) * float((residuals**2).sum())) / data.size
    half = float(sps.t.ppf(0.5 + confidence / 2, groups - 1)) * error
    low, high = mean - half, mean + half
    if ((data == 0) | (data == 1)).all():
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(mean, low, high, groups, f"clustered {confidence:.0%}")


guard(globals(), __all__)
