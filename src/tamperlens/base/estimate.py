"""`Estimate`: a number with its interval and n; shares with Wilson's. Surfaced in `tamperlens.stats`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats as sps

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate(Result):
    """A number with its interval.

    Attributes:
        value: the estimate; NaN when undefined.
        low: lower bound of the interval; NaN when there is none.
        high: upper bound of the interval; NaN when there is none.
        n: number of independent units behind the estimate.
        method: how the interval was made, e.g. "wilson 95%".
        reason: why the value is undefined, or empty.
    """

    value: float
    low: float
    high: float
    n: int
    method: str = ""
    reason: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def cells(self, *more: str) -> dict[str, object]:
        """Columns of a table: value, low, high, n, and the fields in `more`."""
        return {name: getattr(self, name) for name in ("value", "low", "high", "n", *more)}

    def null_cells(self) -> dict[str, float]:
        """Columns of the null beside a value: null, null_low, null_high."""
        return {"null": self.value, "null_low": self.low, "null_high": self.high}

    def __neg__(self) -> Estimate:
        # 0 − x rather than −x, so that nothing reads as 0 and not as −0.
        return replace(self, value=0.0 - self.value, low=0.0 - self.high, high=0.0 - self.low)

    def summary(self) -> str:
        """Value, interval, n and method."""
        return f"{self}{f', {self.method}' if self.method else ''}"

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined (n={self.n}: {self.reason})"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n={self.n})"


def undefined(reason: str, n: int = 0) -> Estimate:
    """The estimate of a quantity that does not exist: NaN, with the reason why (never 0)."""
    return Estimate(math.nan, math.nan, math.nan, n, "", reason)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001).

    Args:
        successes: count of successes, 0 ≤ successes ≤ n.
        n: number of independent trials; 0 gives an undefined estimate.
        confidence: coverage, in (0, 1).

    Raises:
        InputError: successes outside 0..n or confidence outside (0, 1).

    Examples:
        >>> from tamperlens import stats
        >>> print(stats.wilson(0, 20))
        0 [0, 0.161] (n=20)
    """
    if successes > n:
        raise InputError(f"{successes!r} successes of {n!r} trials is impossible; check what was counted")
    if n == 0:
        return undefined("no trials")
    found = sps.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(found.low), float(found.high), int(n), f"wilson {confidence:.0%}")


def complement(share: Estimate) -> Estimate:
    """1 − a share, interval and all; an undefined share stays undefined."""
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n, share.method, share.reason)


def rate(flags: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """Wilson estimate of the share of true flags.

    Raises:
        InputError: a flag that is not yes or no.

    Examples:
        >>> from tamperlens import stats
        >>> print(stats.rate([True, True, False, True]))
        0.75 [0.301, 0.954] (n=4)
    """
    ready = flags_of(flags, "flags")
    return wilson(int(ready.sum()), len(ready), confidence)


def numbers(values: object, what: str) -> Array:
    """A vector of numbers.

    Raises:
        InputError: anything else, NaN and infinities included.
    """
    try:
        found = np.asarray(values if isinstance(values, np.ndarray) else list(values))  # type: ignore[call-overload]
        if found.size and found.dtype.kind not in "biuf":
            raise TypeError(f"they are {found.dtype}")
        ready = found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers, one per unit ({error})") from error
    if ready.ndim != 1:
        raise InputError(f"{what} must be one number per unit; got an array of shape {ready.shape}")
    if not np.isfinite(ready).all():
        raise InputError(f"{what} hold NaN or infinite values; drop them and say how many were dropped")
    return ready


def flags_of(values: Sequence[bool], what: str) -> npt.NDArray[np.bool_]:
    """Yes or no, one per unit; 0 and 1 will do.

    Raises:
        InputError: anything else.
    """
    ready = numbers(values, what)
    if not np.isin(ready, (0, 1)).all():
        raise InputError(f"{what} must be true or false (or 1 and 0), one per unit")
    return ready.astype(bool)
