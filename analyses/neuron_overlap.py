"""Freeze a set of weights, fine-tune, find the set again: is it the same one? (experiment 1)

    python analyses/neuron_overlap.py
    python analyses/neuron_overlap.py --model FOLDER --safety refused.csv --utility instructions.csv

For each set (top safety, safety-critical, top utility) and seed: fine-tune with the set frozen bit for
bit, score the tuned model on the same data, choose the set again, and put the overlap beside chance. How
much is lost to fine-tuning, and how much to scoring on other prompts, is told apart on halves of the data:
the untouched model on one half against itself, and against the tuned model, on the other. Writes
table.csv, a figure and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from _shared import attack_name, fine_tuning, header, options, pairs, write

import tamperlens
from tamperlens import finetune, neurons, plots, stats

PUBLISHED = {"safety-critical": (0.26, 0.15), "top safety": (0.39, 0.24), "top utility": (0.51, 0.34)}


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--attack", type=attack_name, default="benign", help="an attack, or a file of pairs")
    parser.add_argument("--steps", type=int, help="optimizer steps; the attack's own by default")
    parser.add_argument("--fraction", type=float, default=0.01)
    parser.add_argument("--splits", type=int, default=3, help="halvings of the data for the noise floor")
    given = parser.parse_args()
    model = tamperlens.load(given.model)
    safety = pairs(model, given.safety, "harmful", given.n_score)
    utility = pairs(model, given.utility, "benign", given.n_score)
    attack = fine_tuning(given.attack)

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
        halves = [
            [one.split([len(one) // 2, len(one) // 2], seed=split) for one in data]
            for split in range(given.splits)
        ]
        firsts = [choose(model, *(first for first, _ in sides)) for sides in halves]
        for seed in range(given.seeds):
            config = attack.config_for(model, seed=seed, **({"steps": given.steps} if given.steps else {}))
            tuned = finetune.run(model, attack.data, config, freeze=before, progress=False)
            found = neurons.overlap(before, choose(tuned.model, *data), floor=floor)
            again = [choose(tuned.model, *(second for _, second in sides)) for sides in halves]
            across = [float(a.jaccard(b)) for a, b in zip(firsts, again, strict=True)]
            rows.append(
                {
                    "set": name, "seed": seed, "n_weights": before.count, "density": before.density,
                    "kept": found.kept, "kept_chance": found.kept_chance, "jaccard": found.jaccard,
                    "chance": found.chance, "halves": sum(across) / len(across),
                    "floor": floor.halves.value, "floor_low": floor.halves.low,
                    "floor_high": floor.halves.high,
                    "published_kept": PUBLISHED[name][0], "published_jaccard": PUBLISHED[name][1],
                }
            )  # fmt: skip
            print(f"{name}, seed {seed}: {found}", flush=True)
    table = pd.DataFrame(rows)
    dots, lines = [], []
    for name, part in table.groupby("set", sort=False):
        mean = stats.bootstrap(part["jaccard"].to_numpy())
        across = stats.bootstrap(part["halves"].to_numpy())
        floor, least, most = part[["floor", "floor_low", "floor_high"]].iloc[0]
        chance = part["chance"].mean()
        series = {
            "after fine-tuning": mean,
            "after fine-tuning, other half": across,
            "untouched, other half": stats.Estimate(floor, least, most, given.seeds),
            "chance": stats.Estimate(chance, chance, chance, given.seeds),
        }
        dots += [
            {"panel": "", "label": name, "series": label, "value": value.value, "low": value.low,
             "high": value.high, "n": value.n}
            for label, value in series.items()
        ]  # fmt: skip
        # Seeds share the halvings, so the halvings' own range is what a difference must leave.
        moved = (
            "took some" if across.high < least else "added some" if across.low > most else "changed nothing"
        )
        lines.append(
            f"- {name}: Jaccard {mean} over seeds, kept {part['kept'].mean():.2f}; chance {chance:.3f}. On "
            f"halves of the data {across}, the untouched model with itself {floor:.3f} "
            f"[{least:.3f}, {most:.3f}]: fine-tuning {moved} "
            f"beyond that range. Published: kept {PUBLISHED[str(name)][0]:.2f}, Jaccard "
            f"{PUBLISHED[str(name)][1]:.2f}."
        )
    figure = plots.dot_interval(
        pd.DataFrame(dots),
        name="overlap",
        title="The same set after fine-tuning with it frozen?",
        caption=f"Jaccard of the set before and after; mean over {given.seeds} seeds, bootstrap interval; "
        f"halves: mean over {given.splits} halvings of the data.",
        axis="Jaccard",
    )
    note = (
        "Halves hold half as many examples, so their overlap lies below that of the whole data. In the "
        "published runs 'frozen' meant rows of B set to zero, and the tuned model was scored without "
        "its adapter."
    )
    write(given.out, table, "\n".join([header(model, given), "", *lines, "", note]), [figure])


if __name__ == "__main__":
    main()
