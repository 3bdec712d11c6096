"""A number over training steps with its interval, and the band of its null."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    GREY,
    MARKERS,
    PAPER,
    PLOTLY_MARKERS,
    SERIES,
    WIDTH_INCHES,
    band,
    layout,
    reach,
    settle,
    style,
    whiskers,
)

COLUMNS = ("step", "value", "low", "high", "null", "null_low", "null_high")


def band_over_steps(
    frame: pd.DataFrame,
    *,
    caption: str,
    axis: str,
    name: str = "over_steps",
    title: str = "Over training steps",
    null: str = "other prompts of the base",
    across: str = "optimiser step",
) -> Plot:
    """One line per series with intervals, on the band of the null.

    Args:
        frame: columns step, value, low, high, null, null_low, null_high (NaN where there is none), and
            `series` where there are several lines. The band is the first series'.
        caption: how to read it.
        axis: label of the vertical axis, with its unit.
        name: file stem.
        title: a few words.
        null: what the band is called.
        across: label of the horizontal axis.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, COLUMNS, "band_over_steps")
    data = frame.sort_values("step")
    groups: list[tuple[str, pd.DataFrame]] = [("", data)]
    if "series" in data:
        groups = [(str(label), rows) for label, rows in data.groupby("series", sort=False)]
    first = groups[0][1]
    last = ", ".join(f"{label or axis} {rows['value'].iloc[-1]:.3g}" for label, rows in groups)
    alt = f"{across.capitalize()} {data['step'].min()} to {data['step'].max()}; at the end: {last}."
    if np.isfinite(first["null"]).any():
        row = first[np.isfinite(first["null"])].iloc[-1]
        alt += f" The null is {row['null']:.3g} [{row['null_low']:.3g}, {row['null_high']:.3g}]."
    with style():
        still = settle(_still(groups, axis, null, across))
    return Plot(name, title, caption, alt, _interactive(groups, axis, null, across), still)


def _beside(groups: list[tuple[str, pd.DataFrame]], i: int) -> pd.Series:
    """Steps of a series, a hundredth of the axis beside the next, so that no whisker hides another's."""
    every = pd.concat([rows["step"] for _, rows in groups])
    reach = float(every.max() - every.min())
    return groups[i][1]["step"] + 0.01 * reach * (i - (len(groups) - 1) / 2)


def _still(groups: list[tuple[str, pd.DataFrame]], axis: str, null: str, across: str) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 2.8), layout="constrained")
    axes = figure.subplots()
    first = groups[0][1]
    handles: list[Any] = []
    if np.isfinite(first["null_low"]).any():
        area = axes.fill_between(
            first["step"], first["null_low"], first["null_high"], color=GREY, alpha=0.25, lw=0
        )
        handles.append((area, *axes.plot(first["step"], first["null"], color=GREY, lw=1.2, ls=(0, (4, 2)))))
    for i, (_, rows) in enumerate(groups):
        at = _beside(groups, i)
        line = axes.errorbar(
            at, rows["value"], yerr=reach(rows), marker=MARKERS[i % 7],
            color=SERIES[(i + 1) % 7], ms=4, mec=PAPER, mew=0.5, lw=1.4, elinewidth=1.2,
        )  # fmt: skip
        handles.append(line)
    axes.set_xlabel(across)
    axes.set_ylabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    names = [null] * (len(handles) - len(groups)) + [label or axis for label, _ in groups]
    figure.legend(handles, names, loc="outside upper left", ncols=3 if len(names) < 4 else 2)
    return figure


def _interactive(groups: list[tuple[str, pd.DataFrame]], axis: str, null: str, across: str) -> go.Figure:
    figure = go.Figure()
    first = groups[0][1]
    if np.isfinite(first["null_low"]).any():
        figure.add_traces(band(first["step"], first["null_low"], first["null_high"], null))
    for i, (label, rows) in enumerate(groups):
        figure.add_trace(
            go.Scatter(
                x=rows["step"], y=rows["value"], mode="lines+markers", name=label or axis,
                error_y=whiskers(rows),
                line={"color": SERIES[(i + 1) % 7]}, marker={"symbol": PLOTLY_MARKERS[i % 7], "size": 8},
            )
        )  # fmt: skip
    figure.update_layout(
        layout(height=460, xaxis={"title": {"text": across}}, yaxis={"title": {"text": axis}})
    )
    return figure
