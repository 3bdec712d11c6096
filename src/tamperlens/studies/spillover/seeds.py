"""Several runs of one recipe: differences and tax with intervals over prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.measurement import Difference, Measurement, table
from tamperlens.base.stats import Estimate, paired_difference
from tamperlens.studies.evaluation import LOSS, Outcomes
from tamperlens.studies.spillover.tables import rates_of, tax_rows

RESAMPLES = 2000


def over_seeds(before: Outcomes, afters: Sequence[Outcomes], *, seed: int = 0) -> pd.DataFrame:
    """One model before, several runs after: the mean change of every measure, and the tax of every suite.

    Intervals are percentile bootstraps that resample prompts and runs, both, because both are samples; where
    all prompts of all runs agree, so that nothing varies, Newcombe's over prompts. With few runs the spread
    between them is known poorly: read the runs one by one too.

    Args:
        before: the model before, from `evaluation.measure`.
        afters: the model after each run, asked the same prompts.
        seed: of the bootstrap.

    Returns:
        measure, set, before, after (mean over runs), difference, low, high, n (prompts), method, runs,
        lowest and highest (run's `after`), tax, tax_low, tax_high, tax_reason (of questions only).

    Raises:
        InputError: no runs, or measured on other prompts.
    """
    if not afters:
        raise InputError("over_seeds needs at least one run")
    if any(one.settings != before.settings for one in afters):
        raise InputError("a run was measured with other prompts or settings than the model before")
    rows: list[Difference] = []
    each: list[dict[str, Any]] = []

    def add(name: str, first: float, runs: Any, shift: Estimate) -> None:
        rows.append(Difference(name, before.set_of(name), first, float(runs.mean()), shift))
        each.append({"runs": len(runs), "lowest": float(runs.min()), "highest": float(runs.max())})

    for name in rates_of(before):
        one = np.asarray(before.outcome(name), dtype=float)
        runs = np.stack([np.asarray(side.outcome(name), dtype=float) for side in afters])
        shift = shifted(one, runs, np.ones(one.size), seed)
        if shift.low == shift.high:
            shift = paired_difference(before.outcome(name), afters[0].outcome(name))
        add(name, float(one.mean()), runs.mean(1), shift)
    losses, tokens = before.columns(LOSS)
    after = np.stack([side.columns(LOSS)[0] for side in afters])
    add(
        LOSS,
        float(losses.sum() / tokens.sum()),
        after.sum(1) / tokens.sum(),
        shifted(losses, after, tokens, seed),
    )
    taxes = {one.set: one for one in tax_rows(rows)}
    nothing = Measurement("tax", "", "after", math.nan)
    for row, more in zip(rows, each, strict=True):
        tax = taxes.get(row.measure, nothing)
        more |= {"tax": tax.value, "tax_low": tax.low, "tax_high": tax.high, "tax_reason": tax.reason}
    columns = ("measure", "set", "before", "after", "difference", "low", "high", "n", "method")
    return pd.concat([table(rows, columns), pd.DataFrame(each)], axis=1)


def shifted(before: Any, after: Any, weights: Any, seed: int) -> Estimate:
    """Mean over runs of Σ(after − before)/Σ weights, resampling units and runs."""
    gap = after - before
    runs, n = gap.shape
    generator = np.random.default_rng(seed)
    samples = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        at, which = generator.integers(0, n, n), generator.integers(0, runs, runs)
        samples[i] = gap[which][:, at].sum(1).mean() / weights[at].sum()
    low, high = np.quantile(samples, [0.025, 0.975])
    value = float(gap.sum(1).mean() / weights.sum())
    return Estimate(value, float(low), float(high), n, "bootstrap 95% over prompts and runs")
