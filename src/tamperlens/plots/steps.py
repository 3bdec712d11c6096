"""A number over training steps with its interval, and the band of its null."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MARKERS, SERIES, reach

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
    aside = 0.01 * float(data["step"].max() - data["step"].min())
    with Canvas(2.8, 460, x=across, y=axis) as canvas:
        if np.isfinite(first["null_low"]).any():
            canvas.band(first["step"], first["null_low"], first["null_high"], null, middle=first["null"])
        for i, (label, rows) in enumerate(groups):
            canvas.line(
                rows["step"], rows["value"], label or axis, SERIES[(i + 1) % 7], reach=reach(rows),
                marker=MARKERS[i % 7], size=4, shift=aside * (i - (len(groups) - 1) / 2),
            )  # fmt: skip
        canvas.scale("x", whole=True)
    return canvas.plot(name, title, caption, alt)
