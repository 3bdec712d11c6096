"""Two shares against each other: what is lost on one axis against what is lost on the other."""

from __future__ import annotations

import html

import pandas as pd
from matplotlib.patheffects import withStroke

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MARKERS, MUTED, PAPER, SERIES, percent, reach, short

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
    with Canvas(4.2, 560, x=x_axis, y=y_axis, grid="both") as canvas:
        for i, (series, part) in enumerate(frame.groupby("series", sort=False)):
            canvas.line(
                part["x"], part["y"], str(series), SERIES[i % 7], join=False, marker=MARKERS[i % 7], size=5.5,
                reach=reach(part, "y", "y_"), across=reach(part, "x", "x_"),
                text=[html.escape(short(str(label))) for label in part["label"]],
                hovertemplate=f"%{{text}}<br>{html.escape(x_axis)} %{{x:.1%}}<br>"
                f"{html.escape(y_axis)} %{{y:.1%}}<extra></extra>",
            )  # fmt: skip
        for row, shift in zip(*_label_places(frame), strict=True):
            canvas.axes[0].annotate(
                short(str(row["label"]), 24), (row["x"], row["y"]), xytext=shift,
                textcoords="offset points", fontsize=7, color=MUTED,
                ha="left" if shift[0] > 0 else "right", va="center", zorder=4,
                path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
            )  # fmt: skip
        canvas.scale("x", span=(-0.03, 1.06), percent=True)
        canvas.scale("y", span=(-0.04, 1.06), percent=True)
    return canvas.plot(name, title, caption, f"{alt}.")


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
