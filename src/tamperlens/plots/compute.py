"""A share against attack compute, model by model, and the compute to half of it against model size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MARKERS, MUTED, SERIES, reach

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
    words = "; ".join(
        f"{row['series']} {row['value']:.2g} FLOPs"
        if math.isfinite(row["value"])
        else f"{row['series']}: {row['reason']}"
        for _, row in half.iterrows()
    )
    across, up = ("attack compute (FLOPs)", "parameters"), (axis, "FLOPs to half refusal")
    with Canvas(3.0, 480, x=across, y=up, panels=("", ""), ratios=(3, 2)) as canvas:
        for i, (label, rows) in enumerate(dots.groupby("series", sort=False)):
            look: dict[str, Any] = {"label": str(label), "colour": SERIES[(i + 1) % 7]}
            mark: dict[str, Any] = {"marker": MARKERS[i % 7], "join": False}
            canvas.line(rows["flops"], rows["value"], **look, **mark, size=4, reach=reach(rows))
            line = lines[lines["series"] == label]
            canvas.line(line["flops"], line["value"], **look)
            row = half[half["series"] == label].iloc[[0]]
            canvas.line(row["size"], row["value"], **look, **mark, size=5, panel=1, reach=_whiskers(row))
            _note(canvas.axes[1], row.iloc[0])
        left, right = canvas.axes
        canvas.scale("x", log=True)
        canvas.scale("y", span=(-0.03, 1.05), panel=0)
        _decades(left.xaxis)
        if half["value"].notna().any():  # a logarithmic axis without a point has no ends
            canvas.scale("y", log=True, panel=1)
            _decades(right.yaxis)
        else:
            canvas.scale("y", ticks=((), ()), panel=1)
        sizes = half["size"].to_numpy(dtype=float)
        right.set_xticks(sizes, [_size(one) for one in sizes], rotation=35, ha="right")
        right.xaxis.set_minor_formatter(NullFormatter())
        right.xaxis.set_minor_locator(NullLocator())
        right.set_xlim(sizes.min() / 1.6, sizes.max() * 1.6)
        high = half["value"].max()
        if math.isfinite(high):  # a whole decade, so that there is a labelled tick
            low = np.nanmin([half["low"], half["value"]])
            right.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(1.2 * high)))
    return canvas.plot(name, title, caption, f"To half refusal: {words}.")


def _whiskers(row: pd.DataFrame) -> np.ndarray:
    """An open upper end has none."""
    return reach(row.assign(high=row["high"].where(np.isfinite(row["high"]), row["value"])))


def _note(axes: Any, row: Any) -> None:
    """What is not reached or has an open end says so."""
    small = {"ha": "center", "fontsize": 7.5, "color": MUTED}
    if row["value"] != row["value"]:
        axes.text(row["size"], 0.03, "not reached", transform=axes.get_xaxis_transform(), rotation=90,
                  va="bottom", **small)  # fmt: skip
    elif not np.isfinite(row["high"]):
        axes.annotate("open", (row["size"], row["value"]), xytext=(0, 6), textcoords="offset points", **small)


def _decades(axis: Any) -> None:
    """Powers of ten in plain characters (the house style draws no formulas)."""
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
