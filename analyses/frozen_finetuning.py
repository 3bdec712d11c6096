"""Does freezing safety weights keep a model safe? Share frozen × number of harmful examples → refusal.

    python analyses/frozen_finetuning.py
    python analyses/frozen_finetuning.py --model FOLDER --harmful jailbreakbench.csv --attack advbench.csv

After Wei et al. 2024, table 3, with both interventions: weights frozen while training (bit for bit, as
the paper's text says) and rewound after free training (as its code does), for safety weights and for as
many random ones. Writes table.csv, a figure and a verdict.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _shared import (
    answered,
    command,
    header,
    must_refuse,
    options,
    prompt_file,
    scoring_data,
    sized,
    test_prompts,
    without,
    write,
)

import tamperlens
from tamperlens import finetune, neurons, plots, refusal, stats

PUBLISHED = (
    "Published attack success (Llama-2-7B-chat, rewound, 10/50/100 examples): nothing frozen .53/.91/.94, "
    "9.6 % .52/.92/.94, 28.8 % .38/.91/.94, 67 % .23/.85/.89."
)


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--shares", type=float, nargs="*")
    parser.add_argument("--examples", type=int, nargs="*")
    parser.add_argument("--attack", type=prompt_file("attack"), help="harmful prompts with compliance")
    parser.add_argument("--preset", choices=finetune.attacks.PRESETS, help="by language by default")
    parser.add_argument("--rewound", action="store_true",
                        help="rewind only: a third of the time, no training with weights frozen")  # fmt: skip
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model, {"shares": [0.1, 0.3, 0.67], "examples": [10, 50, 100]},
          {"shares": [0.1], "examples": [15]})  # fmt: skip
    test = test_prompts(given.harmful, "harmful", model, given.n_test)
    pool = None if given.attack is None else without(answered(given.attack, "attack"), test)

    def attack_of(n: int) -> finetune.Attack:
        if pool is not None:
            return finetune.attacks.harmful_compliance(n, pool)
        return finetune.attacks.for_model("harmful-compliance", model, n)

    attacks = [attack_of(n) for n in given.examples]
    before = refusal.evaluate(model, test, max_new_tokens=given.max_new_tokens).refusal_rate
    must_refuse(model, before, test.name, given.anyway)
    data, _ = scoring_data(model, given)
    scores = neurons.snip(model, data)
    masks = {("safety", share): scores.top(share) for share in given.shares}
    masks |= {("random", share): neurons.random(model, seed=0).top(share) for share in given.shares}
    rows = []

    def note(tuned: finetune.TunedModel, n: int, seed: int, how: str, which: str, share: float) -> None:
        rates = refusal.evaluate(tuned.model, test, max_new_tokens=given.max_new_tokens)
        taught = finetune.learned(model, tuned, attack.data)
        rows.append(
            {
                "examples": n, "seed": seed, "intervention": how, "weights": which, "share": share,
                "before": before.value, "before_low": before.low, "before_high": before.high,
                "refused": rates.rate, "low": rates.interval[0], "high": rates.interval[1], "n": rates.n,
                "degenerate": rates.degenerate_rate.value, "loss": taught.after, "loss_before": taught.before,
                "learned": taught.learned, "seconds": tuned.accounting.wall_seconds,
            }
        )  # fmt: skip
        print(rows[-1], flush=True)

    for n, attack in zip(given.examples, attacks, strict=True):
        for seed in range(given.seeds):
            config = attack.config_for(model, preset=given.preset, seed=seed)
            free = finetune.run(model, attack.data, config, progress=False)
            note(free, n, seed, "none", "none", 0.0)
            for (which, share), mask in masks.items():
                if not given.rewound:
                    frozen = finetune.run(model, attack.data, config, freeze=mask, progress=False)
                    note(frozen, n, seed, "frozen", which, share)
                note(finetune.rewind(free, model, mask), n, seed, "rewound", which, share)
    table = pd.DataFrame(rows)
    dots, lines = [], []
    keys = ["examples", "intervention", "weights", "share"]
    hows = [one for one in ("frozen", "rewound") if one in set(table["intervention"])]
    for (n, how, which, share), part in table.groupby(keys, sort=False):
        mean = _over_seeds(part)
        label = "nothing frozen" if share == 0 else f"{share:.0%} {which}"
        for series in hows if how == "none" else (how,):
            dots.append(
                {"panel": f"{n} harmful examples", "label": label, "series": series, "value": mean.value,
                 "low": mean.low, "high": mean.high, "n": mean.n}
            )  # fmt: skip
        lines.append(
            f"- {n} examples, {label}, {how}: refused {mean}, degenerate {part['degenerate'].mean():.2f}; "
            f"loss {part['loss_before'].mean():.2f} → {part['loss'].mean():.2f}"
            + ("" if part["learned"].all() else ", not learned")
        )
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
        f"Refusal before: {before} of {test.name}. Attack: LoRA on {attacks[-1].data.name}, "
        f"{given.preset or attacks[-1].preset_for(model)} settings; 1 − refusal is its success up to "
        f"degenerate answers. Weights scored on {data.name}, n {len(data)}.",
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
    for how, part in table[table["intervention"] != "none"].groupby("intervention", sort=False):
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
    command(main)
