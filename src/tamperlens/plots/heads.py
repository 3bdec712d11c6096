"""Heads: scores by layer and head, attention over a prompt, ablation curves, agreement of methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from tamperlens.base.errors import InputError
from tamperlens.plots.plot import Plot, need_columns
from tamperlens.plots.style import (
    BLUE,
    DIVERGING,
    GREY,
    INK,
    PAPER,
    WIDTH_INCHES,
    band,
    colour_bar,
    diverging,
    layout,
    reach,
    settle,
    short,
    style,
    whiskers,
)

Table = npt.NDArray[Any]
RISING = [(0.0, "#ffffff"), (0.35, "#9ecae9"), (0.7, "#2f7fb5"), (1.0, "#00324f")]
"""White to dark blue, for shares that begin at 0."""


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
    rows, columns = [str(i) for i in range(layers)], [str(i) for i in range(heads)]
    limit = float(np.nanmax(np.abs(table))) or 1.0
    with style():
        still = Figure(figsize=(WIDTH_INCHES, max(1.9, 0.3 * min(layers, 40) + 1.3)), layout="constrained")
        axes = still.subplots()
        image = axes.pcolormesh(
            np.ma.masked_invalid(table), cmap=diverging(), norm=TwoSlopeNorm(0.0, -limit, limit),
            edgecolors="face", linewidth=0.2,
        )  # fmt: skip
        _ticks(axes, rows, columns)
        if table.size <= 96:
            _numbers(axes, table, 0.72 * limit)
        for i, j in outline:
            for colour, width in (("#fefefe", 4.2), ("#111111", 2.0)):
                axes.add_patch(
                    Rectangle((j, i), 1, 1, fill=False, ec=colour, lw=width, clip_on=False, zorder=5)
                )
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        bar = colour_bar(
            still, image, axes, short(label, 90), location="top", aspect=45, shrink=0.98, pad=0.03
        )
        bar.ax.tick_params(length=2, labelsize=8)
        settle(still)
    figure = go.Figure(
        go.Heatmap(
            z=table, x=columns, y=rows, zmin=-limit, zmax=limit, xgap=1, ygap=1,
            colorscale=[list(stop) for stop in DIVERGING],
            hovertemplate="layer %{y}, head %{x}<br>%{z:.4g}<extra></extra>",
            colorbar={"title": {"text": short(label, 60), "side": "right"}},
        )
    )  # fmt: skip
    for i, j in outline:
        figure.add_shape(
            type="rect", x0=j - 0.5, x1=j + 0.5, y0=i - 0.5, y1=i + 0.5, line={"color": INK, "width": 3}
        )
    figure.update_layout(
        layout(
            height=max(360, 34 * layers + 180),
            xaxis={"title": {"text": "head"}, "type": "category", "showgrid": False},
            yaxis={
                "title": {"text": "layer"}, "type": "category", "autorange": "reversed", "showgrid": False,
            },
        )
    )  # fmt: skip
    return Plot(name, title, caption, alt, figure, still)


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
    colours = LinearSegmentedColormap.from_list("tamperlens-rising", RISING)
    with style():
        side = min(3.2, 0.16 * n + 1.2)
        still = Figure(figsize=(WIDTH_INCHES, side + 1.1), layout="constrained")
        grid = still.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (key, table) in zip(grid, panels.items(), strict=True):
            shown = np.where(np.tril(np.ones((n, n), dtype=bool)), np.asarray(table, dtype=float), np.nan)
            image = axes.pcolormesh(
                np.ma.masked_invalid(shown), cmap=colours, vmin=0, vmax=1, edgecolors="face", linewidth=0.1
            )
            _ticks(axes, labels, labels, turn=True)
            axes.set_aspect("equal")
            axes.set_title(short(key, 28))
            axes.set_xlabel("read token")
        grid[0].set_ylabel("reading token")
        colour_bar(still, image, list(grid), "attention weight", location="right", aspect=30, shrink=0.7)
        settle(still)
    figure = make_subplots(
        1, len(panels), subplot_titles=[short(key, 40) for key in panels], shared_yaxes=True
    )
    places = [f"{i} {label}" for i, label in enumerate(labels)]  # tokens repeat, categories may not
    for column, table in enumerate(panels.values(), start=1):
        figure.add_trace(
            go.Heatmap(
                z=np.asarray(table, dtype=float), x=places, y=places, zmin=0, zmax=1,
                colorscale=[list(stop) for stop in RISING], showscale=column == 1,
                colorbar={"title": {"text": "weight"}},
                hovertemplate="%{y} reads %{x}<br>%{z:.3f}<extra></extra>",
            ),
            row=1, col=column,
        )  # fmt: skip
    figure.update_layout(layout(height=max(420, 22 * n + 200)))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return Plot(name, title, caption, alt, figure, still)


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
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 2.7), layout="constrained")
        axes = still.subplots()
        axes.fill_between(
            other["k"], other["low"], other["high"], color=GREY, alpha=0.25, lw=0,
            label="random heads of the same layers",
        )  # fmt: skip
        axes.plot(other["k"], other["value"], color=GREY, lw=1.2, ls=(0, (4, 2)))
        axes.errorbar(
            top["k"], top["value"], yerr=reach(top), color=BLUE, marker="o", ms=4.5, mec=PAPER, mew=0.5,
            lw=1.2, elinewidth=1.6, label="top heads",
        )  # fmt: skip
        axes.set_xlabel("heads ablated together")
        axes.set_ylabel("\n".join(_wrapped(label, 34)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        still.legend(loc="outside upper left", ncols=2)
        settle(still)
    return Plot(name, title, caption, alt, _interactive_curve(top, other, label), still)


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
    words: dict[tuple[int, int], str] = {}
    for row in table.to_dict("records"):
        i, j = sorted((names.index(row["one"]), names.index(row["two"])), reverse=True)
        square[i, j] = row["value"]
        words[i, j] = f"{row['value']:.2f}\n{row['low']:.2f} to {row['high']:.2f}".replace("-", "−")
    low, high = table.iloc[int(table["value"].argmin())], table.iloc[int(table["value"].argmax())]
    alt = (
        f"Rank correlations of {len(names)} methods: from {low['value']:.2f} ({low['one']} and {low['two']}) "
        f"to {high['value']:.2f} ({high['one']} and {high['two']})."
    )
    shown = square[1:, :-1]
    with style():
        still = Figure(figsize=(WIDTH_INCHES, 0.42 * len(names) + 1.1), layout="constrained")
        axes = still.subplots()
        image = axes.pcolormesh(
            np.ma.masked_invalid(shown), cmap=diverging(), norm=TwoSlopeNorm(0.0, -1, 1), edgecolors=PAPER,
            linewidth=1.0,
        )  # fmt: skip
        _ticks(axes, names[1:], names[:-1], turn=True)
        for (i, j), text in words.items():
            ink = "#fefefe" if abs(square[i, j]) > 0.72 else "#111111"
            shown_text = text if len(names) <= 6 else text.split("\n")[0]  # hover has the interval
            axes.text(j + 0.5, i - 0.5, shown_text, ha="center", va="center", fontsize=6.5, color=ink)
        colour_bar(still, image, axes, "Spearman's ρ over heads", location="right", aspect=30)
        settle(still)
    figure = go.Figure(
        go.Heatmap(
            z=shown, x=names[:-1], y=names[1:], zmin=-1, zmax=1, xgap=1, ygap=1,
            colorscale=[list(stop) for stop in DIVERGING],
            text=[
                [words.get((i + 1, j), "").replace("\n", "<br>") for j in range(len(names) - 1)]
                for i in range(len(names) - 1)
            ],
            texttemplate="%{text}",
            hovertemplate="%{y} and %{x}<br>%{text}<extra></extra>",
            colorbar={"title": {"text": "Spearman's ρ", "side": "right"}},
        )
    )  # fmt: skip
    figure.update_layout(layout(height=70 * len(names) + 140))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return Plot(name, title, caption, alt, figure, still)


def _interactive_curve(top: pd.DataFrame, other: pd.DataFrame, label: str) -> go.Figure:
    figure = go.Figure(
        [
            *band(other["k"], other["low"], other["high"], "random heads of the same layers"),
            go.Scatter(
                x=top["k"], y=top["value"], mode="lines+markers", name="top heads", error_y=whiskers(top),
                line={"color": BLUE}, marker={"size": 9}, text=top.get("head"),
                hovertemplate="%{x} heads, last %{text}<br>%{y:.4g}<extra></extra>",
            ),
        ]
    )  # fmt: skip
    figure.update_layout(
        layout(
            height=440, xaxis={"title": {"text": "heads ablated together"}},
            yaxis={"title": {"text": short(label, 70)}},
        )
    )  # fmt: skip
    return figure


def _ticks(axes: Any, rows: Sequence[str], columns: Sequence[str], *, turn: bool = False) -> None:
    """Labels at the middle of cells, thinned out where there are many; the first row on top."""
    axes.set_ylim(len(rows), 0)
    for labels, place in ((rows, axes.set_yticks), (columns, axes.set_xticks)):
        step = max(1, math.ceil(len(labels) / 24))
        place([i + 0.5 for i in range(0, len(labels), step)], labels[::step])
    if turn:
        axes.tick_params(axis="x", rotation=90 if len(columns) > 12 else 40)
        axes.tick_params(labelsize=7.5)
        if len(columns) <= 12:
            for text in axes.get_xticklabels():
                text.set_ha("right")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numbers(axes: Any, table: Table, dark: float) -> None:
    for (i, j), value in np.ndenumerate(table):
        if math.isfinite(value):
            ink = "#fefefe" if abs(value) > dark else "#111111"
            number = f"{value:.2g}".replace("-", "−")
            axes.text(j + 0.5, i + 0.5, number, ha="center", va="center", fontsize=7.5, color=ink)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(short(text, 3 * width), width)
