"""Two shares against each other: what is lost on one axis against what is lost on the other."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    MARKERS,
    MUTED,
    PAPER,
    PLOTLY_MARKERS,
    SERIES,
    WIDTH_INCHES,
    layout,
    percent,
    settle,
    short,
    style,
)

COLUMNS = ("series", "label", "x", "x_low", "x_high", "y", "y_low", "y_high")


def tradeoff(frame: pd.DataFrame, *, name: str, title: str, caption: str, x_axis: str, y_axis: str) -> Plot:
    """Points with intervals both ways, one marker and colour per series, labels beside the points.

    Args:
        frame: columns `series`, `label` (empty: none is written), `x`, `x_low`, `x_high`, `y`, `y_low`,
            `y_high`, shares in [0, 1].
        name: file stem.
        title: a few words.
        caption: how to read it.
        x_axis: label of the horizontal axis.
        y_axis: label of the vertical axis.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, COLUMNS, "tradeoff")
    alt = "; ".join(
        f"{row['label'] or row['series']}: {x_axis} {percent(row['x'])}, {y_axis} {percent(row['y'])}"
        for row in frame.to_dict("records")
        if row["label"]
    )
    with style():
        still = settle(_still(frame, x_axis, y_axis))
    return Plot(name, title, caption, f"{alt}.", _interactive(frame, x_axis, y_axis), still)


def _spread(part: pd.DataFrame, axis: str) -> tuple[pd.Series, pd.Series]:
    below = (part[axis] - part[f"{axis}_low"]).clip(lower=0)
    return below, (part[f"{axis}_high"] - part[axis]).clip(lower=0)


def _still(frame: pd.DataFrame, x_axis: str, y_axis: str) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (series, part) in enumerate(frame.groupby("series", sort=False)):
        colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        axes.errorbar(
            part["x"], part["y"], xerr=_spread(part, "x"), yerr=_spread(part, "y"), color=colour,
            marker=marker, ms=5.5, mec=PAPER, mew=0.6, ls="", elinewidth=0.9, alpha=0.95,
            label=short(str(series)), zorder=3,
        )  # fmt: skip
    for row, shift in zip(*_label_places(frame), strict=True):
        axes.annotate(
            short(str(row["label"]), 24), (row["x"], row["y"]), xytext=shift,
            textcoords="offset points", fontsize=7, color=MUTED,
            ha="left" if shift[0] > 0 else "right", va="center", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        )  # fmt: skip
    axes.set_xlim(-0.03, 1.06)
    axes.set_ylim(-0.04, 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(x_axis)
    axes.set_ylabel(y_axis)
    axes.grid()
    figure.legend(loc="outside upper left", ncols=min(4, frame["series"].nunique()))
    return figure


def _label_places(frame: pd.DataFrame) -> tuple[list[dict[str, object]], list[tuple[float, float]]]:
    """Offsets that keep labels of near points apart: each takes the next free height on its side."""
    rows = [dict(row) for row in frame.to_dict("records") if row["label"]]
    rows.sort(key=lambda row: (row["x"] > 0.6, -row["y"]))
    shifts: list[tuple[float, float]] = []
    last: dict[bool, float] = {}
    for row in rows:
        left = bool(row["x"] > 0.6)
        # 1.0 of the axis is about 250 points high; labels need 9 of them
        wanted = row["y"] * 250.0
        place = min(wanted, last.get(left, 1e9) - 9.0)
        last[left] = place
        # above the whiskers, which go sideways from the point
        shifts.append((-5.0 if left else 5.0, place - wanted + 6.5))
    return [{str(k): v for k, v in row.items()} for row in rows], shifts


def _interactive(frame: pd.DataFrame, x_axis: str, y_axis: str) -> go.Figure:
    figure = go.Figure()
    for index, (series, part) in enumerate(frame.groupby("series", sort=False)):
        bars = {}
        for axis in ("x", "y"):
            below, above = _spread(part, axis)
            bars[f"error_{axis}"] = {
                "type": "data", "symmetric": False, "array": above, "arrayminus": below,
                "thickness": 1.2, "width": 0,
            }  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=part["x"],
                y=part["y"],
                mode="markers",
                name=html.escape(short(str(series))),
                marker={
                    "symbol": PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)],
                    "size": 11,
                    "color": SERIES[index % len(SERIES)],
                },
                text=[html.escape(short(str(label))) for label in part["label"]],
                hovertemplate="%{text}<br>" + f"{html.escape(x_axis)} %{{x:.1%}}<br>"
                f"{html.escape(y_axis)} %{{y:.1%}}<extra></extra>",
                **bars,
            )
        )
    figure.update_layout(
        layout(
            height=560,
            xaxis={"range": [-0.03, 1.06], "tickformat": ".0%", "title": {"text": x_axis}},
            yaxis={"range": [-0.04, 1.06], "tickformat": ".0%", "title": {"text": y_axis}},
        )
    )
    return figure
