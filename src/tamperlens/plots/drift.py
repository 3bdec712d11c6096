"""Figures of drift: over steps with bands, by group at the end, layer × module, and a verdict's ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import GREY, INK, MARKERS, MUTED, SERIES, reach

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
    with Canvas(3.4, 520, x="optimiser step", y=axis) as canvas:
        for group, (colour, dash, marker) in styles.items():
            rows = frame[frame["group"] == group].groupby("step")["value"]
            line = rows.quantile([0.25, 0.5, 0.75]).unstack()  # type: ignore[arg-type]
            if line.empty:
                continue
            canvas.band(line.index, line[0.25], line[0.75], colour=colour, alpha=0.1)
            canvas.line(line.index, line[0.5], group, colour, dash=dash, marker=marker, size=4)
        canvas.scale("y", zero=True)
        canvas.scale("x", whole=True)
    last = frame[frame["step"] == frame["step"].max()].groupby("group", sort=False)["value"].median()
    alt = "Median drift at the last step: " + ", ".join(f"{g} {v:.3g}" for g, v in last.items()) + "."
    return canvas.plot(name, "Drift over training", caption, alt)


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
    rows = [f"{group}  (n = {values[group].size})" for group in names]
    with Canvas(0.42 * len(names) + 0.9, 90 + 60 * len(names), x=axis, grid="x") as canvas:
        axes = canvas.axes[0]
        for i, group in enumerate(names):
            v, (colour, dash, marker) = values[group], styles[group]
            axes.scatter(v, i + rng.uniform(-0.2, 0.2, v.size), s=12, color=colour, alpha=0.55, lw=0,
                         marker=marker)  # fmt: skip
            axes.plot([np.median(v)] * 2, [i - 0.34, i + 0.34], color=INK, lw=1.6)
            box = go.Box(
                x=v, name=rows[i], marker={"color": colour}, boxpoints="all", jitter=0.5, pointpos=0,
                fillcolor="rgba(0,0,0,0)", showlegend=False,
                line={"width": 1, "color": GREY if dash else colour},
            )  # fmt: skip
            canvas.figure.add_trace(box)
        canvas.scale("x", log=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_yticks(range(len(names)), rows)
        axes.invert_yaxis()
        canvas.figure.update_yaxes(autorange="reversed")
    alt = "Median by group: " + ", ".join(f"{g} {np.median(values[g]):.3g}" for g in names) + "."
    return canvas.plot(name, "Drift by group at the end", caption, alt)


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
    words = np.vectorize(
        lambda x: f"{round(x, 2) + 0.0:+.2f}".replace("-", "−") if math.isfinite(x) else "–", otypes="O"
    )
    height, pixels = 0.34 * len(wide) + 1.2, 160 + 40 * len(wide)
    with Canvas(height, pixels, x="module", y="layer", grid="") as canvas:
        canvas.heat(
            grid, [str(x) for x in wide.index], list(wide.columns), top=top, label=label, bar="right",
            words=words(grid), hover="layer %{y}, %{x}: %{z:+.2f}",
        )  # fmt: skip
    share = float(np.nanmean(grid > 0)) if np.isfinite(grid).any() else math.nan
    return canvas.plot(name, title, caption, f"{what} in {share:.0%} of matrices.")


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
    axis, n = "drift of the group / drift of its matched control", len(frame)
    with Canvas(0.45 * n + 0.9, 150 + 60 * n, x=axis, grid="x") as canvas:
        canvas.axes[0].axvspan(*margin, color=GREY, alpha=0.2, lw=0)
        canvas.figure.add_vrect(*margin, fillcolor="rgba(118,118,118,.2)", line_width=0)
        canvas.rule("x", 1, colour=MUTED)
        for i, (_, one) in enumerate(frame.iterrows()):
            colour, marker = SERIES[i % 7] if one["decides"] else GREY, MARKERS[i % 7]
            ends = reach(frame.iloc[[i]])
            canvas.line([one["value"]], [i], "", colour, across=ends, marker=marker, size=6, join=False)
        canvas.scale("y", span=(n - 0.5, -0.5), ticks=(range(n), list(frame["row"])))
        canvas.scale("x", log=True)
        ruler = canvas.axes[0].xaxis
        ruler.set_major_locator(MaxNLocator(6))
        ruler.set_major_formatter(lambda value, _: f"{value:g}")
        ruler.set_minor_formatter(lambda value, _: "")
    return canvas.plot("verdict", "Do safety weights drift more?", caption, alt)
