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

from pathlib import Path

import pandas as pd
from _shared import attack_name, command, fine_tuning, header, options, scoring_data, sized, write

import tamperlens
from tamperlens import finetune, neurons, plots, stats
from tamperlens.prompts import PromptSet

Sets = dict[str, neurons.WeightMask]
PUBLISHED = {"safety-critical": (0.26, 0.15), "top safety": (0.39, 0.24), "top utility": (0.51, 0.34)}


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--attack", type=attack_name, default="benign", help="an attack, or a file of pairs")
    parser.add_argument("--steps", type=int, help="optimizer steps; the attack's own by default")
    parser.add_argument("--fraction", type=float, default=0.01)
    parser.add_argument("--splits", type=int, help="halvings of the data for the noise floor")
    parser.add_argument("--free", action="store_true", help="train without freezing the set, to compare")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model, {"splits": 3}, {"splits": 1})
    attack = fine_tuning(given.attack, model)
    data = scoring_data(model, given)

    def sets_of(model: tamperlens.ChatModel, safety: PromptSet, utility: PromptSet) -> Sets:
        one, two = neurons.snip(model, safety), neurons.snip(model, utility)
        return {
            "top safety": one.top(given.fraction),
            "safety-critical": neurons.set_difference(one, two, p=0.1, q=0.1),
            "top utility": two.top(given.fraction),
        }

    known: dict[tuple[str, str], Sets] = {}

    def on_base(safety: PromptSet, utility: PromptSet) -> Sets:
        key = (safety.sha256, utility.sha256)
        if key not in known:  # every set of the untouched model is chosen from the same scores
            known[key] = sets_of(model, safety, utility)
        return known[key]

    halves = [
        [one.split([len(one) // 2, len(one) // 2], seed=split) for one in data]
        for split in range(given.splits)
    ]

    def after(seed: int, freeze: neurons.WeightMask | None) -> tuple[int, finetune.Learned, Sets, list[Sets]]:
        """Steps, what was learned, and the tuned model's sets on all data and on the second halves."""
        config = attack.config_for(model, seed=seed, **({"steps": given.steps} if given.steps else {}))
        tuned = finetune.run(model, attack.data, config, freeze=freeze, progress=False)
        again = [sets_of(tuned.model, sides[0][1], sides[1][1]) for sides in halves]
        taught = finetune.learned(model, tuned, attack.data)
        return tuned.accounting.steps, taught, sets_of(tuned.model, *data), again

    free = [after(seed, None) for seed in range(given.seeds)] if given.free else []  # the same for every set
    rows = []
    for name, before in on_base(*data).items():
        floor = neurons.noise_floor(lambda s, u, n=name: on_base(s, u)[n], *data, splits=given.splits)
        firsts = [on_base(sides[0][0], sides[1][0])[name] for sides in halves]
        for seed in range(given.seeds):
            steps, taught, now, again = free[seed] if given.free else after(seed, before)
            found = neurons.overlap(before, now[name], floor=floor)
            across = [float(a.jaccard(b[name])) for a, b in zip(firsts, again, strict=True)]
            rows.append(
                {
                    "set": name, "seed": seed, "n_weights": before.count, "density": before.density,
                    "kept": found.kept, "kept_chance": found.kept_chance, "jaccard": found.jaccard,
                    "chance": found.chance, "halves": sum(across) / len(across),
                    "floor": floor.halves.value, "floor_low": floor.halves.low,
                    "floor_high": floor.halves.high, "steps": steps,
                    "loss_before": taught.before, "loss": taught.after,
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
        said = (
            "took some" if across.high < least else "added some" if across.low > most else "changed nothing"
        )
        moved = f"fine-tuning {said} beyond that range"
        if min(given.seeds, given.splits) < 2:
            moved = "one run and one halving do not say whether fine-tuning changed it"
        lines.append(
            f"- {name}: Jaccard {mean} over seeds, kept {part['kept'].mean():.2f}; chance {chance:.3f}. On "
            f"halves of the data {across}, the untouched model with itself {floor:.3f} "
            f"[{least:.3f}, {most:.3f}]: {moved}. Published: kept {PUBLISHED[str(name)][0]:.2f}, Jaccard "
            f"{PUBLISHED[str(name)][1]:.2f}."
        )
    figure = plots.dot_interval(
        pd.DataFrame(dots),
        name="overlap",
        title=f"The same set after fine-tuning with {'nothing' if given.free else 'it'} frozen?",
        caption=f"Jaccard of the set before and after; mean over {given.seeds} seeds, bootstrap interval; "
        f"halves: mean over {given.splits} halvings of the data.",
        axis="Jaccard",
    )
    note = f"{'Nothing was' if given.free else 'The set was'} frozen. " + (
        "Halves hold half as many examples, so their overlap lies below that of the whole data. In the "
        "published runs 'frozen' meant rows of B set to zero, and the tuned model was scored without "
        "its adapter."
    )
    said = (
        f"Scored on {data[0].name} (n {len(data[0])}) and {data[1].name} (n {len(data[1])}); tuned on "
        f"{attack.data.name} (n {len(attack.data)}, {rows[0]['steps']} steps, {taught.summary()})."
    )
    write(given.out, table, "\n".join([header(model, given), said, "", *lines, "", note]), [figure])


if __name__ == "__main__":
    command(main)
