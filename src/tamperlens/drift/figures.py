"""Figures of drift: over steps with bands, by group at the end, layer × module, and the verdict's ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tamperlens.base.errors import InputError
from tamperlens.drift.trace import MEASURES, WHOLE, DriftTrace
from tamperlens.plots.plot import Plot
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

if TYPE_CHECKING:
    from tamperlens.drift.verdict import DriftVerdict


def over_steps(traces: DriftTrace | Sequence[DriftTrace], measure: str = "relative_l2") -> Plot:
    """Median over matrices (and seeds) by step, a line per group, with the middle half as a band.

    Controls are dashed, in the colour of their group.
    """
    found, label = _traces(traces), _label(measure)
    frame = pd.concat([trace.to_frame() for trace in found])
    frame = frame[(frame["measure"] == measure) & (frame["group"] != WHOLE)]
    if frame.empty:
        raise InputError(f"no group was recorded with {measure!r}")
    n = frame.groupby(["layer", "module"]).ngroups
    # Two columns of the legend: the groups, and beside them their controls.
    looks = dict(sorted(_looks(found[0]).items(), key=lambda item: item[1][1]))
    figure = go.Figure()
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
        axes = still.subplots()
        for group, (colour, dash, marker) in looks.items():
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
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        still.legend(loc="outside upper left", ncols=2)
        settle(still)
    figure.update_layout(
        layout(
            height=520,
            margin={"l": 60, "r": 30, "t": 130, "b": 60},
            xaxis={"title": {"text": "optimiser step"}},
            yaxis={"title": {"text": label}, "rangemode": "tozero"},
        )
    )
    last = frame[frame["step"] == frame["step"].max()].groupby("group", sort=False)["value"].median()
    alt = "Median drift at the last step: " + ", ".join(f"{g} {v:.3g}" for g, v in last.items()) + "."
    caption = (
        f"{label}; median over {n} matrices and {len(found)} run{'s' if len(found) > 1 else ''}, bands and "
        "bars hold the middle half. Dashed: weights matched on matrix and size."
    )
    return Plot(f"drift-{measure.replace('_', '-')}", "Drift over training", caption, alt, figure, still)


def by_group(traces: DriftTrace | Sequence[DriftTrace], measure: str = "relative_l2") -> Plot:
    """The last step's drift of every matrix (mean over seeds), group by group, on a logarithmic axis."""
    found, label = _traces(traces), _label(measure)
    looks = _looks(found[0])
    tables = [trace.table(measure) for trace in found]
    values = {
        g: np.nanmean(np.stack([t[g].to_numpy(float) for t in tables]), 0)
        for g in looks
        if all(g in t for t in tables)
    }
    values = {g: v[np.isfinite(v) & (v > 0)] for g, v in values.items()}
    names = [g for g in values if values[g].size]
    if not names:
        raise InputError("nothing has moved at the last step; there is no distribution to draw")
    rng = np.random.default_rng(0)
    figure = go.Figure()
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.42 * len(names) + 0.9), layout="constrained")
        axes = still.subplots()
        for i, name in enumerate(names):
            v, (colour, dash, marker) = values[name], looks[name]
            axes.scatter(v, i + rng.uniform(-0.2, 0.2, v.size), s=12, color=colour, alpha=0.55, lw=0,
                         marker=marker)  # fmt: skip
            axes.plot([np.median(v)] * 2, [i - 0.34, i + 0.34], color=INK, lw=1.6)
            look = {"width": 1, "color": GREY if dash else colour}
            box = go.Box(
                x=v,
                name=f"{name} (n = {v.size})",
                marker={"color": colour},
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                fillcolor="rgba(0,0,0,0)",
                showlegend=False,
                line=look,
            )
            figure.add_trace(box)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_yticks(range(len(names)), [f"{g}  (n = {values[g].size})" for g in names])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.grid(axis="x")
        settle(still)
    figure.update_layout(
        layout(
            height=90 + 60 * len(names),
            xaxis={"title": {"text": label}, "type": "log"},
            yaxis={"autorange": "reversed"},
        )
    )
    alt = "Median by group: " + ", ".join(f"{g} {np.median(values[g]):.3g}" for g in names) + "."
    step = found[0].steps[-1]
    caption = f"{label} at step {step}; one point per matrix, mean over {len(found)} runs; line: median."
    return Plot(
        f"groups-{measure.replace('_', '-')}", "Drift by group at the end", caption, alt, figure, still
    )


