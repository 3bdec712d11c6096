"""The stacked figure: one panel per measure on one step axis, with bands and half-change marks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from tamperlens.plots import Plot
from tamperlens.plots.style import BLUE, GREY, INK, MUTED, VERMILLION, WIDTH_INCHES, layout, settle, style
from tamperlens.studies.trajectory.ordering import Order

PANELS = (
    "drift: all weights", "direction cosine", "projection gap", "head cosine", "token KL", "refusal log-odds",
    "refusal rate", "over-refusal log-odds (harmless)", "over-refusal rate (look-alikes)", "degenerate rate",
    "RD", "loss on harmless answers", "capability", "training loss",
)  # fmt: skip
LABELS = {
    "drift: all weights": "drift of all weights\n‖Δ‖ / ‖W‖", "direction cosine": "direction\ncosine",
    "projection gap": "projection\ngap", "head cosine": "heads\ncosine", "token KL": "KL per token\nnats",
    "refusal log-odds": "refusal\nlog-odds", "refusal rate": "refusal\nrate",
    "over-refusal log-odds (harmless)": "harmless\nlog-odds",
    "over-refusal rate (look-alikes)": "look-alikes\nrefused",
    "degenerate rate": "degenerate\nshare", "RD": "RD\n1 − cos", "capability": "capability\naccuracy",
    "loss on harmless answers": "harmless\nloss", "training loss": "training\nloss",
}  # fmt: skip


def stacked(found: Any, order: Order) -> Plot:
    """All measures of a `Trajectory`, one below the other, steps on a log(1 + step) axis.

    Args:
        found: the trajectory.
        order: half-change steps to mark.
    """
    names = panels_of(found)
    half = order.half().set_index("measure")
    parts = [(name, curve_of(found, name)) for name in names]
    marks = "; ".join(f"{name} {row['step']:.3g}" for name, row in half.iterrows())
    caption = (
        f"{found.model}, {found.attack}; mean over {len(found.seeds)} seeds (thin lines: each seed), band: "
        "bootstrap 95 % over seeds and prompts (drift: matrices); grey: where other prompts of the base "
        "would have put it; blue: step of half the final change, bar: its interval. "
        f"{changes_of(found, names)}"
    )
    with style():
        still = settle(_still(parts, half, found))
    return Plot(
        "trajectory", "What breaks first", caption, f"Half of the final change at: {marks or 'none'}.",
        _interactive(parts, half), still,
    )  # fmt: skip


def panels_of(found: Any) -> list[str]:
    """Measures in reading order; those of groups behind all weights'."""
    known = found.measures
    groups = [name for name in known if name.startswith("drift: ") and name not in PANELS]
    order = [PANELS[0], *groups, *PANELS[1:]]
    return [name for name in order if name in known]


def changes_of(found: Any, names: list[str]) -> str:
    """From which step on measures have changed on the same prompts, in words."""
    parts = []
    for name in names:
        steps = list(found.changed_from(name).values())
        since = sorted(step for step in steps if step is not None)
        if since:
            seeds = "" if len(since) == len(steps) else f" ({len(since)} of {len(steps)} seeds)"
            when = f"{since[0]}" if since[0] == since[-1] else f"{since[0]}–{since[-1]}"
            parts.append(f"{name} {when}{seeds}")
    said = "; ".join(parts) or "none"
    return f"Changed on the same prompts (paired, 95 %) and to the end, from step: {said}."


def curve_of(found: Any, measure: str) -> pd.DataFrame:
    """Mean over seeds with its band: step, value, low, high, null_low, null_high, and one column per seed."""
    runs = found.curves(measure)
    rows = found.of(measure, found.seeds[0])
    values = np.stack([run[1] for run in runs])
    low, high = _band(runs, values)
    table = {
        "step": rows["step"].to_numpy(), "value": values.mean(0), "low": low, "high": high,
        "null_low": rows["null_low"].to_numpy(), "null_high": rows["null_high"].to_numpy(),
    }  # fmt: skip
    return pd.DataFrame({**table, **{f"seed {s}": v for s, v in zip(found.seeds, values, strict=True)}})


