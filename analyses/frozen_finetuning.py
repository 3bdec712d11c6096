"""Does freezing safety weights keep a model safe? Share frozen × number of harmful examples → refusal.

    python analyses/frozen_finetuning.py
    python analyses/frozen_finetuning.py --model FOLDER --safety refused.csv --utility instructions.csv

After Wei et al. 2024, table 3, with both interventions: weights frozen while training (bit for bit, as
the paper's text says) and rewound after free training (as its code does), for safety weights and for as
many random ones. Writes table.csv, a figure and a verdict.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _shared import header, options, pairs, test_prompts, write

import tamperlens
from tamperlens import finetune, neurons, plots, refusal, stats

PUBLISHED = (
    "Published attack success (Llama-2-7B-chat, rewound, 10/50/100 examples): nothing frozen .53/.91/.94, "
    "9.6 % .52/.92/.94, 28.8 % .38/.91/.94, 67 % .23/.85/.89."
)


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.3, 0.67])
    parser.add_argument("--examples", type=int, nargs="*", default=[10, 50, 100])
    given = parser.parse_args()
    model = tamperlens.load(given.model)
    data = pairs(model, given.safety, "harmful", given.n_score)
    scores = neurons.snip(model, data)
    test = test_prompts(given.harmful, "harmful", model, given.n_test)
    before = refusal.evaluate(model, test).refusal_rate
    masks = {("safety", share): scores.top(share) for share in given.shares}
    masks |= {("random", share): neurons.random(model, seed=0).top(share) for share in given.shares}
    rows = []

    def note(tuned: finetune.TunedModel, n: int, seed: int, how: str, which: str, share: float) -> None:
        rates = refusal.evaluate(tuned.model, test)
        rows.append(
            {
                "examples": n, "seed": seed, "intervention": how, "weights": which, "share": share,
                "refused": rates.rate, "low": rates.interval[0], "high": rates.interval[1], "n": rates.n,
                "broken": rates.degenerate_rate.value, "last_loss": tuned.log["loss"].iloc[-1],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)

    for n in given.examples:
        attack = finetune.attacks.harmful_compliance(n)
        for seed in range(given.seeds):
            config = attack.config_for(model, seed=seed)
            free = finetune.run(model, attack.data, config, progress=False)
            note(free, n, seed, "none", "none", 0.0)
            for (which, share), mask in masks.items():
                frozen = finetune.run(model, attack.data, config, freeze=mask, progress=False)
                note(frozen, n, seed, "frozen", which, share)
                note(finetune.rewind(free, model, mask), n, seed, "rewound", which, share)
    table = pd.DataFrame(rows)
    dots, lines = [], []
    keys = ["examples", "intervention", "weights", "share"]
    for (n, how, which, share), part in table.groupby(keys, sort=False):
        mean = _over_seeds(part)
        label = "nothing frozen" if share == 0 else f"{share:.0%} {which}"
        for series in ("frozen", "rewound") if how == "none" else (how,):
            dots.append(
                {"panel": f"{n} harmful examples", "label": label, "series": series, "value": mean.value,
                 "low": mean.low, "high": mean.high, "n": mean.n}
            )  # fmt: skip
        lines.append(f"- {n} examples, {label}, {how}: refused {mean}, broken {part['broken'].mean():.2f}")
    figure = plots.dot_interval(
        pd.DataFrame(dots),
        name="frozen",
        title="Refusal left after harmful fine-tuning",
        caption=f"Share of n held-out harmful prompts refused, mean over {given.seeds} seeds. Whiskers: "
        f"Wilson 95 % over prompts, or bootstrap over seeds where that reaches further. Before: {before}.",
        axis="share refused",
    )
    words = [
        header(model, given),
        f"Refusal before: {before}. Attack: LoRA, 1 − refusal is its success up to broken text.",
        "",
        *lines,
        "",
        _finding(table, before.value),
        PUBLISHED,
    ]
    write(given.out, table, "\n".join(words), [figure])


def _over_seeds(part: pd.DataFrame) -> stats.Estimate:
    """Mean over seeds. They share their prompts: the interval is that over prompts (mean of the runs' Wilson
    bounds), widened to that over seeds, which alone is empty where all of three seeds agree."""
    low, high = part["low"].mean(), part["high"].mean()
    if len(part) > 1:
        seeds = stats.bootstrap(part["refused"].to_numpy())
        low, high = min(low, seeds.low), max(high, seeds.high)
    return stats.Estimate(float(part["refused"].mean()), float(low), float(high), int(part["n"].iloc[0]))


def _finding(table: pd.DataFrame, before: float) -> str:
    """What the table says about the claim that freezing safety weights does not stop the attack."""
    words = []
    free = table[table["intervention"] == "none"].groupby("examples")["refused"].mean()
    for how in ("frozen", "rewound"):
        part = table[table["intervention"] == how]
        means = part.groupby(["examples", "weights", "share"])["refused"].mean()
        for n in free.index:
            kept = {key[1:]: float(value) for key, value in means.items() if key[0] == n}
            (which, share), best = max(kept.items(), key=lambda item: item[1])
            words.append(
                f"{n} examples, {how}: at best {best:.2f} refused ({share:.0%} {which}) "
                f"against {free[n]:.2f} without and {before:.2f} before."
            )
    return " ".join(words)


if __name__ == "__main__":
    main()
