"""Drift of the same groups in two trainings: which moved further, matrix by matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats as sps

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.drift.trace import WHOLE, DriftTrace
from tamperlens.drift.verdict import FEWEST_SEEDS, standard_errors


@dataclass(frozen=True)
class DriftChange(Result):
    """How much further each group drifted in one training than in another.

    Attributes:
        rows: one row per group: group, value (drift after / drift before, geometric mean over matrices), low,
            high (95 %, t over matrices and seeds), n (matrices with drift in both), n_seeds.
        measure: of drift.
    """

    rows: pd.DataFrame = field(compare=False)
    measure: str

    def summary(self) -> str:
        """The ratios in words."""
        listed = "; ".join(
            f"{row['group']} {row['value']:.2f} times [{row['low']:.2f}, {row['high']:.2f}], "
            f"{row['n']} matrices"
            for row in self.rows.to_dict("records")
        )
        seeds = int(self.rows["n_seeds"].min())
        only = (
            ""
            if seeds >= FEWEST_SEEDS
            else f" With {seeds} seed{'s' * (seeds > 1)} this holds for these runs only."
        )
        return f"Drift ({self.measure}) after over before: {listed}.{only}"


def compare(
    before: DriftTrace | Sequence[DriftTrace],
    after: DriftTrace | Sequence[DriftTrace],
    *,
    measure: str = "relative_l2",
) -> DriftChange:
    """Compare the drift of two trainings at their last steps, paired over matrices.

    Args:
        before: one trace, or one per seed.
        after: likewise, as many, of the same groups; seeds are paired in order.
        measure: a measure that is a positive number per matrix.

    Raises:
        InputError: no traces, unequal numbers of them, or no group in common.

    Examples:
        >>> drift.compare(plain.recordings[0], frozen.recordings[0]).to_frame()  # doctest: +SKIP
    """
    one, two = ([t] if isinstance(t, DriftTrace) else list(t) for t in (before, after))
    if not one or len(one) != len(two):
        raise InputError(f"{len(one)} traces before and {len(two)} after; give as many, one per seed")
    tables = [[trace.table(measure) for trace in side] for side in (one, two)]
    shared = [g for g in tables[0][0] if g != WHOLE and all(g in t for side in tables for t in side)]
    if not shared:
        raise InputError("the traces have no group in common; record both with the same drift.groups(...)")
    index = tables[0][0].index
    rows = []
    for group in shared:
        mine, theirs = (np.stack([t[group].reindex(index).to_numpy(float) for t in side]) for side in tables)
        good = (np.isfinite(mine) & np.isfinite(theirs) & (mine > 0) & (theirs > 0)).all(0)
        row = {"group": group, "value": math.nan, "low": math.nan, "high": math.nan}
        if good.sum() > 1:
            x = np.log(theirs[:, good] / mine[:, good])
            reach = max(float(sps.t.ppf(0.975, df)) * error for error, df in standard_errors(x))
            mean = float(x.mean())
            row |= {"value": math.exp(mean), "low": math.exp(mean - reach), "high": math.exp(mean + reach)}
        rows.append(row | {"n": int(good.sum()), "n_seeds": len(one)})
    return DriftChange(pd.DataFrame(rows), measure)
