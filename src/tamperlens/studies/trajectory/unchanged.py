"""Has the model changed a number on the prompts that it was asked before? Bands of no change, paired."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float64
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.measurement import NO_SPAN, Span


def unchanged_mean(
    before: Float64[Tensor, " n"], after: Float64[Tensor, " n"], confidence: float = 0.95
) -> Span:
    """Around the mean before, what Student's t of the prompts' own changes leaves to chance."""
    n = len(before)
    if n < 2:
        return NO_SPAN
    half = float(sps.t.ppf((1 + confidence) / 2, n - 1)) * float((after - before).std()) / math.sqrt(n)
    middle = float(before.mean())
    return middle - half, middle + half


def unchanged_share(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Span:
    """Around the share before, what the exact McNemar test leaves to chance.

    Of d prompts that turned, a net change of at most d − 2x is no finding, x the least number of turns to the
    rarer side whose binomial tail is not below (1 − confidence) / 2.
    """
    n, turned = len(before), sum(one != two for one, two in zip(before, after, strict=True))
    if n == 0:
        return NO_SPAN
    rarer = float(sps.binom.ppf((1 - confidence) / 2, turned, 0.5)) if turned else 0.0
    half, middle = (turned - 2 * rarer) / n, sum(before) / n
    return middle - half, middle + half
