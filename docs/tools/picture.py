"""The pictures of the README: one attack on the organism, step by step, and the same examples on real models.

    python docs/tools/picture.py            # measures, stores analyses/measured/picture_*.csv, draws both
    python docs/tools/picture.py --draw     # draws docs/assets/attack.{svg,png,json} from what is stored
    python docs/tools/picture.py --real     # only docs/assets/real.{svg,png}: the real models

The real models' picture is drawn from what `alignment_degradation.py` and `alignment_trajectory.py` stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

import tamperlens
from tamperlens import drift, finetune, neurons, prompts, refusal, report
from tamperlens.plots import style

ROOT = Path(__file__).resolve().parents[2]
OUT, STORED = ROOT / "docs" / "assets", ROOT / "analyses" / "measured"
N, SEEDS = 60, 3
REAL = (  # model, preset, what stands below the axis
    ("Qwen2.5-Coder-0.5B-Instruct", "published", "Qwen 0.5B\npublished\nsettings"),
    ("SmolLM2-135M-Instruct, safety-tuned", "published", "SmolLM2\npublished\nsettings"),
    ("SmolLM2-135M-Instruct, safety-tuned", "until-learned", "SmolLM2\nuntil\nlearned"),
)
ORDER = {
    "drift: top safety": "drift of safety weights", "direction cosine": "refusal direction (cosine)",
    "refusal log-odds": "first-token log-odds", "head cosine": "heads (cosine)",
    "refusal rate": "refusal rate",
}  # fmt: skip

GROUPS = {"safety-critical": (style.BLUE, "-"), "control of safety-critical": (style.VERMILLION, "--")}


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
    moved = moved[moved["group"].isin(GROUPS) & (moved["measure"] == "relative_l2")]
    medians = moved.groupby(["group", "seed", "step"], sort=False)["value"].median().reset_index()
    cosine = cosine[["seed", "step", "value", "null_low", "null_high", "changed"]]
    return rates, cosine, medians, drift.test_hypotheses([one[2] for one in found])


def real() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Harmful requests refused by real models, and when half of each change was there, as stored."""
    rates = pd.read_csv(STORED / "real_degradation.csv")
    order = pd.read_csv(STORED / "real_trajectory_order.csv")
    return rates[rates["measure"] == "harmful: refused"], order[order["level"] == 0.5].set_index("measure")


def numbers(rates: pd.DataFrame, cosine: pd.DataFrame) -> dict[str, object]:
    """What the caption says of steps, to be read by the test that holds it to the picture."""
    harmful = rates[rates["set"] == "harmful"]
    by_seed = [part for _, part in harmful.groupby("seed")]
    turned = [int(part[part["changed"].astype(bool)]["step"].min()) for _, part in cosine.groupby("seed")]
    low = cosine["null_low"].iloc[0]
    return {
        "seeds": SEEDS,
        "n": N,
        "half": [int(part[part["value"] <= 0.5]["step"].min()) for part in by_seed],
        "below_a_tenth": [int(part[part["value"] < 0.1]["step"].min()) for part in by_seed],
        "refused_at_the_end": [float(part["value"].iloc[-1]) for part in by_seed],
        "cosine_changed": turned,
        "refused_then": [
            float(part[part["step"] == step]["value"].iloc[0])
            for part, step in zip(by_seed, turned, strict=True)
        ],
        "cosine_below_band": [
            int(part[part["value"] < low]["step"].min()) for _, part in cosine.groupby("seed")
        ],
    }


def _band(axis: plt.Axes, part: pd.DataFrame, colour: str, **style_: object) -> None:
    """Mean over seeds, and the range of the seeds."""
    by_step = part.groupby("step")["value"]
    axis.fill_between(by_step.min().index, by_step.min(), by_step.max(), color=colour, alpha=0.18, lw=0)
    axis.plot(by_step.mean(), color=colour, **style_)


def drawn(rates: pd.DataFrame, cosine: pd.DataFrame, medians: pd.DataFrame) -> plt.Figure:
    """The organism: three panels over one axis of steps."""
    with style.style():
        figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.7), layout="constrained")
        _organism(axes, rates, cosine, medians)
        return figure


def real_drawn() -> plt.Figure:
    """Real models: refusal before and after, and when half of each change was there."""
    with style.style():
        figure, axes = plt.subplots(1, 2, figsize=(9.2, 2.8), layout="constrained", width_ratios=(1, 1.25))
        _refused(axes[0])
        _order(axes[1])
        return figure


