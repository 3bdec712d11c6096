"""Dose curves: a rate against a dose, one line per series, one panel per rate."""

from __future__ import annotations

import html

import pandas as pd

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MARKERS, SERIES, percent, reach, short

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
    panels, names = [list(dict.fromkeys(frame[column])) for column in ("panel", "series")]
    with Canvas(3.0, 460, x=x_axis, y=y_axis, panels=[str(panel) for panel in panels]) as canvas:
        for (panel, which), part in places.groupby(["panel", "series"], sort=False):
            rows, i = part.sort_values("at"), names.index(which)
            canvas.line(
                rows["at"], rows["value"], str(which), SERIES[i % 7], marker=MARKERS[i % 7],
                reach=reach(rows), shift=0.07 * (i - (len(names) - 1) / 2), panel=panels.index(panel),
                hovertemplate=f"%{{y:.1%}}<extra>{html.escape(short(str(which), 60))}</extra>",
            )  # fmt: skip
        written = [f"{dose:g}" for dose in doses]
        canvas.scale("x", span=(-0.4, len(doses) - 0.6), ticks=(range(len(doses)), written))
        canvas.scale("y", percent=True)
    return canvas.plot(name, title, caption, f"{alt}.")
