"""Figures of drift: over steps with bands, by group at the end, layer × module, and a verdict's ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    DIVERGING,
    GREY,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    WIDTH_INCHES,
    diverging,
    layout,
    settle,
    style,
)

LineStyle = tuple[str, bool, str]


def paired_styles(groups: Mapping[str, str | None]) -> dict[str, LineStyle]:
    """Colour, dashed or not, and marker of each group; a control looks like its group, dashed.

    Args:
        groups: name to the group that it is the control of, or None.
    """
    plain = [group for group, owner in groups.items() if owner is None]
    place = {group: i for i, group in enumerate(plain)}
    found = {}
    for group, owner in groups.items():
        i = place.get(owner or group, len(place))
        found[group] = (SERIES[i % len(SERIES)], owner is not None, MARKERS[i % len(MARKERS)])
    return found


def drift_over_steps(
    frame: pd.DataFrame, styles: Mapping[str, LineStyle], *, name: str, axis: str, caption: str
) -> Plot:
    """Median over matrices (and seeds) by step, a line per group, with the middle half as a band.

    Args:
        frame: columns step, group, value: one row per matrix and run.
        styles: of `paired_styles`.
        name: file stem.
        axis: label of the vertical axis.
        caption: how to read it.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, ("step", "group", "value"), "drift_over_steps")
    # Two columns of the legend: the groups, and beside them their controls.
    styles = dict(sorted(styles.items(), key=lambda item: item[1][1]))
    figure = go.Figure()
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
        axes = still.subplots()
        for group, (colour, dash, marker) in styles.items():
            rows = frame[frame["group"] == group].groupby("step")["value"]
            line = rows.quantile([0.25, 0.5, 0.75]).unstack()  # type: ignore[arg-type]
            if line.empty:
                continue
            axes.fill_between(line.index, line[0.25], line[0.75], color=colour, alpha=0.1, lw=0)
            axes.plot(line.index, line[0.5], color=colour, ls="--" if dash else "-", marker=marker, ms=4,
                      mec=PAPER, mew=0.4, label=group)  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=line.index, y=line[0.5], name=group, mode="lines+markers",
                    line={"color": colour, "dash": "dash" if dash else "solid"},
                    error_y={
                        "type": "data", "symmetric": False, "array": line[0.75] - line[0.5],
                        "arrayminus": line[0.5] - line[0.25], "thickness": 1, "width": 2,
                    },
                )
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        still.legend(loc="outside upper left", ncols=2)
        settle(still)
    figure.update_layout(
        layout(
            height=520,
            margin={"l": 60, "r": 30, "t": 130, "b": 60},
            xaxis={"title": {"text": "optimiser step"}},
            yaxis={"title": {"text": axis}, "rangemode": "tozero"},
        )
    )
    last = frame[frame["step"] == frame["step"].max()].groupby("group", sort=False)["value"].median()
    alt = "Median drift at the last step: " + ", ".join(f"{g} {v:.3g}" for g, v in last.items()) + "."
    return Plot(name, "Drift over training", caption, alt, figure, still)


def drift_by_group(
    values: Mapping[str, np.ndarray], styles: Mapping[str, LineStyle], *, name: str, axis: str, caption: str
) -> Plot:
    """Every matrix as a point, group by group, on a logarithmic axis.

    Args:
        values: group to one positive number per matrix; none is empty.
        styles: of `paired_styles`.
        name: file stem.
        axis: label of the axis.
        caption: how to read it.
    """
    names = list(values)
    rng = np.random.default_rng(0)
    figure = go.Figure()
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.42 * len(names) + 0.9), layout="constrained")
        axes = still.subplots()
        for i, group in enumerate(names):
            v, (colour, dash, marker) = values[group], styles[group]
            axes.scatter(v, i + rng.uniform(-0.2, 0.2, v.size), s=12, color=colour, alpha=0.55, lw=0,
                         marker=marker)  # fmt: skip
            axes.plot([np.median(v)] * 2, [i - 0.34, i + 0.34], color=INK, lw=1.6)
            line = {"width": 1, "color": GREY if dash else colour}
            box = go.Box(
                x=v,
                name=f"{group} (n = {v.size})",
                marker={"color": colour},
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                fillcolor="rgba(0,0,0,0)",
                showlegend=False,
                line=line,
            )
            figure.add_trace(box)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_yticks(range(len(names)), [f"{g}  (n = {values[g].size})" for g in names])
        axes.invert_yaxis()
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        settle(still)
    figure.update_layout(
        layout(
            height=90 + 60 * len(names),
            xaxis={"title": {"text": axis}, "type": "log"},
            yaxis={"autorange": "reversed"},
        )
    )
    alt = "Median by group: " + ", ".join(f"{g} {np.median(values[g]):.3g}" for g in names) + "."
    return Plot(name, "Drift by group at the end", caption, alt, figure, still)


