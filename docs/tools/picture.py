"""The picture of the README: one attack on the organism over three seeds, three measures by step.

python docs/tools/picture.py            # docs/assets/attack.svg, attack.png and attack.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import tamperlens
from tamperlens import drift, finetune, neurons, prompts, refusal
from tamperlens.plots import style

OUT = Path(__file__).resolve().parents[1] / "assets"
N, SEEDS = 60, 3


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


def measured() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, drift.DriftVerdict]:
    """Rates, direction and drift by seed and step, and the verdict on drift over the seeds."""
    model = tamperlens.load("organism")
    harmful, harmless = (prompts.packaged(name, split="train") for name in ("harmful", "harmless"))
    direction = refusal.find_direction(model, harmful, harmless)
    safety = neurons.snip(model, harmful.sample(128, seed=0))
    utility = neurons.snip(model, prompts.packaged("benign").sample(128, seed=0))
    groups = drift.groups(model, safety=safety, utility=utility)
    attack = finetune.attacks.harmful_compliance(15)
    found: list[tuple[pd.DataFrame, pd.DataFrame, drift.DriftTrace]] = []
    for seed in range(SEEDS):
        recorders = [
            Rates(),
            refusal.DirectionRecorder(direction, harmful, harmless, every=1, causal=False, profile=False),
            drift.Recorder(groups, every=1),
        ]
        tuned = finetune.run(
            model, attack.data, attack.config_for(model), recorders=recorders, progress=False, seed=seed
        )
        rates, directions, weights = tuned.recordings
        found.append((rates.assign(seed=seed), directions.of("cosine").assign(seed=seed), weights))
    rates, cosine = (pd.concat([one[k] for one in found], ignore_index=True) for k in (0, 1))
    moved = pd.concat([one[2].to_frame().assign(seed=i) for i, one in enumerate(found)], ignore_index=True)
    return rates, cosine, moved, drift.test_hypotheses([one[2] for one in found])


def numbers(
    rates: pd.DataFrame, cosine: pd.DataFrame, verdict: drift.DriftVerdict
) -> dict[str, str | int | list[int] | list[float]]:
    """What the caption says, to be read by the test that holds it to the picture."""
    harmful = rates[rates["set"] == "harmful"]
    low = cosine["null_low"].iloc[0]
    turned = [int(part[part["changed"].astype(bool)]["step"].min()) for _, part in cosine.groupby("seed")]
    last = harmful[harmful["step"] == harmful["step"].max()]
    return {
        "seeds": SEEDS,
        "n": N,
        "half": [int(part[part["value"] <= 0.5]["step"].min()) for _, part in harmful.groupby("seed")],
        "below_a_tenth": [
            int(part[part["value"] < 0.1]["step"].min()) for _, part in harmful.groupby("seed")
        ],
        "refused_at_the_end": [float(value) for value in last["value"]],
        "cosine_changed": turned,
        "refused_then": [
            float(part[part["step"] == step]["value"].iloc[0])
            for (_, part), step in zip(harmful.groupby("seed"), turned, strict=True)
        ],
        "cosine_below_band": [
            int(part[part["value"] < low]["step"].min()) for _, part in cosine.groupby("seed")
        ],
        "drift": verdict.verdict,
        "drift_says": verdict.summary(),
    }


def _band(axis: plt.Axes, part: pd.DataFrame, colour: str, **style_: object) -> None:
    """Mean over seeds, and the range of the seeds."""
    by_step = part.groupby("step")["value"]
    axis.fill_between(by_step.min().index, by_step.min(), by_step.max(), color=colour, alpha=0.18, lw=0)
    axis.plot(by_step.mean(), color=colour, **style_)


def drawn(rates: pd.DataFrame, cosine: pd.DataFrame, moved: pd.DataFrame) -> plt.Figure:
    """Three panels over one axis of steps."""
    with style.style():
        figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.7), layout="constrained")
        colours = {"harmful": style.BLUE, "harmless": style.VERMILLION}
        for (name, part), marker in zip(rates.groupby("set", sort=False), style.MARKERS, strict=False):
            _band(axes[0], part, colours[name], marker=marker, ms=3.5, label=name)
        axes[0].set(title="Requests refused", ylabel=f"share, n = {N}", ylim=(-0.03, 1.03))
        axes[0].legend(loc="center right")
        null = cosine.iloc[0]
        axes[1].axhspan(null["null_low"], null["null_high"], color=style.GREY, alpha=0.25, lw=0)
        axes[1].text(
            20,
            null["null_high"],
            "where other prompts\nwould put it (95 %)",
            va="top",
            ha="right",
            fontsize=8,
        )
        _band(axes[1], cosine, style.BLUE, marker="o", ms=3.5)
        axes[1].set(title="Refusal direction", ylabel="cosine to the base's", ylim=(None, 1.0015))
        names = {"safety-critical": (style.BLUE, "-"), "control of safety-critical": (style.VERMILLION, "--")}
        for name, (colour, dash) in names.items():
            part = moved[(moved["group"] == name) & (moved["measure"] == "relative_l2")]
            medians = part.groupby(["seed", "step"])["value"].median().reset_index()
            label = "matched control" if "control" in name else "safety-critical"
            _band(axes[2], medians, colour, linestyle=dash, label=label)
        axes[2].set(title="Drift of weights", ylabel="‖Δ‖ / ‖W‖ (35 matrices)", ylim=(0, None))
        axes[2].legend(loc="lower right")
        for axis in axes:
            axis.set_xlabel("training step")
            axis.set_xticks(range(0, 21, 5))
            axis.grid(axis="y")
        return figure


def main() -> None:
    """Measure, draw, write."""
    rates, cosine, moved, verdict = measured()
    figure = drawn(rates, cosine, moved)
    folder = Path(sys.argv[1]) if sys.argv[1:] else OUT
    folder.mkdir(parents=True, exist_ok=True)
    said = json.dumps(numbers(rates, cosine, verdict), indent=1, ensure_ascii=False)
    (folder / "attack.json").write_text(said + "\n", encoding="utf-8")
    with style.style():
        figure.savefig(folder / "attack.png", dpi=110, metadata={"Software": "tamperlens"})
        figure.savefig(folder / "attack.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
