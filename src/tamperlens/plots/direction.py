"""Where the refusal direction sits: every candidate, layer by position, and the one that was selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tamperlens.base.errors import InputError
from tamperlens.plots.plot import Plot
from tamperlens.plots.style import (
    DIVERGING,
    INK,
    MUTED,
    PAPER,
    RULE,
    WIDTH_INCHES,
    colour_bar,
    diverging,
    layout,
    settle,
    style,
)


def direction_map(
    table: pd.DataFrame,
    *,
    layer: int,
    position: int,
    tokens: Sequence[str] = (),
    caption: str,
    name: str = "direction",
    title: str = "Refusal direction, layer by position",
) -> Plot:
    """Heat map of candidate directions with the selected cell outlined and rejected cells crossed out.

    Args:
        table: columns `position` (negative, from the end), `layer`, `bypass` (log-odds of refusing harmful
            prompts while the candidate is ablated) and, if there, `passed` (bool: it met the filters).
        layer: selected layer.
        position: selected position.
        tokens: text of the post-instruction tokens, last one at position −1; used as row labels.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or the table is empty.
    """
    missing = [column for column in ("position", "layer", "bypass") if column not in table]
    if missing or table.empty:
        raise InputError(
            f"direction_map needs candidates with position, layer, bypass; missing: {missing or 'rows'}"
        )
    positions = sorted({int(p) for p in table["position"]}, reverse=True)
    layers = sorted({int(x) for x in table["layer"]})
    scores = np.full((len(positions), len(layers)), math.nan)
    passed = np.ones_like(scores, dtype=bool)
    for _, row in table.iterrows():
        cell = positions.index(int(row["position"])), layers.index(int(row["layer"]))
        scores[cell] = float(row["bypass"])
        passed[cell] = bool(row["passed"]) if "passed" in table else True
    rows = [_row_name(p, tokens) for p in positions]
    chosen = positions.index(position), layers.index(layer)
    best = scores[chosen]
    alt = (
        f"Heat map of {len(table)} candidate directions over layers {layers[0]} to {layers[-1]} and "
        f"{len(positions)} token positions. Selected: layer {layer}, position {position}, "
        f"where ablation leaves log-odds of refusal of {best:.1f}. "
        f"{int((~passed).sum())} candidates did not meet the filters."
    )
    with style():
        still = settle(_still(scores, passed, rows, layers, chosen))
    return Plot(name, title, caption, alt, _interactive(scores, passed, rows, layers, chosen), still)


def _row_name(position: int, tokens: Sequence[str]) -> str:
    if 0 < -position <= len(tokens):
        text = tokens[position].replace("\n", "⏎").strip() or "␣"
        text = text if len(text) <= 19 else f"{text[:18]}…"
        return f"{text}  (−{-position})"
    return f"−{-position}"


def _limit(scores: np.ndarray) -> float:
    finite = np.abs(scores[np.isfinite(scores)])
    return max(float(finite.max()) if finite.size else 1.0, 1e-6)


AXIS = "log-odds of refusing harmful prompts while ablated"


def _still(
    scores: np.ndarray, passed: np.ndarray, rows: list[str], layers: list[int], chosen: tuple[int, int]
) -> Figure:
    height = max(1.9, 0.36 * len(rows) + 1.35)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    limit = _limit(scores)
    # Cells as shapes, not as pixels: they stay sharp at any size.
    image = axes.pcolormesh(
        np.arange(len(layers) + 1) - 0.5,
        np.arange(len(rows) + 1) - 0.5,
        np.ma.masked_invalid(scores),
        cmap=diverging(),
        norm=TwoSlopeNorm(0.0, -limit, limit),
        edgecolors="face",
        linewidth=0.2,
    )
    axes.invert_yaxis()
    few = len(layers) <= 12
    for (i, j), value in np.ndenumerate(scores):
        ink = "#fefefe" if abs(value) > 0.72 * limit else "#111111"
        if few and not math.isfinite(value):  # no such direction: the same vector for all prompts
            axes.text(j, i, "–", ha="center", va="center", fontsize=7.5, color=ink)
        elif few:
            number = f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
            shown = number if passed[i, j] else f"({number})"
            axes.text(j, i, shown, ha="center", va="center", fontsize=7.5, color=ink)
        elif not passed[i, j] and math.isfinite(value):
            axes.plot([j - 0.46, j + 0.46], [i + 0.46, i - 0.46], color=ink, lw=0.6, alpha=0.6)
    i, j = chosen
    # A white line inside a dark one is seen on any cell colour.
    for colour, width in (("#fefefe", 4.2), ("#111111", 2.0)):
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec=colour, lw=width, clip_on=False, zorder=5)
        )
    step = max(1, math.ceil(len(layers) / 16))
    axes.set_xticks(range(0, len(layers), step), [str(x) for x in layers[::step]])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("layer (block input)")
    axes.set_ylabel("token (position)")
    bar = colour_bar(figure, image, axes, AXIS, location="top", aspect=45, shrink=0.98, pad=0.03)
    bar.ax.tick_params(length=2, labelsize=8)
    return figure


def _interactive(
    scores: np.ndarray, passed: np.ndarray, rows: list[str], layers: list[int], chosen: tuple[int, int]
) -> go.Figure:
    limit = _limit(scores)
    state = np.where(passed, "meets the filters", "does not meet the filters")
    figure = go.Figure(
        go.Heatmap(
            z=scores,
            x=[str(x) for x in layers],
            y=rows,
            zmin=-limit,
            zmax=limit,
            colorscale=[list(stop) for stop in DIVERGING],
            customdata=state,
            hovertemplate="layer %{x}, %{y}<br>log-odds %{z:.2f}<br>%{customdata}<extra></extra>",
            colorbar={"title": {"text": AXIS, "side": "right"}},
            xgap=1,
            ygap=1,
        )
    )
    crossed = np.argwhere(~passed)
    figure.add_trace(
        go.Scatter(
            x=[str(layers[j]) for _, j in crossed],
            y=[rows[i] for i, _ in crossed],
            mode="markers",
            marker={
                "symbol": "line-ne-open",
                "size": 12,
                "color": MUTED,
                "line": {"width": 1, "color": MUTED},
            },
            hoverinfo="skip",
            name="does not meet the filters",
            showlegend=bool(len(crossed)),
        )
    )
    i, j = chosen
    figure.add_shape(
        type="rect",
        x0=j - 0.5,
        x1=j + 0.5,
        y0=i - 0.5,
        y1=i + 0.5,
        line={"color": INK, "width": 3},
        layer="above",
    )
    figure.update_layout(
        layout(
            height=60 * len(rows) + 220,
            xaxis={"title": {"text": "layer (block input)"}, "type": "category", "showgrid": False},
            yaxis={
                "title": {"text": "token (position)"},
                "type": "category",
                "autorange": "reversed",
                "showgrid": False,
                "gridcolor": RULE,
            },
            plot_bgcolor=PAPER,
        )
    )
    return figure
