"""The picture of the README: one attack on the organism, three measures by training step.

python docs/tools/picture.py            # docs/assets/attack.svg and attack.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import tamperlens
from tamperlens import drift, finetune, neurons, prompts, refusal
from tamperlens.plots import style

OUT = Path(__file__).resolve().parents[1] / "assets"
N = 60


class Rates:
    """Share of requests refused at every step."""

    name, every = "rates", 1

    def __init__(self) -> None:
        self.sets = {
            "harmful": prompts.packaged("harmful", split="test").sample(N, seed=0),
            "harmless": prompts.packaged("harmless", split="test").sample(N, seed=0),
        }
        self.rows: list[dict[str, object]] = []

    def start(self, model: tamperlens.ChatModel) -> None:
        """Nothing to prepare."""

    def record(self, step: int, model: tamperlens.ChatModel) -> list[dict[str, object]]:
        """Ask both sets."""
        new: list[dict[str, object]] = []
        for name, data in self.sets.items():
            rate = refusal.evaluate(model, data, max_new_tokens=16).refusal_rate
            new.append({"step": step, "set": name, "value": rate.value, "low": rate.low, "high": rate.high})
        self.rows += new
        return new

    def finish(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)


def measured() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rates, direction and drift by step."""
    model = tamperlens.load("organism")
    harmful, harmless = (prompts.packaged(name, split="train") for name in ("harmful", "harmless"))
    direction = refusal.find_direction(model, harmful, harmless)
    safety = neurons.snip(model, harmful.sample(128, seed=0))
    utility = neurons.snip(model, prompts.packaged("benign").sample(128, seed=0))
    groups = drift.groups(model, safety=safety, utility=utility)
    attack = finetune.attacks.harmful_compliance(15)
    recorders = [
        Rates(),
        refusal.DirectionRecorder(direction, harmful, harmless, every=1, causal=False, profile=False),
        drift.Recorder(groups, every=1),
    ]
    tuned = finetune.run(model, attack.data, attack.config_for(model), recorders=recorders, progress=False)
    rates, directions, weights = tuned.recordings
    return rates, directions.of("cosine"), weights.to_frame()


def drawn(rates: pd.DataFrame, cosine: pd.DataFrame, moved: pd.DataFrame) -> plt.Figure:
    """Three panels over one axis of steps."""
    with style.style():
        figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.7), layout="constrained")
        colours = {"harmful": style.BLUE, "harmless": style.VERMILLION}
        for (name, part), marker in zip(rates.groupby("set", sort=False), style.MARKERS, strict=False):
            axes[0].fill_between(
                part["step"], part["low"], part["high"], color=colours[name], alpha=0.18, lw=0
            )
            axes[0].plot(part["step"], part["value"], marker=marker, ms=3.5, color=colours[name], label=name)
        axes[0].set(title="Requests refused", ylabel=f"share, n = {N}", ylim=(-0.03, 1.03))
        axes[0].legend(loc="center right")
        null = cosine.iloc[0]
        axes[1].axhspan(null["null_low"], null["null_high"], color=style.GREY, alpha=0.25, lw=0,
                        label="split-half null")  # fmt: skip
        axes[1].fill_between(
            cosine["step"], cosine["low"], cosine["high"], color=style.BLUE, alpha=0.18, lw=0
        )
        axes[1].plot(cosine["step"], cosine["value"], marker="o", ms=3.5, color=style.BLUE)
        axes[1].set(title="Refusal direction", ylabel="cosine to the base's", ylim=(None, 1.0015))
        axes[1].legend(loc="lower left")
        names = {"safety-critical": (style.BLUE, "-"), "control of safety-critical": (style.BLUE, "--")}
        for name, (colour, dash) in names.items():
            part = moved[(moved["group"] == name) & (moved["measure"] == "relative_l2")]
            by_step = part.groupby("step")["value"]
            label = "matched control" if "control" in name else "safety-critical"
            axes[2].plot(by_step.median(), dash, color=colour, label=label)
            if "control" not in name:
                low, high = by_step.quantile(0.25), by_step.quantile(0.75)
                axes[2].fill_between(low.index, low, high, color=colour, alpha=0.18, lw=0)
        axes[2].set(title="Drift of weights", ylabel="‖Δ‖ / ‖W‖ (35 matrices)", ylim=(0, None))
        axes[2].legend(loc="lower right")
        for axis in axes:
            axis.set_xlabel("training step")
            axis.set_xticks(range(0, 21, 5))
            axis.grid(axis="y")
        return figure


def main() -> None:
    """Measure, draw, write."""
    figure = drawn(*measured())
    folder = Path(sys.argv[1]) if sys.argv[1:] else OUT
    folder.mkdir(parents=True, exist_ok=True)
    with style.style():
        figure.savefig(folder / "attack.png", dpi=110, metadata={"Software": "tamperlens"})
        figure.savefig(folder / "attack.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
