"""Freeze a set of weights, fine-tune, find the set again: is it the same one? (experiment 1)

    python analyses/neuron_overlap.py
    python analyses/neuron_overlap.py --model FOLDER --safety refused.csv --utility instructions.csv

For each set (top safety, safety-critical, top utility) and seed: fine-tune with the set frozen bit for
bit, score the tuned model on the same data, choose the set again, and put the overlap beside chance and
beside the overlap of the untouched model with itself on other halves of the data. Writes table.csv, a
figure and a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from _shared import header, options, pairs, write

import tamperlens
from tamperlens import finetune, neurons, plots, stats

PUBLISHED = {"safety-critical": (0.26, 0.15), "top safety": (0.39, 0.24), "top utility": (0.51, 0.34)}


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--attack", default="benign", help="what to fine-tune on: see finetune.attacks")
    parser.add_argument("--steps", type=int, help="optimizer steps; the attack's own by default")
    parser.add_argument("--fraction", type=float, default=0.01)
    parser.add_argument("--splits", type=int, default=2, help="halvings of the data for the noise floor")
    given = parser.parse_args()
    model = tamperlens.load(given.model)
    safety = pairs(given.safety, "harmful", given.n_score)
    utility = pairs(given.utility, "benign", given.n_score)
    attack = finetune.attacks.get(given.attack)()

    def top(model: tamperlens.ChatModel, data: tamperlens.PromptSet) -> neurons.WeightMask:
        return neurons.snip(model, data).top(given.fraction)

    def critical(
        model: tamperlens.ChatModel, data: tamperlens.PromptSet, other: tamperlens.PromptSet
    ) -> neurons.WeightMask:
        return neurons.set_difference(neurons.snip(model, data), neurons.snip(model, other), p=0.1, q=0.1)

    kinds: dict[str, tuple[Callable[..., neurons.WeightMask], tuple[tamperlens.PromptSet, ...]]] = {
        "top safety": (top, (safety,)),
        "safety-critical": (critical, (safety, utility)),
        "top utility": (top, (utility,)),
    }
    rows = []
    for name, (choose, data) in kinds.items():
        before = choose(model, *data)

        def on_base(*halves: tamperlens.PromptSet, how: Callable[..., neurons.WeightMask] = choose):  # type: ignore[no-untyped-def]
            return how(model, *halves)

        floor = neurons.noise_floor(on_base, *data, splits=given.splits)
        for seed in range(given.seeds):
            config = attack.config_for(model, seed=seed, **({"steps": given.steps} if given.steps else {}))
            tuned = finetune.run(model, attack.data, config, freeze=before, progress=False)
            found = neurons.overlap(before, choose(tuned.model, *data), floor=floor)
            rows.append(
                {
                    "set": name, "seed": seed, "n_weights": before.count, "density": before.density,
                    "kept": found.kept, "kept_chance": found.kept_chance, "jaccard": found.jaccard,
                    "chance": found.chance, "floor": floor.halves.value,
                    "published_kept": PUBLISHED[name][0], "published_jaccard": PUBLISHED[name][1],
                }
            )  # fmt: skip
            print(f"{name}, seed {seed}: {found}", flush=True)
    table = pd.DataFrame(rows)
    dots, lines = [], []
    for name, part in table.groupby("set", sort=False):
        mean = stats.bootstrap(part["jaccard"].to_numpy())
        series = {
            "after fine-tuning": mean,
            "same model, other half": stats.Estimate(part["floor"].iloc[0], math.nan, math.nan, given.splits),
            "chance": stats.Estimate(part["chance"].mean(), math.nan, math.nan, given.seeds),
        }
        for label, value in series.items():
            low, high = (value.value if math.isnan(v) else v for v in (value.low, value.high))
            dots.append(
                {"panel": "", "label": name, "series": label, "value": value.value, "low": low, "high": high,
                 "n": value.n}
            )  # fmt: skip
        above = "above" if mean.low > part["floor"].iloc[0] else "not above"
        lines.append(
            f"- {name}: Jaccard {mean} over seeds, kept {part['kept'].mean():.2f}; chance "
            f"{part['chance'].mean():.3f}; the untouched model on other halves of the data "
            f"{part['floor'].iloc[0]:.3f}, so the overlap is {above} what re-scoring alone gives. Published: "
            f"kept {PUBLISHED[str(name)][0]:.2f}, Jaccard {PUBLISHED[str(name)][1]:.2f}."
        )
    figure = plots.dot_interval(
        pd.DataFrame(dots),
        name="overlap",
        title="The same set after fine-tuning with it frozen?",
        caption=f"Jaccard of the set before and after; mean over {given.seeds} seeds, bootstrap interval.",
        axis="Jaccard",
    )
    note = (
        "The noise floor uses half as many examples as the sets, so it is a lower bound on their stability. "
        "In the published runs 'frozen' meant rows of B set to zero, and the tuned model was scored without "
        "its adapter."
    )
    write(given.out, table, "\n".join([header(model, given), "", *lines, "", note]), [figure])


if __name__ == "__main__":
    main()
