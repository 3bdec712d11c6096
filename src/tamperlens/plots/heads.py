"""Heads: scores by layer and head, attention over a prompt, ablation curves, agreement of methods."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.plots.canvas import Canvas
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import BLUE, reach, short

Table = npt.NDArray[Any]


def head_map(
    values: Table,
    *,
    label: str,
    caption: str,
    name: str = "heads",
    title: str = "Heads by layer",
    outline: Sequence[tuple[int, int]] = (),
) -> Plot:
    """Heat map of one number for each head, layers down, heads across.

    Args:
        values: [layer, head].
        label: what the numbers are, with their unit.
        caption: how to read it.
        name: file stem.
        title: a few words.
        outline: (layer, head) cells to outline.

    Raises:
        InputError: not a table, or no finite number in it.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or not np.isfinite(table).any():
        raise InputError(f"head_map needs finite numbers [layer, head]; got shape {list(table.shape)}")
    layers, heads = table.shape
    best = np.unravel_index(np.nanargmax(np.abs(table)), table.shape)
    alt = (
        f"Heat map of {layers} layers by {heads} heads. Largest in size: layer {best[0]}, head {best[1]}, "
        f"{table[best]:.3g}."
    )
    words = np.vectorize(lambda x: f"{x:.2g}".replace("-", "−") if math.isfinite(x) else "", otypes="O")
    height, pixels = max(1.9, 0.3 * min(layers, 40) + 1.3), max(360, 34 * layers + 180)
    with Canvas(height, pixels, x="head", y="layer", grid="") as canvas:
        canvas.heat(
            table, [str(i) for i in range(layers)], [str(i) for i in range(heads)], label=label,
            top=float(np.nanmax(np.abs(table))) or 1.0, words=words(table) if table.size <= 96 else None,
            hover="layer %{y}, head %{x}<br>%{z:.4g}",
        )  # fmt: skip
        for cell in outline:
            canvas.outline(*cell)
    return canvas.plot(name, title, caption, alt)


def attention_map(
    panels: Mapping[str, Table],
    tokens: Sequence[str],
    *,
    caption: str,
    name: str = "attention",
    title: str = "Attention",
) -> Plot:
    """Attention of one head over a prompt, one panel for each model.

    Args:
        panels: name to weights [query, key]; the same tokens in all.
        tokens: text of each token.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: no panels, or weights that are not [tokens, tokens].
    """
    n = len(tokens)
    if not panels or any(np.shape(table) != (n, n) for table in panels.values()):
        raise InputError(f"attention_map needs weights [{n}, {n}] for {n} tokens")
    labels = [short(token.strip() or "␣", 14) for token in tokens]
    read = {key: int(np.asarray(table)[-1].argmax()) for key, table in panels.items()}
    alt = "; ".join(
        f"{key}: the last token reads {labels[at]!r} most ({np.asarray(panels[key])[-1, at]:.2f})"
        for key, at in read.items()
    )
    seen = np.tril(np.ones((n, n), dtype=bool))
    with Canvas(
        min(3.2, 0.16 * n + 1.2) + 1.1, max(420, 22 * n + 200), x="read token", y="reading token",
        panels=list(panels), grid="",
    ) as canvas:  # fmt: skip
        for i, table in enumerate(panels.values()):
            weights = np.where(seen, np.asarray(table, dtype=float), np.nan)
            canvas.heat(
                weights, labels, labels, top=1.0, rising=True, turn=True, label="attention weight",
                hover="%{y} reads %{x}<br>%{z:.3f}", bar="right", panel=i,
            )  # fmt: skip
            canvas.axes[i].set_aspect("equal")
    return canvas.plot(name, title, caption, alt)


def ablation_curve(
    frame: pd.DataFrame,
    *,
    label: str,
    caption: str,
    name: str = "ablation",
    title: str = "Ablating the top heads",
) -> Plot:
    """A target as heads are ablated, beside random heads.

    Args:
        frame: columns k, series ("top" or "random"), value, low, high, head (what the k-th step took out).
        label: what is measured.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column or series is missing.
    """
    need_columns(frame, ("k", "series", "value", "low", "high"), "ablation_curve")
    top, other = (frame[frame["series"] == series].sort_values("k") for series in ("top", "random"))
    if top.empty or other.empty:
        raise InputError("ablation_curve needs the series 'top' and 'random'")
    end = int(top["k"].iloc[-1])
    alt = (
        f"With {end} heads ablated the target is {top['value'].iloc[-1]:.3g} "
        f"(untouched {top['value'].iloc[0]:.3g}), with random heads {other['value'].iloc[-1]:.3g} "
        f"[{other['low'].iloc[-1]:.3g}, {other['high'].iloc[-1]:.3g}]."
    )
    axis = "\n".join(textwrap.wrap(short(label, 102), 34))
    with Canvas(2.7, 440, x="heads ablated together", y=axis) as canvas:
        shared = other["k"], other["low"], other["high"]
        canvas.band(*shared, "random heads of the same layers", middle=other["value"])
        canvas.line(
            top["k"], top["value"], "top heads", BLUE, marker="o", reach=reach(top), text=top.get("head"),
            hovertemplate="%{x} heads, last %{text}<br>%{y:.4g}<extra></extra>",
        )  # fmt: skip
        canvas.scale("x", whole=True)
    return canvas.plot(name, title, caption, alt)


def agreement_map(
    table: pd.DataFrame, *, caption: str, name: str = "agreement", title: str = "Agreement between methods"
) -> Plot:
    """Rank correlations of pairs of methods, intervals in the cells (above six methods on hover only).

    Args:
        table: columns one, two, value, low, high.
        caption: how to read it.
        name: file stem.
        title: a few words.

    Raises:
        InputError: a column is missing or there are no pairs.
    """
    need_columns(table, ("one", "two", "value", "low", "high"), "agreement_map")
    names = list(dict.fromkeys([*table["one"], *table["two"]]))
    square = np.full((len(names), len(names)), math.nan)
    words = np.full(square.shape, "", dtype=object)
    for row in table.to_dict("records"):
        at = tuple(sorted((names.index(row["one"]), names.index(row["two"])), reverse=True))
        square[at] = row["value"]
        words[at] = f"{row['value']:.2f}\n{row['low']:.2f} to {row['high']:.2f}".replace("-", "−")
    low, high = table.iloc[int(table["value"].argmin())], table.iloc[int(table["value"].argmax())]
    alt = (
        f"Rank correlations of {len(names)} methods: from {low['value']:.2f} ({low['one']} and {low['two']}) "
        f"to {high['value']:.2f} ({high['one']} and {high['two']})."
    )
    words = words[1:, :-1]
    brief = np.vectorize(lambda text: text if len(names) <= 6 else text.split("\n")[0], otypes="O")
    with Canvas(0.42 * len(names) + 1.1, 70 * len(names) + 140, grid="") as canvas:
        canvas.heat(
            square[1:, :-1], names[1:], names[:-1], top=1.0, turn=True, label="Spearman's ρ over heads",
            words=brief(words), hover="%{y} and %{x}<br>%{text}", bar="right",
            text=[[text.replace("\n", "<br>") for text in row] for row in words], texttemplate="%{text}",
        )  # fmt: skip
    return canvas.plot(name, title, caption, alt)
