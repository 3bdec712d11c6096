"""Curves: training loss by step, and the cosine of two directions by layer with its null band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import MUTED, VERMILLION, reach


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
    turn = "rises" if last > first else "falls"
    alt = (
        f"Loss {turn} from {first:.2f} to {last:.2f} nats per token over {int(rows['step'].iloc[-1])} steps."
    )
    with Canvas(2.3, 420, x="optimiser step", y="loss (nats per token)") as canvas:
        width, alpha = (0.8, 0.5) if smooth is not None else (1.4, 1.0)
        look: dict[str, Any] = {"marker": "o" if len(rows) <= 40 else "", "width": width, "alpha": alpha}
        canvas.line(rows["step"], rows["loss"], "loss", VERMILLION, size=3, **look)
        if smooth is not None:
            canvas.line(rows["step"], smooth, "mean of 9", VERMILLION, width=2.0)
        canvas.scale("x", whole=True)
        canvas.scale("y", zero=True)
    return canvas.plot(name, title, caption, alt)


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
    x, low, high = frame["layer"], frame["null_low"], frame["null_high"]
    with Canvas(2.7, 460, x="layer (block input)", y="cosine") as canvas:
        canvas.band(x, low, high, "other prompts of the base (split halves)", middle=frame["null"])
        whiskers = reach(frame, "cosine")
        canvas.line(x, frame["cosine"], "base against attacked", VERMILLION, marker="D", reach=whiskers)
        canvas.rule("x", layer, "selected", colour=MUTED)
        canvas.scale("x", whole=True)
        canvas.scale("y", span=cosine_range(frame[["low", "null_low", "high", "null_high"]].to_numpy()))
    return canvas.plot(name, title, caption, alt)


def cosine_range(values: Any) -> tuple[float, float]:
    """An axis for cosines: where the values lie, and a tenth of their spread around them.

    What matters between .95 and 1 is a flat line on an axis from 0 to 1.
    """
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.1 * (most - least), 0.002)
    return least - room, most + room
