"""Exactly the k largest of some scores: ties by index, zeros never, over any number of matrices.

A cutoff is a threshold and a number of ties: every score above the threshold is in, and of those equal to it
the first `ties`. The threshold of one matrix is bracketed by a sample and found exactly inside the bracket,
which holds a few per cent of the entries (Floyd and Rivest 1975). The threshold over all matrices comes from
a two-digit radix histogram of the fp32 bit pattern, which reads the scores twice and holds 512 kB, and is
exact because the bit patterns of non-negative floats are ordered like the floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tamperlens.base.errors import InputError, NumericsError

Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
_DIGIT = 16
_BINS = 1 << _DIGIT
_CHUNK = 1 << 22
_SAMPLE = 1 << 14
_MARGIN = 4.0  # standard errors of a sampled rank on each side of the bracket


@dataclass(frozen=True)
class Cutoff:
    """In are scores above `threshold` and the first `ties` of those equal to it.

    `every` says that there are no more than `ties` of them, which spares looking for them.
    """

    threshold: float
    ties: int
    every: bool = False


def quota(fraction: float, n: int) -> int:
    """⌊fraction · n⌋, with the fraction taken as the decimal number that was written.

    0.29 of 100 is 29, although 0.29 * 100 in floating point is 28.999….
    """
    return int(Fraction(repr(float(fraction))) * n)


def check_fraction(name: str, fraction: float) -> None:
    """A fraction of weights lies strictly between 0 and 1.

    Raises:
        InputError: it does not.
    """
    if not 0 < fraction < 1:
        hint = f"; for {fraction:g} % write {fraction / 100:g}" if 1 <= fraction < 100 else ""
        raise InputError(f"{name} is {fraction}; it is a fraction of the weights, between 0 and 1{hint}")


def cutoffs(values: Scores, quotas: Sequence[int]) -> list[Cutoff]:
    """The cutoff of each quota over all entries of one array, which is read in row-major order."""
    flat = np.ascontiguousarray(values).reshape(-1)
    sample = np.sort(flat[:: max(1, flat.size // _SAMPLE)])
    return [_cutoff(flat, sample, k) if k > 0 else Cutoff(np.inf, 0) for k in quotas]


def _cutoff(flat: Scores, sample: Scores, k: int) -> Cutoff:
    """The cutoff for the k largest, k > 0."""
    inside, above = _bracket(flat, sample, k)
    place = inside.size - (k - above)
    inside.partition(place)
    threshold = float(inside[place])
    if threshold <= 0:
        return Cutoff(0.0, 0)
    more = above + int(np.count_nonzero(inside[place:] > threshold))
    return Cutoff(threshold, k - more, every=int(np.count_nonzero(inside == threshold)) == k - more)


def _bracket(flat: Scores, sample: Scores, k: int) -> tuple[Scores, int]:
    """(a copy of the entries among which the k-th largest lies, how many are larger than all of them)."""
    share = k / flat.size
    slack = _MARGIN * (share * (1 - share) * sample.size) ** 0.5 + 2
    rank = (1 - share) * sample.size
    low = sample[max(0, int(rank - slack))]
    high = sample[min(sample.size - 1, int(rank + slack))]
    flags = flat >= low
    if int(rank + slack) >= sample.size - 1:  # nothing is known to lie above the bracket
        inside, above = flat[np.flatnonzero(flags)], 0
    else:
        larger = flat > high
        above = int(np.count_nonzero(larger))
        inside = flat[np.flatnonzero(flags & ~larger)]
    if above < k <= above + inside.size:
        return inside, above
    return flat.copy(), 0  # an unlucky or periodic sample costs time and nothing else


def take(values: Scores, cutoff: Cutoff) -> tuple[Flags, int]:
    """(flags of what the cutoff lets in, how many ties were used)."""
    if cutoff.ties == 0:
        return values > cutoff.threshold, 0
    flags: Flags = values >= cutoff.threshold
    if cutoff.every:
        return flags, cutoff.ties
    equal = np.flatnonzero(values == cutoff.threshold)
    if equal.size > cutoff.ties:
        flags.reshape(-1)[equal[cutoff.ties :]] = False
    return flags, min(equal.size, cutoff.ties)


def top_of_rows(values: Scores, fraction: float) -> Flags:
    """⌊fraction · columns⌋ largest of every row, ties by column, zeros dropped."""
    k = quota(fraction, values.shape[1])
    if k == 0:
        return np.zeros(values.shape, dtype=np.bool_)
    place = values.shape[1] - k
    ordered = np.partition(values, place, axis=1)
    threshold = ordered[:, place : place + 1]
    flags: Flags = (values >= threshold) & (values > 0)
    crowded = np.flatnonzero((flags.sum(1) > k) & (threshold[:, 0] > 0))
    if crowded.size:
        rows, cut = values[crowded], threshold[crowded]
        equal = rows == cut
        room = k - (rows > cut).sum(1, keepdims=True)
        flags[crowded] = (rows > cut) | (equal & (np.cumsum(equal, axis=1) <= room))
    return flags


def cutoffs_over_all(
    read: Callable[[], Iterable[Scores]], fractions: Sequence[float]
) -> tuple[list[Cutoff], int]:
    """Cutoffs over all arrays together, without holding them.

    Args:
        read: gives the arrays anew each time, in the same order; called twice.
        fractions: of the total number of entries.

    Returns:
        One cutoff per fraction, whose ties are to be spent in the order of the arrays, and the total.
    """
    high = np.zeros(_BINS, dtype=np.int64)
    total = 0
    for values in read():
        total += values.size
        for digits in _digits(values):
            high += np.bincount(digits >> _DIGIT, minlength=_BINS)
    quotas = [quota(fraction, total) for fraction in fractions]
    bins = [_bin_of(high, k) for k in quotas]
    low = {b: np.zeros(_BINS, dtype=np.int64) for b, _ in bins if b >= 0}
    for values in read() if low else ():
        for digits in _digits(values):
            top = digits >> _DIGIT
            for b, histogram in low.items():
                histogram += np.bincount(digits[top == b] & (_BINS - 1), minlength=_BINS)
    found = []
    for k, (b, above) in zip(quotas, bins, strict=True):
        if b < 0:
            found.append(Cutoff(np.inf, 0))
            continue
        digit, more = _bin_of(low[b], k - above)
        pattern = np.array([(b << _DIGIT) | digit], dtype=np.uint32)
        threshold = float(pattern.view(np.float32)[0])
        ties = k - above - more
        found.append(Cutoff(threshold, ties) if threshold > 0 else Cutoff(0.0, 0))
    return found, total


def check_finite(values: Scores, name: str) -> None:
    """Scores must be finite.

    Raises:
        NumericsError: they are not; names the projection.
    """
    if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise NumericsError(
            f"the scores of {name} hold NaN or infinity; score the model again in fp32 or bf16"
        )


def _digits(values: Scores) -> Iterable[npt.NDArray[Any]]:
    """Bit patterns in chunks; zeros and negative scores, which are never taken, all become 0."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        yield np.where(chunk > 0, chunk, np.float32(0)).view(np.uint32)


def _bin_of(histogram: npt.NDArray[np.int64], k: int) -> tuple[int, int]:
    """(bin that holds the k-th largest, number of entries in higher bins); (-1, 0) for k = 0."""
    if k <= 0:
        return -1, 0
    from_top = np.cumsum(histogram[::-1])
    place = int(np.searchsorted(from_top, k))
    return _BINS - 1 - place, int(from_top[place] - histogram[_BINS - 1 - place])
