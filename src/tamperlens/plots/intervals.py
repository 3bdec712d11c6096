"""Dots with intervals: rates before and after, side by side, every one with its n."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MARKERS, MUTED, SERIES, percent, reach, short

COLUMNS = ("panel", "label", "series", "value", "low", "high", "n")
HOVER = "%{customdata[0]}<br>%{x:.1%} [%{customdata[1]:.1%}, %{customdata[2]:.1%}]<br>n = %{customdata[3]}"


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
    groups: dict[Any, pd.DataFrame] = dict(iter(frame.groupby(["panel", "label"], sort=False)))
    rows: list[Any] = []  # a panel's own row, which has no label, and those below it
    for panel in dict.fromkeys(frame["panel"]):
        rows += [(panel, ""), *(key for key in groups if key[0] == panel)]
    words = [_row_label(groups[key]) if key in groups else "" for key in rows]
    series = list(dict.fromkeys(frame["series"]))
    gap = 0.22 if len(series) <= 3 else 0.7 / len(series)
    shift = {which: gap * (i - (len(series) - 1) / 2) for i, which in enumerate(series)}
    height = (0.36 if len(series) <= 2 else 0.46) * len(rows) + 0.75
    with Canvas(height, 38 * len(rows) + 170, x=axis, grid="x") as canvas:
        for i, which in enumerate(series):
            part = frame[(frame["series"] == which) & frame["value"].notna()]
            at = [rows.index(key) + shift[which] for key in zip(part["panel"], part["label"], strict=True)]
            legend = html.escape(short(str(which)))
            told = part[["label", "low", "high", "n"]]
            canvas.line(
                part["value"], at, str(which), SERIES[i % 7], join=False, marker=MARKERS[i % 7], size=5.2,
                across=reach(part), hovertemplate=f"{HOVER}<extra>{legend}</extra>",
                customdata=told.assign(label=[html.escape(short(str(x))) for x in part["label"]]).to_numpy(),
            )  # fmt: skip
        axes = canvas.axes[0]
        for place, key in enumerate(rows):
            if key not in groups:
                axes.text(0, place, key[0], va="center", fontsize=9.5, weight="bold")
                continue
            unknown = groups[key][groups[key]["value"].isna()]["series"]
            if len(unknown) == len(groups[key]):
                unknown = pd.Series([""])
            for which in unknown:
                said = f"{which}: undefined" if which else "undefined"
                axes.text(0.01, place + shift.get(which, 0), said, va="center", fontsize=7.5, color=MUTED)
        canvas.scale("x", span=(-0.015, 1.015), percent=True)
        canvas.scale("y", span=(len(rows) - 0.5, -0.5), ticks=(range(len(rows)), words))
        bold = [html.escape(w) or f"<b>{html.escape(key[0])}</b>" for w, key in zip(words, rows, strict=True)]
        canvas.figure.update_yaxes(ticktext=bold, showgrid=False, ticks="")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return canvas.plot(name, title, caption, _alt(frame, axis))


def _row_label(rows: pd.DataFrame) -> str:
    counts = sorted({int(n) for n in rows["n"]})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{short(str(rows['label'].iloc[0]))}  (n = {n})"


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
