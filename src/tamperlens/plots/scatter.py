"""Causal scatter: what each candidate direction takes away and what it brings about."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from tamperlens.base.errors import InputError
from tamperlens.plots.plot import Plot
from tamperlens.plots.style import BLUE, GREY, INK, PAPER, VERMILLION, WIDTH_INCHES, layout, settle, style

COLUMNS = ("position", "layer", "bypass", "induce", "passed", "chosen")
ABLATED = "log-odds of refusing harmful prompts while ablated"
ADDED = "log-odds of refusing harmless prompts while added"


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
    alt = (
        f"{len(rows)} candidates, {int(passed.sum())} pass the filters. "
        f"Selected: layer {int(best['layer'])}, position {int(best['position'])}: "
        f"{best['bypass']:.1f} ablated, {best['induce']:.1f} added."
    )
    parts = [
        ("fails a filter", rows[~passed], GREY, False),
        ("passes every filter", rows[passed], BLUE, True),
    ]
    with style():
        still = settle(_still(parts, rows[chosen], baseline))
    return Plot(name, title, caption, alt, _interactive(parts, rows[chosen], baseline), still)


Part = tuple[str, pd.DataFrame, str, bool]


def _still(parts: list[Part], chosen: pd.DataFrame, baseline: tuple[float, float]) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axvline(baseline[0], color=GREY, lw=0.9, ls=(0, (4, 2)))
    axes.axhline(baseline[1], color=GREY, lw=0.9, ls=(0, (4, 2)))
    axes.axhline(0, color=GREY, lw=0.6, ls=":")
    for label, rows, colour, filled in parts:
        if len(rows):
            axes.scatter(
                rows["bypass"], rows["induce"], s=26, c=colour if filled else "none", ec=colour, lw=1.0,
                label=label,
            )  # fmt: skip
    if len(chosen):
        axes.scatter(chosen["bypass"], chosen["induce"], s=150, c="none", ec=VERMILLION, lw=1.8)
        row = chosen.iloc[0]
        left = row["bypass"] > float(np.mean(axes.get_xlim()))
        axes.annotate(
            f"selected: layer {int(row['layer'])}, position −{-int(row['position'])}",
            (row["bypass"], row["induce"]), xytext=(-9 if left else 9, -12), textcoords="offset points",
            ha="right" if left else "left", fontsize=8, color=INK, va="top",
            bbox={"fc": PAPER, "ec": "none", "pad": 0.8, "alpha": 0.8},
        )  # fmt: skip
    axes.set_xlabel(ABLATED)
    axes.set_ylabel(ADDED.replace(" while", "\nwhile"))
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _interactive(parts: list[Part], chosen: pd.DataFrame, baseline: tuple[float, float]) -> go.Figure:
    figure = go.Figure()
    for label, rows, colour, filled in parts:
        figure.add_trace(
            go.Scatter(
                x=rows["bypass"], y=rows["induce"], mode="markers", name=label,
                customdata=rows[["layer", "position"]],
                marker={"color": colour, "size": 9, "symbol": "circle" if filled else "circle-open"},
                hovertemplate="layer %{customdata[0]}, position %{customdata[1]}<br>"
                "ablated %{x:.2f}, added %{y:.2f}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=chosen["bypass"], y=chosen["induce"], mode="markers", name="selected", hoverinfo="skip",
            marker={"color": VERMILLION, "size": 18, "symbol": "circle-open", "line": {"width": 3}},
        )
    )  # fmt: skip
    figure.add_vline(x=baseline[0], line={"color": GREY, "dash": "dash", "width": 1})
    figure.add_hline(y=baseline[1], line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(
        layout(height=520, xaxis={"title": {"text": ABLATED}}, yaxis={"title": {"text": ADDED}})
    )
    return figure
