"""The stacked figure: one panel per measure on one step axis, with bands and half-change marks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.plots import Plot
from tamperlens.plots.canvas import Canvas
from tamperlens.plots.style import BLUE, INK, MUTED, VERMILLION
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
    words = f"Half of the final change at: {marks or 'none'}."
    with Canvas(
        0.75 + 0.85 * len(parts), 140 * len(parts) + 120, x="optimiser step (log scale)", panels=names,
        y=[LABELS.get(name, name.replace("drift: ", "drift\n")) for name in names], stacked=True,
    ) as canvas:  # fmt: skip
        for i, (name, curve) in enumerate(parts):
            _panel(canvas, i, curve, half.loc[name] if name in half.index else None)
        ticks = _ticks(max(int(curve["step"].max()) for _, curve in parts))
        canvas.scale("x", ticks=([float(np.log2(1 + tick)) for tick in ticks], list(map(str, ticks))))
        canvas.still.align_ylabels(canvas.axes)
        canvas.figure.update_annotations(font={"size": 12, "color": INK})
        canvas.figure.update_yaxes(tickfont={"size": 11, "color": MUTED})
    return canvas.plot("trajectory", "What breaks first", caption, words)


def _panel(canvas: Canvas, i: int, curve: pd.DataFrame, half: Any) -> None:
    """One measure: band of its null, its own band, every seed, the mean, and where half of it is reached."""
    x, axes = np.log2(1 + curve["step"]), canvas.axes[i]
    canvas.band(x, curve["null_low"], curve["null_high"], panel=i)
    canvas.band(x, curve["low"], curve["high"], colour=VERMILLION, alpha=0.18, panel=i)
    for column in [str(name) for name in curve if str(name).startswith("seed ")]:
        canvas.line(x, curve[column], "", VERMILLION, width=0.6, alpha=0.5, panel=i, hoverinfo="skip")
    canvas.line(
        x, curve["value"], "", VERMILLION, width=1.6, marker="o" if len(x) < 30 else "", size=2.5, panel=i,
        customdata=curve["step"], hovertemplate="step %{customdata}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    if half is not None:
        low, at, high = np.log2(1 + np.array([half["low"], half["step"], half["high"]]))
        canvas.rule("x", at, colour=BLUE, panel=i)
        axes.plot([low, high], [0.06, 0.06], color=BLUE, lw=2.5, solid_capstyle="butt",
                  transform=axes.get_xaxis_transform())  # fmt: skip
        canvas.figure.add_shape(
            type="line", x0=low, x1=high, y0=0.04, y1=0.04, yref="y domain",
            line={"color": BLUE, "width": 5}, row=i + 1, col=1,
        )  # fmt: skip
    axes.set_ylabel(axes.get_ylabel(), fontsize=7, rotation=0, ha="right", va="center")
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="y", nbins=3)
    axes.margins(y=0.15)


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


def _ticks(last: int) -> list[int]:
    found = [0, 1]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found[: -1 if last < found[-1] * 1.3 and last != found[-1] else None] + (
        [last] if last != found[-1] else []
    )
