"""Dose curves: a rate against a dose, one line per series, one panel per rate."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from plotly.subplots import make_subplots

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    MARKERS,
    PAPER,
    PLOTLY_MARKERS,
    SERIES,
    WIDTH_INCHES,
    layout,
    percent,
    reach,
    settle,
    short,
    style,
    whiskers,
)

COLUMNS = ("panel", "series", "dose", "value", "low", "high")


def dose_curve(frame: pd.DataFrame, *, name: str, title: str, caption: str, x_axis: str, y_axis: str) -> Plot:
    """Shares against a dose, panels side by side; doses stand at equal distances, in ascending order.

    Args:
        frame: columns `panel`, `series`, `dose` (a number), `value`, `low`, `high` (shares).
        name: file stem.
        title: a few words.
        caption: how to read it.
        x_axis: what the dose is.
        y_axis: what the shares are.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, COLUMNS, "dose_curve")
    doses = sorted(float(dose) for dose in frame["dose"].unique())
    places = frame.assign(at=[doses.index(dose) for dose in frame["dose"]])
    ends = frame[frame["dose"].isin((doses[0], doses[-1]))]
    alt = "; ".join(
        f"{panel}, {series}: "
        + ", ".join(f"{percent(v)} at {d:g}" for d, v in zip(p["dose"], p["value"], strict=True))
        for (panel, series), p in ends.groupby(["panel", "series"], sort=False)
    )
    with style():
        still = settle(_still(places, doses, x_axis, y_axis))
    return Plot(name, title, caption, f"{alt}.", _interactive(places, doses, x_axis, y_axis), still)


def _still(frame: pd.DataFrame, doses: list[float], x_axis: str, y_axis: str) -> Figure:
    panels, series = list(dict.fromkeys(frame["panel"])), list(dict.fromkeys(frame["series"]))
    figure = Figure(figsize=(WIDTH_INCHES, 3.0), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axes in zip(panels, grid, strict=True):
        for index, which in enumerate(series):
            part = frame[(frame["panel"] == panel) & (frame["series"] == which)].sort_values("at")
            axes.errorbar(
                part["at"] + 0.07 * (index - (len(series) - 1) / 2), part["value"], yerr=reach(part),
                color=SERIES[index % len(SERIES)], marker=MARKERS[index % len(MARKERS)], ms=5, mec=PAPER,
                mew=0.6, lw=1.3, elinewidth=0.9, label=short(str(which)) if axes is grid[0] else None,
            )  # fmt: skip
        axes.set_title(short(str(panel), 30))
        axes.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses])
        axes.set_xlim(-0.4, len(doses) - 0.6)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(axis="y")
    grid[0].set_ylabel(y_axis)
    figure.supxlabel(x_axis, fontsize=9)
    figure.legend(loc="outside upper left", ncols=min(len(series), 4))
    return figure


def _interactive(frame: pd.DataFrame, doses: list[float], x_axis: str, y_axis: str) -> go.Figure:
    panels = list(dict.fromkeys(frame["panel"]))
    figure = make_subplots(
        1, len(panels), subplot_titles=[short(str(p), 40) for p in panels], shared_yaxes=True
    )
    for column, panel in enumerate(panels, start=1):
        for index, which in enumerate(dict.fromkeys(frame["series"])):
            part = frame[(frame["panel"] == panel) & (frame["series"] == which)].sort_values("at")
            figure.add_trace(
                go.Scatter(
                    x=part["at"], y=part["value"], name=short(str(which), 60), legendgroup=str(which),
                    showlegend=column == 1, mode="lines+markers",
                    line={"color": SERIES[index % len(SERIES)]},
                    marker={"symbol": PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)], "size": 9},
                    error_y=whiskers(part, thickness=1),
                    hovertemplate="%{y:.1%}<extra>" + short(str(which), 60) + "</extra>",
                ),
                row=1, col=column,
            )  # fmt: skip
    figure.update_layout(layout(height=460))
    figure.update_xaxes(
        tickvals=list(range(len(doses))), ticktext=[f"{dose:g}" for dose in doses], title={"text": x_axis}
    )
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(title={"text": y_axis}, row=1, col=1)
    return figure
