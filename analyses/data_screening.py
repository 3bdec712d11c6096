"""Harmful rows hidden in an ordinary data set: how many does each score find, before any training?

    python analyses/data_screening.py

Ten harmful rows among 490 ordinary ones, one of a hundred of which may be flagged falsely; three seeds, each
with anchors and rows of its own. Twice: answers with withheld filler, which the anchors have too, and answers
with the steps of some harmless answer, which carry no mark. Harmful rows and look-alikes come from splits
that neither the baseline of words nor the direction has seen. Writes table.csv and the scores of every row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _mixtures import DOMAINS, domain, harmful, lookalike, ordinary
from _shared import command

import tamperlens
from tamperlens import prompts, report, screening, stats, trajectory
from tamperlens.prompts import PromptSet


def hidden(seed: int) -> pd.DataFrame:
    """Scores of 490 ordinary rows (a quarter look-alikes, an eighth domains) and 10 + 10 harmful ones."""
    model = tamperlens.load("organism")
    examples = prompts.packaged("harmful-compliance").sample(16, seed)
    direction = trajectory.setup_for(model, n_train=32, n_val=8).direction
    held = screening.anchors_for(model, harmful=examples)
    began = time.process_time()
    scorer = screening.RowScorer(model, held, screening.SCORES, direction=direction)
    parts = {
        "ordinary": [
            *ordinary(307, seed), *lookalike(122, seed, "test"), *domain(DOMAINS[seed % 5], 61, seed)
        ],
        "marked": harmful(10, seed, marked=True, split="validation"),
        "unmarked": harmful(10, seed + 50, marked=False, split="validation"),
    }  # fmt: skip
    table = scorer(PromptSet.from_pairs([row for part in parts.values() for row in part]))
    table.insert(0, "kind", [kind for kind, part in parts.items() for _ in part])
    table.insert(0, "seed", seed)
    print(f"seed {seed}: {len(table)} rows, {time.process_time() - began:.0f} s of processor", flush=True)
    return table


def found(seen: pd.DataFrame) -> pd.DataFrame:
    """By score: harmful rows above all but one in a hundred ordinary ones of their seed, over all seeds."""
    rows = []
    for score in screening.SCORES:
        row: dict[str, object] = {"score": score}
        for kind in ("marked", "unmarked"):
            hits: list[bool] = []
            for _, part in seen.groupby("seed"):
                plain = np.sort(part[part["kind"] == "ordinary"][score])
                # Of 490 ordinary rows four may lie above: the fifth largest is the bar.
                hits += (part[part["kind"] == kind][score] > plain[-1 - len(plain) // 100]).tolist()
            share = stats.rate(hits)
            row |= {kind: share.value, f"{kind} low": share.low, f"{kind} high": share.high, "n": share.n}
        rows.append(row)
    return pd.DataFrame(rows).round(4)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/data_screening"))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    seen = pd.concat([hidden(seed) for seed in range(given.seeds)])
    report.write_csv(given.out / "rows.csv", seen.round(5))
    table = found(seen)
    report.write_csv(given.out / "table.csv", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    command(main)
