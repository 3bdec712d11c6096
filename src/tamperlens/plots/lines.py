"""Curves: training loss by step, and the cosine of two directions by layer with its null band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tamperlens.base.errors import InputError
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    BLUE,
    GREY,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    WIDTH_INCHES,
    band,
    layout,
    reach,
    settle,
    style,
    whiskers,
)


def loss_curve(
    log: pd.DataFrame, *, caption: str, name: str = "training", title: str = "Training loss of the attack"
) -> Plot:
    """Loss by optimiser step, with a moving mean where there are many steps.

    Args:
        log: columns `step` and `loss` (mean negative log-likelihood of the answer's tokens, nats per token).
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or no loss was logged.
    """
    if not {"step", "loss"} <= set(log.columns) or log["loss"].dropna().empty:
        raise InputError("loss_curve needs rows with the columns step and loss; nothing was logged")
    rows = log[["step", "loss"]].dropna()
    smooth = rows["loss"].rolling(9, center=True, min_periods=3).mean() if len(rows) > 25 else None
    first, last = rows["loss"].iloc[0], rows["loss"].iloc[-1]
    alt = f"Loss falls from {first:.2f} to {last:.2f} nats per token over {int(rows['step'].iloc[-1])} steps."
    if last > first:
        alt = alt.replace("falls", "rises")
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 2.3), layout="constrained")
        axes = still.subplots()
        axes.plot(
            rows["step"], rows["loss"], color=VERMILLION, lw=0.8 if smooth is not None else 1.4,
            alpha=0.5 if smooth is not None else 1.0, marker="o" if len(rows) <= 40 else "", ms=3,
        )  # fmt: skip
        if smooth is not None:
            axes.plot(rows["step"], smooth, color=VERMILLION, lw=2.0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("loss (nats per token)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        settle(still)
    figure = go.Figure(
        go.Scatter(
            x=rows["step"], y=rows["loss"], mode="lines+markers", line={"color": VERMILLION}, name="loss"
        )
    )
    if smooth is not None:
        figure.data[0].update(opacity=0.5, mode="lines")
        figure.add_trace(
            go.Scatter(
                x=rows["step"],
                y=smooth,
                mode="lines",
                line={"color": VERMILLION, "width": 3},
                name="mean of 9",
            )
        )
    figure.update_layout(
        layout(
            height=420,
            xaxis={"title": {"text": "optimiser step"}},
            yaxis={"title": {"text": "loss (nats per token)"}, "rangemode": "tozero"},
        )
    )
    return Plot(name, title, caption, alt, figure, still)


def cosine_by_layer(
    frame: pd.DataFrame,
    *,
    layer: int,
    caption: str,
    name: str = "cosine",
    title: str = "Refusal direction before and after, by layer",
) -> Plot:
    """Cosine between the directions of the base and of the attacked model, with the split-half null band.

    Args:
        frame: columns `layer`, `cosine`, `low`, `high` (interval), `null`, `null_low`, `null_high` (cosine
            between directions of two halves of the base's own prompts).
        layer: the layer of the selected direction, marked.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or the frame is empty.
    """
    wanted = ["layer", "cosine", "low", "high", "null", "null_low", "null_high"]
    need_columns(frame, wanted, "cosine_by_layer")
    at = frame.loc[frame["layer"] == layer].iloc[0]
    alt = (
        f"At the selected layer {layer} the cosine is {at['cosine']:.2f} "
        f"[{at['low']:.2f}, {at['high']:.2f}]; two halves of the base's own prompts give "
        f"{at['null']:.2f} [{at['null_low']:.2f}, {at['null_high']:.2f}]."
    )
    low, high = cosine_range(frame[["low", "null_low", "high", "null_high"]].to_numpy())
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 2.7), layout="constrained")
        axes = still.subplots()
        axes.fill_between(
            frame["layer"], frame["null_low"], frame["null_high"], color=GREY, alpha=0.25, lw=0,
            label="other prompts of the base (split halves)",
        )  # fmt: skip
        axes.plot(frame["layer"], frame["null"], color=GREY, lw=1.2, ls=(0, (4, 2)))
        axes.errorbar(
            frame["layer"], frame["cosine"], yerr=reach(frame, "cosine"), color=VERMILLION,
            marker="D", ms=4.5, mec=PAPER, mew=0.5, lw=1.2, elinewidth=1.6, label="base against attacked",
        )  # fmt: skip
        axes.axvline(layer, color=MUTED, lw=0.8, ls=":")
        axes.annotate(
            "selected", (layer, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 3),
            textcoords="offset points", fontsize=7.5, color=MUTED, va="bottom",
        )  # fmt: skip
        axes.set_ylim(low, high)
        axes.set_xlabel("layer (block input)")
        axes.set_ylabel("cosine")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        still.legend(loc="outside upper left", ncols=2)
        settle(still)
    return Plot(name, title, caption, alt, _interactive_cosine(frame, layer), still)


def cosine_range(values: Any) -> tuple[float, float]:
    """An axis for cosines: where the values lie, and a tenth of their spread around them.

    What matters between .95 and 1 is a flat line on an axis from 0 to 1.
    """
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.1 * (most - least), 0.002)
    return least - room, most + room


def _interactive_cosine(frame: pd.DataFrame, layer: int) -> go.Figure:
    x = frame["layer"]
    figure = go.Figure(
        [
            *band(x, frame["null_low"], frame["null_high"], "other prompts of the base (split halves)"),
            go.Scatter(
                x=x, y=frame["cosine"], mode="lines+markers", name="base against attacked",
                error_y=whiskers(frame, "cosine"),
                marker={"symbol": "diamond", "size": 9}, line={"color": VERMILLION},
            ),
        ]
    )  # fmt: skip
    figure.add_vline(x=layer, line={"color": BLUE, "dash": "dot", "width": 1}, annotation_text="selected",
                     annotation_font={"color": INK})  # fmt: skip
    figure.update_layout(
        layout(
            height=460, xaxis={"title": {"text": "layer (block input)"}}, yaxis={"title": {"text": "cosine"}}
        )
    )
    return figure
