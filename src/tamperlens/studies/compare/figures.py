"""Figures of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tamperlens.plots import Plot, dot_interval, ratio_map
from tamperlens.studies.compare.readings import AFTER, BEFORE, LEFT_OUT, SHARE
from tamperlens.studies.compare.result import Comparison

POOLED = ("all questions", "all sets", "both")


def draw(items: Sequence[Comparison]) -> list[Plot]:
    """Rates of base and tuned models together, and the drift of each by layer and module."""
    found = [rates(items)]
    for place, one in enumerate(items):
        plot = drift_map(one, name=f"drift-{place + 1}")
        if plot is not None:
            found.append(plot)
    return found


def rates(items: Sequence[Comparison]) -> Plot:
    """Every share with its interval, base and tuned models beside each other."""
    rows = []
    for one in items:
        for reading in one.readings:
            for row in reading.rows:
                if row.unit != SHARE or row.stage not in (BEFORE, AFTER) or row.set in POOLED:
                    continue
                if row.stage == BEFORE and one is not items[0]:
                    continue  # the base is the same for all
                series = "base" if row.stage == BEFORE else "tuned" if len(items) == 1 else one.tuned
                rows.append(
                    {"panel": row.measure.capitalize(), "label": row.set, "series": series,
                     "value": row.value, "low": row.low, "high": row.high, "n": row.n}
                )  # fmt: skip
    return dot_interval(
        pd.DataFrame(rows), name="rates", title="Shares, base and tuned",
        caption="Dots are shares of the same prompts or questions, whiskers 95 % Wilson intervals.",
        axis="share of prompts",
    )  # fmt: skip


def drift_map(one: Comparison, *, name: str) -> Plot | None:
    """How far each matrix moved against the median one; None where none moved."""
    reading = next((r for r in one.readings if r.instrument == "weights" and r.verdict != LEFT_OUT), None)
    if reading is None:
        return None
    table = reading.tables["drift"]
    moved = table.loc[table["relative_l2"] > 0, "relative_l2"]
    if moved.empty:
        return None
    median = float(moved.median())
    with np.errstate(divide="ignore"):
        logs = np.log2(table["relative_l2"].to_numpy(dtype=float) / median)
    wide = table.assign(log=np.where(np.isfinite(logs), logs, np.nan)).pivot(
        index="layer", columns="module", values="log"
    )
    wide = wide[list(dict.fromkeys(table["module"]))]
    plot = ratio_map(
        wide, name=name, title=f"Drift by layer and module: {one.tuned}", label="log2 (drift / median)",
        caption=f"‖ΔW‖/‖W‖ of each matrix over the median of those that moved ({median:.2g}), log2; "
        "blank: did not move.",
        what="this matrix moved further than the median one",
    )  # fmt: skip
    return dataclasses.replace(plot, name=name)