def ratio_map(wide: pd.DataFrame, *, name: str, title: str, label: str, caption: str, what: str) -> Plot:
    """A signed number by layer and module, on a diverging scale around zero.

    Args:
        wide: layers as index, modules as columns; NaN where undefined.
        name: file stem.
        title: a few words.
        label: of the colour bar.
        caption: how to read it.
        what: what a positive number means, for the alternative text.
    """
    grid = wide.to_numpy(float)
    top = max(0.1, float(np.nanmax(np.abs(grid)))) if np.isfinite(grid).any() else 1.0
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.34 * len(wide) + 1.2), layout="constrained")
        axes = still.subplots()
        image = axes.imshow(grid, cmap=diverging(), vmin=-top, vmax=top, aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            words = f"{round(value, 2) + 0.0:+.2f}".replace("-", "−") if math.isfinite(value) else "–"
            ink = PAPER if abs(value) > 0.7 * top else INK
            axes.text(j, i, words, ha="center", va="center", fontsize=7.5, color=ink)
        axes.set_xticks(range(grid.shape[1]), list(wide.columns))
        axes.set_yticks(range(grid.shape[0]), [str(x) for x in wide.index])
        axes.set_xlabel("module")
        axes.set_ylabel("layer")
        bar = still.colorbar(image, ax=axes, shrink=0.9)
        bar.set_label(label)
        bar.outline.set_visible(False)  # type: ignore[operator]
        settle(still)
    figure = go.Figure(
        go.Heatmap(
            z=grid, x=list(wide.columns), y=[str(x) for x in wide.index], zmid=0, zmin=-top, zmax=top,
            colorscale=[[place, colour] for place, colour in DIVERGING], colorbar={"title": {"text": label}},
            hovertemplate="layer %{y}, %{x}: %{z:+.2f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        layout(
            height=160 + 40 * len(wide),
            xaxis={"title": {"text": "module"}},
            yaxis={"title": {"text": "layer"}, "autorange": "reversed"},
        )
    )
    share = float(np.nanmean(grid > 0)) if np.isfinite(grid).any() else math.nan
    return Plot(name, title, caption, f"{what} in {share:.0%} of matrices.", figure, still)


def ratio_intervals(frame: pd.DataFrame, margin: tuple[float, float], *, caption: str, alt: str) -> Plot:
    """Drift of each group over its control's, with the interval that decides and the margin as a band.

    Args:
        frame: columns row (its label), value, low, high, decides.
        margin: where ratios count as alike, (low, high).
        caption: how to read it.
        alt: the finding in words.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, ("row", "value", "low", "high", "decides"), "ratio_intervals")
    shown = frame.to_dict("records")
    low, high = margin
    figure = go.Figure()
    figure.add_vrect(x0=low, x1=high, fillcolor="rgba(118,118,118,.2)", line_width=0)
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.45 * len(shown) + 0.9), layout="constrained")
        axes = still.subplots()
        axes.axvspan(low, high, color=GREY, alpha=0.2, lw=0)
        axes.axvline(1, color=MUTED, lw=0.8)
        for i, one in enumerate(shown):
            colour = SERIES[i % len(SERIES)] if one["decides"] else GREY
            below, above = [one["value"] - one["low"]], [one["high"] - one["value"]]
            axes.errorbar(one["value"], i, xerr=[below, above], color=colour,
                          marker=MARKERS[i % len(MARKERS)], ms=6, mec=PAPER, elinewidth=1.8)  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=[one["value"]], y=[one["row"]], mode="markers", showlegend=False,
                    marker={"size": 11, "color": colour},
                    error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
                )
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [one["row"] for one in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("drift of the group / drift of its matched control")
        axes.grid(axis="x")
        settle(still)
    figure.update_layout(
        layout(
            height=150 + 60 * len(shown),
            xaxis={"title": {"text": "drift of the group / drift of its matched control"}, "type": "log"},
            yaxis={"autorange": "reversed"},
        )
    )
    return Plot("verdict", "Do safety weights drift more?", caption, alt, figure, still)
