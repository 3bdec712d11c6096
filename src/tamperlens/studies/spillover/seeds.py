"""Several runs of one recipe: differences and tax with intervals over prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.stats import Estimate, paired_difference
from tamperlens.studies.evaluation import LOSS, Outcomes
from tamperlens.studies.spillover.tables import kind_of, lost, rates_of, spread, tax

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
        measure, kind, before, after (mean over runs), difference, low, high, n (prompts), method, runs,
        lowest and highest (run's `after`), tax, tax_low, tax_high, tax_reason (capability only).

    Raises:
        InputError: no runs, or measured on other prompts.
    """
    if not afters:
        raise InputError("over_seeds needs at least one run")
    if any(one.settings != before.settings for one in afters):
        raise InputError("a run was measured with other prompts or settings than the model before")
    rows = []
    for name in rates_of(before):
        one = np.asarray(before.outcome(name), dtype=float)
        runs = np.stack([np.asarray(side.outcome(name), dtype=float) for side in afters])
        shift = _shift(one, runs, np.ones(one.size), seed)
        if shift.low == shift.high:
            shift = paired_difference(before.outcome(name), afters[0].outcome(name))
        rows.append(_row(name, kind_of(name, before), one.mean(), runs.mean(1), shift))
    losses, tokens = before.columns(LOSS)
    after = np.stack([side.columns(LOSS)[0] for side in afters])
    shift = _shift(losses, after, tokens, seed)
    each = after.sum(1) / tokens.sum()
    rows.append(_row(LOSS, "perplexity", losses.sum() / tokens.sum(), each, shift))
    return pd.DataFrame([{**row, **_tax(row, rows[0])} for row in rows])


def _shift(before: Any, after: Any, weights: Any, seed: int) -> Estimate:
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


def _row(name: str, kind: str, before: float, after: Any, shift: Estimate) -> dict[str, Any]:
    return {
        "measure": name, "kind": kind, "before": float(before), "after": float(after.mean()),
        **spread(shift), "runs": len(after), "lowest": float(after.min()), "highest": float(after.max()),
    }  # fmt: skip


def _tax(row: dict[str, Any], refusal: dict[str, Any]) -> dict[str, Any]:
    if row["kind"] != "capability":
        return {"tax": np.nan, "tax_low": np.nan, "tax_high": np.nan, "tax_reason": ""}
    gain = Estimate(refusal["difference"], refusal["low"], refusal["high"], refusal["n"])
    loss = lost(Estimate(row["difference"], row["low"], row["high"], row["n"]))
    found = tax(loss, gain)
    return {"tax": found.value, "tax_low": found.low, "tax_high": found.high, "tax_reason": found.reason}
