"""Causal scatter: what each candidate direction takes away and what it brings about."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot
from tamperlens.plots.style import BLUE, GREY, INK, PAPER, VERMILLION

COLUMNS = ("position", "layer", "bypass", "induce", "passed", "chosen")
ABLATED = "log-odds of refusing harmful prompts while ablated"
ADDED = "log-odds of refusing harmless prompts\nwhile added"
HOVER = "layer %{customdata[0]}, position %{customdata[1]}<br>ablated %{x:.2f}, added %{y:.2f}<extra></extra>"


def causal_scatter(
    table: pd.DataFrame,
    *,
    baseline: tuple[float, float],
    caption: str,
    name: str = "causal_scatter",
    title: str = "What each candidate direction does",
) -> Plot:
    """Bypass against induce for every candidate; the selected one is marked.

    Args:
        table: columns position, layer, bypass, induce, passed, chosen (`Direction.to_frame`).
        baseline: log-odds on (harmful, harmless) prompts with nothing changed, drawn as lines.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or no candidate was scored.
    """
    missing = [column for column in COLUMNS if column not in table]
    rows = table.dropna(subset=["bypass", "induce"]) if not missing else table
    if missing or rows.empty:
        raise InputError(f"causal_scatter needs scored candidates; missing: {missing or 'rows'}")
    passed, chosen = rows["passed"].astype(bool), rows["chosen"].astype(bool)
    best = rows[chosen].iloc[0] if chosen.any() else rows.iloc[0]
    place = f"layer {int(best['layer'])}, position"
    alt = (
        f"{len(rows)} candidates, {int(passed.sum())} pass the filters. Selected: {place} "
        f"{int(best['position'])}: {best['bypass']:.1f} ablated, {best['induce']:.1f} added."
    )
    with Canvas(3.4, 520, x=ABLATED, y=ADDED, grid="both") as canvas:
        canvas.rule("x", baseline[0])
        canvas.rule("y", baseline[1])
        for label, part, colour in (
            ("fails a filter", rows[~passed], GREY), ("passes every filter", rows[passed], BLUE),
        ):  # fmt: skip
            canvas.line(
                part["bypass"], part["induce"], label, colour, join=False, marker="o", filled=colour == BLUE,
                customdata=part[["layer", "position"]], hovertemplate=HOVER,
            )  # fmt: skip
        if chosen.any():
            at = (best["bypass"], best["induce"])
            canvas.line(
                [at[0]], [at[1]], "selected", VERMILLION, join=False, marker="o", size=11, filled=False
            )
            left = at[0] > float(np.mean(canvas.axes[0].get_xlim()))
            canvas.axes[0].annotate(
                f"selected: {place} −{-int(best['position'])}", at, xytext=(-9 if left else 9, -12),
                textcoords="offset points", ha="right" if left else "left", fontsize=8, color=INK, va="top",
                bbox={"fc": PAPER, "ec": "none", "pad": 0.8, "alpha": 0.8},
            )  # fmt: skip
    return canvas.plot(name, title, caption, alt)
