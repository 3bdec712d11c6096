"""How well scores point at a known part: precision and recall at its size, average precision, AUROC, rank.

Ties are counted as if broken at random, in expectation, so that a set (scores 0 and 1) and a constant get
what they deserve: a constant has AUROC 1/2 and the precision of chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Localisation(Result):
    """What a ranking is worth against the truth; NaN with a reason where there is nothing to find.

    Attributes:
        precision: share of what was chosen that is planted; at the planted size for scores, of the set itself
            for sets.
        recall: share of what is planted that was chosen; equal to precision at the planted size.
        average_precision: Σ_k (R_k − R_{k−1}) P_k over the distinct scores, from the top.
        auroc: probability that a planted entry outranks another one, ties a half.
        rank: median place of the planted entries as a share of all, 0 at the top; .5 is chance.
        chance: planted / all: the precision and average precision of a random order.
        planted: number of planted entries.
        n: number of entries.
        reason: why the rest is NaN, or empty.
    """

    precision: float
    recall: float
    average_precision: float
    auroc: float
    rank: float
    chance: float
    planted: int
    n: int
    reason: str = ""


def localise(scores: Scores, truth: Flags, *, chosen: Flags | None = None) -> Localisation:
    """Score a ranking, or a set, against the truth.

    Args:
        scores: higher means "more likely planted", shape [n]; for a set its flags as numbers.
        truth: planted or not, shape [n].
        chosen: a set, whose own precision and recall are wanted instead of those at the planted size.

    Raises:
        InputError: shapes differ.
        NumericsError: NaN among the scores.
    """
    if (
        scores.ndim != 1
        or scores.shape != truth.shape
        or (chosen is not None and chosen.shape != truth.shape)
    ):
        raise InputError(f"scores {scores.shape} and truth {truth.shape} must be two equally long vectors")
    if np.isnan(scores).any():
        raise NumericsError("scores hold NaN; a method that is undefined somewhere cannot be ranked")
    n, planted = truth.size, int(truth.sum())
    if not 0 < planted < n:
        nan = math.nan
        why = "nothing is planted" if planted == 0 else "everything is planted: there is nothing to find"
        return Localisation(nan, nan, nan, nan, nan, planted / max(n, 1), planted, n, why)
    hits, sizes = _by_level(scores, truth)
    found, taken = np.cumsum(hits), np.cumsum(sizes)
    average = float((hits / planted * (found / taken)).sum())
    misses = sizes - hits
    below = n - planted - np.cumsum(misses)
    auroc = float((hits * (below + misses / 2)).sum() / (planted * (n - planted)))
    middle = int(np.searchsorted(found, (planted + 1) / 2))
    rank = float((taken[middle] - sizes[middle] / 2) / n)
    if chosen is not None:
        both, size = int((chosen & truth).sum()), int(chosen.sum())
        precision, recall = (both / size if size else math.nan), both / planted
    else:
        precision = recall = _hits_at(planted, hits, sizes) / planted
    return Localisation(precision, recall, average, auroc, rank, planted / n, planted, n)


def overlap(one: Scores, two: Scores, k: int) -> tuple[float, float]:
    """Jaccard index of the k highest of two score vectors, and its value for two random sets of that size.

    Args:
        one: shape [n]; ties go to the first.
        two: of the same units, made on other data.
        k: size of both sets, such as that of the planted part.

    Raises:
        InputError: shapes differ, or k is not in 1 … n.
    """
    if one.shape != two.shape or one.ndim != 1 or not 0 < k <= one.size:
        raise InputError(f"scores {one.shape} and {two.shape} and size {k} do not fit each other")
    sets = [np.zeros(one.size, dtype=np.bool_) for _ in range(2)]
    for flags, scores in zip(sets, (one, two), strict=True):
        flags[np.argsort(-scores, kind="stable")[:k]] = True
    shared = k * k / one.size
    return int((sets[0] & sets[1]).sum()) / int((sets[0] | sets[1]).sum()), shared / (2 * k - shared)


def _by_level(scores: Scores, truth: Flags) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Planted entries and all entries at each distinct score, highest first."""
    order = np.argsort(-scores, kind="stable")
    ranked, flags = scores[order], truth[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, ranked.size])
    return np.add.reduceat(flags.astype(np.int64), starts), sizes


def _hits_at(k: int, hits: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> float:
    """Expected planted entries among the first k, ties broken at random."""
    taken = np.cumsum(sizes)
    level = int(np.searchsorted(taken, k))
    before = int(taken[level] - sizes[level])
    return float(hits[:level].sum() + hits[level] * (k - before) / sizes[level])