def _band(
    runs: list[Any], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if any(run[2] is None for run in runs):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    rng = np.random.default_rng(0)
    draws = np.stack([run[2] for run in runs])  # seed, step, resample
    count, _, size = draws.shape
    seeds, picks = rng.integers(0, count, (500, count)), rng.integers(0, size, (500, count))
    means = draws[seeds, :, picks].mean(1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def _still(parts: list[tuple[str, pd.DataFrame]], half: pd.DataFrame, found: Any) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 0.75 + 0.85 * len(parts)), layout="constrained")
    every = figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curve) in zip(every, parts, strict=True):
        x = np.log2(1 + curve["step"])
        if np.isfinite(curve["null_low"]).any():
            axes.fill_between(x, curve["null_low"], curve["null_high"], color=GREY, alpha=0.25, lw=0)
        axes.fill_between(x, curve["low"], curve["high"], color=VERMILLION, alpha=0.18, lw=0)
        for column in [str(name) for name in curve if str(name).startswith("seed ")]:
            axes.plot(x, curve[column], color=VERMILLION, lw=0.6, alpha=0.5)
        axes.plot(x, curve["value"], color=VERMILLION, lw=1.6, marker="o" if len(x) < 30 else "", ms=2.5)
        if name in half.index:
            row = half.loc[name]
            at = np.log2(1 + np.array([row["low"], row["step"], row["high"]]))
            axes.axvline(at[1], color=BLUE, lw=1.1, ls=(0, (4, 2)))
            axes.plot(at[[0, 2]], [0.06, 0.06], color=BLUE, lw=2.5, solid_capstyle="butt",
                      transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_ylabel(
            LABELS.get(name, name.replace("drift: ", "drift\n")),
            fontsize=7,
            rotation=0,
            ha="right",
            va="center",
        )
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="y", nbins=3)
        axes.margins(y=0.15)
        axes.grid(axis="y")
    ticks = _ticks(max(int(curve["step"].max()) for _, curve in parts))
    every[-1].set_xticks(np.log2(1 + np.array(ticks)), [str(tick) for tick in ticks])
    every[-1].set_xlabel("optimiser step (log scale)")
    figure.align_ylabels(every)
    return figure


def _ticks(last: int) -> list[int]:
    found = [0, 1]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found[: -1 if last < found[-1] * 1.3 and last != found[-1] else None] + (
        [last] if last != found[-1] else []
    )


def _interactive(parts: list[tuple[str, pd.DataFrame]], half: pd.DataFrame) -> go.Figure:
    figure = make_subplots(
        rows=len(parts), cols=1, shared_xaxes=True, vertical_spacing=0.02,
        subplot_titles=[name for name, _ in parts],
    )  # fmt: skip
    for i, (name, curve) in enumerate(parts, start=1):
        x = np.log2(1 + curve["step"])
        for low, high, colour in (
            ("null_low", "null_high", "rgba(118,118,118,.25)"), ("low", "high", "rgba(213,94,0,.18)")
        ):  # fmt: skip
            for column, fill in ((high, None), (low, "tonexty")):
                figure.add_trace(
                    go.Scatter(
                        x=x, y=curve[column], mode="lines", line={"width": 0}, fill=fill, fillcolor=colour,
                        showlegend=False, hoverinfo="skip",
                    ),
                    row=i, col=1,
                )  # fmt: skip
        for column in [str(name) for name in curve if str(name).startswith("seed ")]:
            figure.add_trace(
                go.Scatter(
                    x=x, y=curve[column], mode="lines", line={"color": VERMILLION, "width": 1}, opacity=0.5,
                    showlegend=False, hoverinfo="skip",
                ),
                row=i, col=1,
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=x, y=curve["value"], mode="lines+markers", name=name, showlegend=False,
                line={"color": VERMILLION}, customdata=curve["step"],
                hovertemplate="step %{customdata}: %{y:.4g}",
            ),
            row=i, col=1,
        )  # fmt: skip
        if name in half.index:
            at = [float(np.log2(1 + half[key].to_dict()[name])) for key in ("step", "low", "high")]
            figure.add_vline(x=at[0], line={"color": BLUE, "dash": "dash", "width": 1}, row=i, col=1)
            figure.add_shape(
                type="line", x0=at[1], x1=at[2], y0=0.04, y1=0.04, yref="y domain",
                line={"color": BLUE, "width": 5}, row=i, col=1,
            )  # fmt: skip
    ticks = _ticks(max(int(curve["step"].max()) for _, curve in parts))
    house = layout(height=140 * len(parts) + 120)
    figure.update_layout(house)
    figure.update_xaxes(house.xaxis)  # of every panel, not of the first alone
    figure.update_yaxes(house.yaxis)
    figure.update_xaxes(tickvals=[float(np.log2(1 + t)) for t in ticks], ticktext=[str(t) for t in ticks])
    figure.update_xaxes(title={"text": "optimiser step (log scale)"}, row=len(parts), col=1)
    figure.update_annotations(font={"size": 12, "color": INK})
    figure.update_yaxes(tickfont={"size": 11, "color": MUTED})
    return figure