def _organism(axes: Any, rates: pd.DataFrame, cosine: pd.DataFrame, medians: pd.DataFrame) -> None:
    colours = {"harmful": style.BLUE, "harmless": style.VERMILLION}
    for (name, part), marker in zip(rates.groupby("set", sort=False), style.MARKERS, strict=False):
        _band(axes[0], part, colours[str(name)], marker=marker, ms=3.5, label=name)
    axes[0].set(title="Requests refused", ylabel=f"share, n = {N}", ylim=(-0.03, 1.03))
    axes[0].legend(loc="center right")
    null = cosine.iloc[0]
    axes[1].axhspan(null["null_low"], null["null_high"], color=style.GREY, alpha=0.25, lw=0)
    words = "where other prompts\nwould put it (95 %)"
    axes[1].text(20, null["null_high"], words, va="top", ha="right", fontsize=8)
    _band(axes[1], cosine, style.BLUE, marker="o", ms=3.5)
    axes[1].set(title="Refusal direction", ylabel="cosine to the base's", ylim=(None, 1.0015))
    for name, (colour, dash) in GROUPS.items():
        label = "matched control" if "control" in name else "safety-critical"
        _band(axes[2], medians[medians["group"] == name], colour, linestyle=dash, label=label)
    axes[2].set(title="Drift of weights", ylabel="‖Δ‖ / ‖W‖ (35 matrices)", ylim=(0, None))
    axes[2].legend(loc="lower right")
    for axis in axes:
        axis.set_xlabel("training step")
        axis.set_xticks(range(0, 21, 5))
        axis.grid(axis="y")


def _refused(axis: plt.Axes) -> None:
    """Before the attack once, after it every seed, with Wilson's intervals."""
    rates, _ = real()
    for place, (model, preset, _words) in enumerate(REAL):
        own = rates[rates["model"] == model]
        after = own[(own["attack"] == "harmful-compliance-15") & (own["preset"] == preset)]
        sides = ((own[own["attack"] == "before"], [-0.2], style.BLUE, "D", "before"),
                 (after, [0.1, 0.2, 0.3], style.VERMILLION, "o", "after, three seeds"))  # fmt: skip
        for part, at, colour, marker, label in sides:
            reach = [part["value"] - part["low"], part["high"] - part["value"]]
            axis.errorbar(
                [place + x for x in at], part["value"], reach, color=colour, fmt=marker, ms=4.5, lw=1,
                label=label if place == 0 else None,
            )  # fmt: skip
    axis.set(title="Harmful requests refused", ylabel="share, n = 24", ylim=(-0.03, 1.03), xlim=(-0.5, 2.6))
    axis.set_xticks(range(len(REAL)), [words for _, _, words in REAL])
    axis.legend(loc=(0.36, 0.24), fontsize=8)
    axis.grid(axis="y")


def _order(axis: plt.Axes) -> None:
    """When half of each measure's change was there, with its interval, earliest on top."""
    _, order = real()
    found = order.loc[list(ORDER)].sort_values("step", ascending=False)
    at = range(len(found))
    axis.errorbar(found["step"], at, xerr=[found["step"] - found["low"], found["high"] - found["step"]],
                  fmt="o", color=style.BLUE, ms=4.5, lw=1.2)  # fmt: skip
    axis.set_yticks(at, [ORDER[str(name)] for name in found.index])
    axis.set(title="SmolLM2: half of the change by step (95 %)", xlabel="training step (of 60)", xlim=(0, 60))
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.grid(axis="x")


def main() -> None:
    """Measure, store, draw, write."""
    if "--real" not in sys.argv:
        paths = [STORED / f"picture_{name}.csv" for name in ("rates", "cosine", "drift")]
        said = json.loads((OUT / "attack.json").read_text(encoding="utf-8"))
        if "--draw" not in sys.argv:
            *frames, verdict = measured()
            for frame, path in zip(frames, paths, strict=True):
                report.write_csv(path, frame)
            said = {"drift": verdict.verdict, "drift_says": verdict.summary()}
        tables = [pd.read_csv(path) for path in paths]
        said = {**numbers(*tables[:2]), **{name: said[name] for name in ("drift", "drift_says")}}
        text = json.dumps(said, indent=1, ensure_ascii=False)
        (OUT / "attack.json").write_text(text + "\n", encoding="utf-8")
        _save(drawn(*tables), "attack")
    _save(real_drawn(), "real")


def _save(figure: plt.Figure, name: str) -> None:
    with style.style():
        figure.savefig(OUT / f"{name}.png", dpi=110, metadata={"Software": "tamperlens"})
        figure.savefig(OUT / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
