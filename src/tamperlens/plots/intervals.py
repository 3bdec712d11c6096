"""Dots with intervals: rates before and after, side by side, every one with its n."""

from __future__ import annotations

import html
import math

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    INK,
    MARKERS,
    MUTED,
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

COLUMNS = ("panel", "label", "series", "value", "low", "high", "n")


def dot_interval(frame: pd.DataFrame, *, name: str, title: str, caption: str, axis: str) -> Plot:
    """Shares in [0, 1] as dots with whiskers, one row per label, one marker per series, panels stacked.

    Args:
        frame: columns `panel`, `label`, `series`, `value`, `low`, `high`, `n`; the order of first appearance
            is the order on the page. Undefined values (NaN) are written as such, not drawn.
        name: file stem.
        title: a few words.
        caption: how to read it.
        axis: label of the horizontal axis, with its unit.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    need_columns(frame, COLUMNS, "dot_interval")
    with style():
        still = settle(_still(frame, axis))
    return Plot(name, title, caption, _alt(frame, axis), _interactive(frame, axis), still)


def _row_label(rows: pd.DataFrame) -> str:
    counts = sorted({int(n) for n in rows["n"]})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{short(str(rows['label'].iloc[0]))}  (n = {n})"


def _offsets(count: int) -> list[float]:
    gap = 0.22 if count <= 3 else 0.7 / count
    return [gap * (i - (count - 1) / 2) for i in range(count)]


def _still(frame: pd.DataFrame, axis: str) -> Figure:
    panels = list(dict.fromkeys(frame["panel"]))
    series = list(dict.fromkeys(frame["series"]))
    heights = [frame.loc[frame["panel"] == p, "label"].nunique() + 0.35 for p in panels]
    row = 0.36 if len(series) <= 2 else 0.46
    figure = Figure(
        figsize=(WIDTH_INCHES, row * sum(heights) + 0.38 * len(panels) + 0.75), layout="constrained"
    )
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        part = frame[frame["panel"] == panel]
        labels = list(dict.fromkeys(part["label"]))
        for index, (which, offset) in enumerate(zip(series, _offsets(len(series)), strict=True)):
            rows = part[part["series"] == which]
            for _, entry in rows.iterrows():
                y = labels.index(entry["label"]) + offset
                if math.isnan(entry["value"]):
                    if bool(part.loc[part["label"] == entry["label"], "value"].isna().all()):
                        words, y = "undefined", labels.index(entry["label"])
                    else:
                        words = f"{which}: undefined"
                    axes.text(0.01, y, words, va="center", fontsize=7.5, color=MUTED)
                    continue
                colour = SERIES[index % len(SERIES)]
                axes.plot([entry["low"], entry["high"]], [y, y], color=colour, lw=1.8, solid_capstyle="butt")
                shape = MARKERS[index % len(MARKERS)]
                axes.plot(
                    entry["value"],
                    y,
                    shape,
                    color=colour,
                    ms=5.2,
                    mec=PAPER,
                    mew=0.6,
                    clip_on=False,
                    zorder=4,
                )
        axes.set_yticks(range(len(labels)), [_row_label(part[part["label"] == label]) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(-0.015, 1.015)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(panel)
    grid[-1, 0].set_xlabel(axis)
    handles = [
        figure.axes[0].plot(
            [],
            [],
            MARKERS[i % len(MARKERS)] + "-",
            color=SERIES[i % len(SERIES)],
            ms=5.2,
            label=short(str(which)),
        )[0]
        for i, which in enumerate(series)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(series), handlelength=1.8)
    return figure


def _interactive(frame: pd.DataFrame, axis: str) -> go.Figure:
    figure = go.Figure()
    rows: list[str] = []
    for panel in dict.fromkeys(frame["panel"]):
        part = frame[frame["panel"] == panel]
        rows += [f"<b>{html.escape(str(panel))}</b>"]
        rows += [
            html.escape(_row_label(part[part["label"] == label])) for label in dict.fromkeys(part["label"])
        ]
    rows = [r if rows.index(r) == i else f"{r}{chr(0x200B) * i}" for i, r in enumerate(rows)]
    place, cursor = {}, 0
    for panel in dict.fromkeys(frame["panel"]):
        cursor += 1
        for label in dict.fromkeys(frame.loc[frame["panel"] == panel, "label"]):
            place[panel, label] = cursor
            cursor += 1
    series = list(dict.fromkeys(frame["series"]))
    for index, (which, offset) in enumerate(zip(series, _offsets(len(series)), strict=True)):
        part = frame[(frame["series"] == which) & frame["value"].notna()]
        figure.add_trace(
            go.Scatter(
                x=part["value"],
                y=[place[p, label] + offset for p, label in zip(part["panel"], part["label"], strict=True)],
                mode="markers",
                name=short(str(which)),
                marker={
                    "symbol": PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)],
                    "size": 10,
                    "color": SERIES[index % len(SERIES)],
                },
                error_x=whiskers(reach(part), thickness=2.2, width=0),
                customdata=part[["label", "low", "high", "n"]]
                .assign(label=[html.escape(short(str(x))) for x in part["label"]])
                .to_numpy(),
                hovertemplate="%{customdata[0]}<br>%{x:.1%} [%{customdata[1]:.1%}, %{customdata[2]:.1%}]"
                "<br>n = %{customdata[3]}<extra>" + html.escape(short(str(which))) + "</extra>",
            )
        )
    figure.update_layout(
        layout(
            height=38 * len(rows) + 170,
            xaxis={"range": [-0.02, 1.02], "tickformat": ".0%", "title": {"text": axis}},
            yaxis={
                "tickvals": list(range(len(rows))),
                "ticktext": rows,
                "range": [len(rows) - 0.5, -0.5],
                "showgrid": False,
                "ticks": "",
                "tickfont": {"color": INK},
            },
        )
    )
    return figure


def _alt(frame: pd.DataFrame, axis: str) -> str:
    sentences = []
    for (panel, label), rows in frame.groupby(["panel", "label"], sort=False):
        parts = [
            f"{row['series']} {percent(row['value'])} [{percent(row['low'])}, {percent(row['high'])}]"
            if not math.isnan(row["value"])
            else f"{row['series']} undefined"
            for _, row in rows.iterrows()
        ]
        sentences.append(f"{panel}, {label}: {', '.join(parts)}")
    return f"{axis}. " + "; ".join(sentences) + "."