def layer_map(traces: DriftTrace | Sequence[DriftTrace], group: str, measure: str = "relative_l2") -> Plot:
    """log2 of the group's drift over its control's, by layer and module; mean over seeds.

    Raises:
        InputError: the group has no control in the trace.
    """
    found = _traces(traces)
    control = found[0].controls.get(group)
    if control is None:
        raise InputError(f"{group!r} has no control in this trace; it has {', '.join(found[0].controls)}")
    tables = [trace.table(measure) for trace in found]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.nanmean(np.stack([np.log2(t[group] / t[control]) for t in tables]), 0)
    finite = np.where(np.isfinite(logs), logs, np.nan)
    wide = pd.Series(finite, index=tables[0].index).unstack(sort=False)
    grid = wide.to_numpy(float)
    top = max(0.1, float(np.nanmax(np.abs(grid)))) if np.isfinite(grid).any() else 1.0
    label = "log2 (group / control)"
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
    alt = f"{group} moved further than its control in {share:.0%} of matrices."
    caption = (
        f"{_label(measure)} of {group} over that of its matched control, log2, step "
        f"{found[0].steps[-1]}, mean over {len(found)} runs. 0: alike."
    )
    title = f"{group[:1].upper()}{group[1:]} against control, by layer and module"
    return Plot(f"map-{group.replace(' ', '-')}", title, caption, alt, figure, still)


def ratios(verdict: DriftVerdict) -> Plot:
    """Drift of each group over its control's, with the interval that decides and the margin as a band."""
    shown = [one for one in verdict.comparisons if math.isfinite(one.ratio.value)]
    if not shown:
        raise InputError("no comparison has enough matrices; there is nothing to draw")
    low, high = 1 / (1 + verdict.margin), 1 + verdict.margin
    figure = go.Figure()
    figure.add_vrect(x0=low, x1=high, fillcolor="rgba(118,118,118,.2)", line_width=0)
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.45 * len(shown) + 0.9), layout="constrained")
        axes = still.subplots()
        axes.axvspan(low, high, color=GREY, alpha=0.2, lw=0)
        axes.axvline(1, color=MUTED, lw=0.8)
        for i, one in enumerate(shown):
            colour = SERIES[i % len(SERIES)] if one.decides else GREY
            r = one.ratio
            axes.errorbar(r.value, i, xerr=[[r.value - r.low], [r.high - r.value]], color=colour,
                          marker=MARKERS[i % len(MARKERS)], ms=6, mec=PAPER, elinewidth=1.8)  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=[r.value], y=[_row(one.group, one.decides)], mode="markers", showlegend=False,
                    marker={"size": 11, "color": colour},
                    error_x={"type": "data", "symmetric": False, "array": [r.high - r.value],
                             "arrayminus": [r.value - r.low]},
                )
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_row(one.group, one.decides) for one in shown])
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
    caption = (
        f"Geometric mean over {shown[0].n_matrices} matrices and {shown[0].n_seeds} seeds with t intervals "
        f"({1 - 2 * verdict.alpha:.0%}); band: the margin of {verdict.margin:.0%}. "
        f"Verdict: {verdict.verdict}."
    )
    return Plot("verdict", "Do safety weights drift more?", caption, verdict.reason, figure, still)


def _label(measure: str) -> str:
    """A measure's formula as an axis says it."""
    return MEASURES.get(measure, measure).replace("_G", "")


def _row(group: str, decides: bool) -> str:
    return group if decides else f"{group} (contrast)"


def _traces(traces: DriftTrace | Sequence[DriftTrace]) -> list[DriftTrace]:
    found = [traces] if isinstance(traces, DriftTrace) else list(traces)
    if not found:
        raise InputError("no traces to draw")
    return found


def _looks(trace: DriftTrace) -> dict[str, tuple[str, bool, str]]:
    """Colour, dashed or not, and marker of each group; a control looks like its group, dashed."""
    owner = {control: group for group, control in trace.controls.items()}
    plain = [g for g in trace.groups if g not in owner and g != WHOLE]
    place = {group: i for i, group in enumerate(plain)}
    found = {}
    for group in trace.groups:
        if group == WHOLE:
            continue
        i = place.get(owner.get(group, group), len(place))
        found[group] = (SERIES[i % len(SERIES)], group in owner, MARKERS[i % len(MARKERS)])
    return found
