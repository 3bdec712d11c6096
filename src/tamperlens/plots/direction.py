"""Where the refusal direction sits: every candidate, layer by position, and the one that was selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot
from tamperlens.plots.style import INK

AXIS = "log-odds of refusing harmful prompts while ablated"
HOVER = "layer %{x}, %{y}<br>log-odds %{z:.2f}<br>%{customdata}"


def direction_map(
    table: pd.DataFrame,
    *,
    layer: int,
    position: int,
    tokens: Sequence[str] = (),
    caption: str,
    name: str = "direction",
    title: str = "Refusal direction, layer by position",
) -> Plot:
    """Heat map of candidate directions with the selected cell outlined and rejected cells crossed out.

    Args:
        table: columns `position` (negative, from the end), `layer`, `bypass` (log-odds of refusing harmful
            prompts while the candidate is ablated) and, if there, `passed` (bool: it met the filters).
        layer: selected layer.
        position: selected position.
        tokens: text of the post-instruction tokens, last one at position −1; used as row labels.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or the table is empty.
    """
    missing = [column for column in ("position", "layer", "bypass") if column not in table]
    if missing or table.empty:
        raise InputError(
            f"direction_map needs candidates with position, layer, bypass; missing: {missing or 'rows'}"
        )
    positions = sorted({int(p) for p in table["position"]}, reverse=True)
    layers = sorted({int(x) for x in table["layer"]})
    scores = np.full((len(positions), len(layers)), math.nan)
    passed = np.ones_like(scores, dtype=bool)
    for _, row in table.iterrows():
        cell = positions.index(int(row["position"])), layers.index(int(row["layer"]))
        scores[cell] = float(row["bypass"])
        passed[cell] = bool(row["passed"]) if "passed" in table else True
    chosen = positions.index(position), layers.index(layer)
    alt = (
        f"Heat map of {len(table)} candidate directions over layers {layers[0]} to {layers[-1]} and "
        f"{len(positions)} token positions. Selected: layer {layer}, position {position}, "
        f"where ablation leaves log-odds of refusal of {scores[chosen]:.1f}. "
        f"{int((~passed).sum())} candidates did not meet the filters."
    )
    sizes = np.abs(scores[np.isfinite(scores)])
    few = len(layers) <= 12  # then every cell has its number, in brackets where it fails a filter
    cells = zip(scores.flat, passed.flat, strict=True)
    words = np.array([_cell(float(score), bool(fits)) for score, fits in cells], dtype=object)
    with Canvas(
        max(1.9, 0.36 * len(positions) + 1.35), 60 * len(positions) + 220,
        x="layer (block input)", y="token (position)", grid="",
    ) as canvas:  # fmt: skip
        canvas.heat(
            scores, [_row_name(p, tokens) for p in positions], [str(x) for x in layers], label=AXIS,
            top=max(float(sizes.max(initial=0.0)), 1e-6) if sizes.size else 1.0, hover=HOVER,
            words=words.reshape(scores.shape) if few else None,
            customdata=np.where(passed, "meets the filters", "does not meet the filters"),
        )  # fmt: skip
        for i, j in np.argwhere(~passed & np.isfinite(scores)) if not few else ():
            canvas.axes[0].plot([j - 0.46, j + 0.46], [i + 0.46, i - 0.46], color=INK, lw=0.6, alpha=0.6)
        canvas.outline(*chosen)
    return canvas.plot(name, title, caption, alt)


def _cell(value: float, passed: bool) -> str:
    if not math.isfinite(value):  # no such direction: the same vector for all prompts
        return "–"
    number = f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
    return number if passed else f"({number})"


def _row_name(position: int, tokens: Sequence[str]) -> str:
    if 0 < -position <= len(tokens):
        text = tokens[position].replace("\n", "⏎").strip() or "␣"
        text = text if len(text) <= 19 else f"{text[:18]}…"
        return f"{text}  (−{-position})"
    return f"−{-position}"
