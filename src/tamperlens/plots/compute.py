"""A share against attack compute, model by model, and the compute to half of it against model size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    MARKERS,
    MUTED,
    PAPER,
    PLOTLY_MARKERS,
    SERIES,
    WIDTH_INCHES,
    layout,
    reach,
    settle,
    style,
    whiskers,
)

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
DOTS = ("series", "size", "flops", "value", "low", "high")
HALF = ("series", "size", "value", "low", "high", "reason")


def compute_curve(
    dots: pd.DataFrame,
    lines: pd.DataFrame,
    half: pd.DataFrame,
    *,
    caption: str,
    axis: str,
    name: str = "scaling",
    title: str = "Against attack compute",
) -> Plot:
    """Cells with intervals and fitted lines over FLOPs; beside them the compute to half by model size.

    Args:
        dots: columns series, size (parameters), flops, value, low, high; one row a cell.
        lines: columns series, flops, value: the fit, only where it was observed.
        half: columns series, size, value, low, high, reason; NaN with a reason where not reached, an infinite
            `high` for an open upper end.
        caption: how to read it.
        axis: label of the vertical axis.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or there are no cells.
    """
    for frame, wanted, what in ((dots, DOTS, "dots"), (half, HALF, "half")):
        need_columns(frame, wanted, f"compute_curve ({what})")
    groups = [(str(label), rows) for label, rows in dots.groupby("series", sort=False)]
    words = "; ".join(
        f"{row['series']} {row['value']:.2g} FLOPs"
        if math.isfinite(row["value"])
        else f"{row['series']}: {row['reason']}"
        for _, row in half.iterrows()
    )
    with style():
        still = settle(_still(groups, lines, half, axis))
    return Plot(name, title, caption, f"To half refusal: {words}.", _interactive(groups, lines, axis), still)


def _still(
    groups: list[tuple[str, pd.DataFrame]], lines: pd.DataFrame, half: pd.DataFrame, axis: str
) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    handles: list[Any] = []
    for i, (label, rows) in enumerate(groups):
        colour, marker = SERIES[(i + 1) % 7], MARKERS[i % 7]
        handles.append(
            left.errorbar(rows["flops"], rows["value"], yerr=reach(rows), ls="", marker=marker, color=colour,
                          ms=4, mec=PAPER, mew=0.5, elinewidth=0.9)
        )  # fmt: skip
        line = lines[lines["series"] == label]
        left.plot(line["flops"], line["value"], color=colour, lw=1.3)
        row = half[half["series"] == label].iloc[0]
        _half(right, row, colour, marker)
    _decades(left, "x")
    left.set_ylim(-0.03, 1.05)
    left.set_xlabel("attack compute (FLOPs)")
    left.set_ylabel(axis)
    sizes = half["size"].to_numpy(dtype=float)
    right.set_xscale("log")
    right.set_xticks(sizes, [_size(one) for one in sizes], rotation=35, ha="right")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.xaxis.set_minor_locator(NullLocator())
    _decades(right, "y")
    right.set_xlim(sizes.min() / 1.6, sizes.max() * 1.6)
    right.set_xlabel("parameters")
    right.set_ylabel("FLOPs to half refusal")
    low, high = np.nanmin([half["low"], half["value"]]), half["value"].max()
    if math.isfinite(high):  # a whole decade, so that there is a labelled tick
        right.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(1.2 * high)))
    left.grid(axis="y")
    right.grid(axis="y")
    figure.legend(handles, [label for label, _ in groups], loc="outside upper left", ncols=3)
    return figure


def _decades(axes: Any, which: str) -> None:
    """A logarithmic axis with powers of ten in plain characters (the house style draws no formulas)."""
    axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=10))
    axis.set_major_formatter(FuncFormatter(_power))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float, _: object) -> str:
    return f"10{str(round(math.log10(value))).translate(_RAISED)}"


def _size(parameters: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {name}"
    return f"{parameters:.0f}"


def _half(axes: Any, row: Any, colour: str, marker: str) -> None:
    if row["value"] != row["value"]:
        axes.text(row["size"], 0.03, "not reached", transform=axes.get_xaxis_transform(), rotation=90,
                  ha="center", va="bottom", fontsize=7.5, color=MUTED)  # fmt: skip
        return
    open_end = not np.isfinite(row["high"])
    top = 0.0 if open_end else row["high"] - row["value"]
    axes.errorbar(row["size"], row["value"], yerr=np.clip([[row["value"] - row["low"]], [top]], 0, None),
                  marker=marker, color=colour, ms=5, mec=PAPER, mew=0.5, elinewidth=1.4)  # fmt: skip
    if open_end:
        axes.annotate("open", (row["size"], row["value"]), xytext=(0, 6), textcoords="offset points",
                      ha="center", fontsize=7.5, color=MUTED)  # fmt: skip


def _interactive(groups: list[tuple[str, pd.DataFrame]], lines: pd.DataFrame, axis: str) -> go.Figure:
    figure = go.Figure()
    for i, (label, rows) in enumerate(groups):
        colour = SERIES[(i + 1) % 7]
        figure.add_trace(
            go.Scatter(
                x=rows["flops"], y=rows["value"], mode="markers", name=label, error_y=whiskers(rows),
                marker={"symbol": PLOTLY_MARKERS[i % 7], "size": 8, "color": colour},
            )
        )  # fmt: skip
        line = lines[lines["series"] == label]
        figure.add_trace(
            go.Scatter(
                x=line["flops"], y=line["value"], mode="lines", line={"color": colour}, showlegend=False
            )
        )
    figure.update_layout(
        layout(
            height=480,
            xaxis={"title": {"text": "attack compute (FLOPs)"}, "type": "log"},
            yaxis={"title": {"text": axis}, "range": [-0.03, 1.05]},
        )
    )
    return figure
