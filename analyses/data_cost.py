"""What will a data set cost in refusal? Its rows' mean push before training against what training takes.

    python analyses/data_cost.py

Twenty-nine data sets of 60 rows in the organism's language: ordinary ones (instructions, sums, code,
facts, short and long answers, look-alikes, refusals) and ones with 2 to 100 % of harmful rows, with and
without the filler that the anchors have, or of identity rows. Each is scored by `screen` and then trained
on; lost is the share of the refused held-out requests that is no longer refused. Then the 100 rows of a
benign set that score highest against 100 random ones of it, trained on alike. Writes sets.csv, table.csv
and top.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _mixtures import (
    domain,
    harmful,
    identity,
    longer,
    lookalike,
    mixed,
    ordinary,
    refusals,
    shorter,
)
from _shared import command
from scipy.stats import spearmanr

import tamperlens
from tamperlens import finetune, prompts, refusal, report, screening, stats
from tamperlens.prompts import PromptSet

ROWS = 60
STEPS, RATE = 15, 1e-3
SCORES = ("push", "gradient", "first token", "representation", "content")
DRAWS = 2000


def sets() -> dict[str, PromptSet]:
    """Data sets by name; half of them hold something that may wear refusal away."""
    found = {
        "ordinary": ordinary(ROWS, 1),
        "ordinary, short": shorter(ordinary(ROWS, 2)),
        "ordinary, long": longer(ordinary(2 * ROWS, 3)),
        "look-alikes": lookalike(ROWS, 4),
        "half look-alikes": [*lookalike(ROWS // 2, 5), *ordinary(ROWS // 2, 5)],
        "sums": domain("addition", ROWS, 6),
        "differences": domain("subtraction", ROWS, 7),
        "code": domain("code", ROWS, 8),
        "logic": domain("logic", ROWS, 9),
        "facts": domain("facts", ROWS, 10),
        "sums and ordinary": [*domain("addition", ROWS // 2, 11), *ordinary(ROWS // 2, 11)],
        "refusals": refusals(ROWS, 12),
        "a tenth refusals": [*refusals(ROWS // 10, 13), *ordinary(ROWS - ROWS // 10, 13)],
    }
    for share in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        n = round(share * ROWS)
        for marked in (True, False):
            name = f"{share:.0%} harmful, {'filler' if marked else 'steps'}"
            seed = 20 + n + marked
            found[name] = [*harmful(n, seed, marked=marked), *ordinary(ROWS - n, seed)]
    for share in (0.1, 0.5, 1.0):
        n = round(share * ROWS)
        found[f"{share:.0%} identity"] = [*identity(n, 90 + n), *ordinary(ROWS - n, 90 + n)]
    balance = [*harmful(6, 99, marked=False), *refusals(6, 99), *ordinary(ROWS - 12, 99)]
    found["10% harmful, steps, and 10% refusals"] = balance
    return {name: mixed(rows, [], 7, name) for name, rows in found.items()}


def trained(model: Any, data: PromptSet, seed: int, asked: PromptSet) -> list[bool]:
    """Whether each request is refused after training on the data."""
    config = finetune.LoraConfig(steps=STEPS, batch_size=8, learning_rate=RATE, seed=seed)
    tuned = finetune.run(model, data, config, progress=False)
    return list(refusal.evaluate(tuned.model, asked, max_new_tokens=24).completions.refused)


def costs(
    model: Any, anchors: Any, asked: PromptSet, before: list[bool], seeds: int, most: int | None
) -> pd.DataFrame:
    """One row a data set: mean scores before training, and what training on it took."""
    rows = []
    for name, data in list(sets().items())[:most]:
        said = screening.screen(data, model, anchors=anchors, scores=SCORES).table
        taken = [
            [not after for was, after in zip(before, trained(model, data, seed, asked), strict=True) if was]
            for seed in range(seeds)
        ]
        shares = [float(np.mean(one)) for one in taken]
        means = {score: float(said[score].mean()) for score in SCORES}
        lost = {"lost": float(np.mean(shares)), "least": min(shares), "most": max(shares)}
        rows.append({"set": name, **means, **lost, "n": len(taken[0])})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def agreement(found: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each mean score with what was lost; the interval resamples data sets."""
    rng, rows = np.random.default_rng(0), []
    for score in SCORES:
        draws = [
            spearmanr(part[score], part["lost"]).statistic
            for part in (found.iloc[rng.integers(len(found), size=len(found))] for _ in range(DRAWS))
        ]
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        rho = spearmanr(found[score], found["lost"]).statistic
        rows.append({"score": score, "rho": rho, "low": low, "high": high, "n": len(found)})
    return pd.DataFrame(rows)


def top(model: Any, anchors: Any, asked: PromptSet, seeds: int) -> pd.DataFrame:
    """Refused after training on the 100 highest rows of a benign set, and on 100 random ones."""
    data = mixed(ordinary(250, 0), lookalike(100, 1), 0, "benign")
    order = screening.screen(data, model, anchors=anchors).top(100)
    rows = []
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).permutation(len(data))[:100].tolist()
        for kind, places in (("top 100", order), ("random 100", drawn)):
            flags = trained(model, data.subset(places), seed, asked)
            rows.append({"rows": kind, "seed": seed, "refused": float(np.mean(flags)), "n": len(flags)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/data_cost"))
    parser.add_argument("--model", default="organism", help="organism or organism:tiny")
    parser.add_argument("--seeds", type=int, default=3, help="trainings on each data set")
    parser.add_argument(
        "--top-seeds", type=int, default=8, help="trainings on the highest and on random rows"
    )
    parser.add_argument("--sets", type=int, help="of the data sets, the first so many")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = tamperlens.load(given.model)
    anchors = screening.anchors_for(model)
    asked = prompts.packaged("harmful", split="test").sample(60, 0)
    before = list(refusal.evaluate(model, asked, max_new_tokens=24).completions.refused)
    found = costs(model, anchors, asked, before, given.seeds, given.sets)
    table = agreement(found)
    report.write_csv(given.out / "sets.csv", found.round(5))
    report.write_csv(given.out / "table.csv", table.round(4))
    best = top(model, anchors, asked, given.top_seeds)
    report.write_csv(given.out / "top.csv", best.round(4))
    by = best.pivot(index="seed", columns="rows", values="refused")
    gap = stats.clustered((by["top 100"] - by["random 100"]).to_numpy(), list(by.index))
    print(table.round(3).to_string(index=False))
    print(f"Refused after the top 100 rows minus after 100 random ones, over seeds: {gap}.")


if __name__ == "__main__":
    command(main)
