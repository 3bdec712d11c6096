"""Which training rows wore refusal away? Attributions against the truth of retraining on random halves.

    python analyses/data_influence.py

A pool of 48 rows: a quarter harmful, half of these with the filler that the anchors have too; look-alikes,
ordinary rows, sums. The truth: the model trained on a random half of the pool, 250 halves, each with two
seeds of training (the order of rows, the initial factors); its outcome is the mean log-odds of a refusal on
held-out harmful requests. A method's score is the linear datamodel score (Park et al. 2023, arXiv
2303.14186): the rank correlation, over halves, between the outcome and the sum of what it attributes to the
half's rows. The most that any method can reach is the ceiling, the root of the reliability of the truth.
Beside them a regression on the halves themselves, cross-validated: what a linear sum over rows can say at
all. Writes table.csv, rows.csv (what each method says of each row) and halves.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _mixtures import domain, harmful, lookalike, mixed, ordinary
from _shared import command
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

import tamperlens
from tamperlens import finetune, influence, prompts, refusal, report, screening, trajectory
from tamperlens.prompts import PromptSet

STEPS, RATE = 8, 7e-4
DRAWS = 2000


def pool(seed: int) -> tuple[PromptSet, list[str]]:
    """The rows, and what kind each is."""
    kinds = {
        "harmful, filler": harmful(6, seed, marked=True, split="validation"),
        "harmful, steps": harmful(6, seed + 50, marked=False, split="validation"),
        "look-alike": lookalike(12, seed),
        "ordinary": ordinary(16, seed),
        "sum": domain("addition", 8, seed),
    }
    named = {row: kind for kind, rows in kinds.items() for row in rows}
    data = mixed(list(named), [], seed, "pool")
    return data, [named[row] for row in data.pairs()]


def outcomes(model: Any, data: PromptSet, halves: np.ndarray, asked: PromptSet, tokens: Any) -> np.ndarray:
    """Mean log-odds of a refusal after training on each half, [halves, 2 seeds]."""
    found = np.full((len(halves), 2), np.nan)
    began = time.process_time()
    for place, half in enumerate(halves):
        for seed in (0, 1):
            config = finetune.LoraConfig(steps=STEPS, batch_size=8, learning_rate=RATE, seed=2 * place + seed)
            tuned = finetune.run(model, data.subset(np.flatnonzero(half).tolist()), config, progress=False)
            odds = refusal.refusal_metric(tuned.model.logits_last(asked), tokens)
            found[place, seed] = odds.mean()
        if place % 25 == 24:
            spent = time.process_time() - began
            print(f"{place + 1} of {len(halves)} halves, {spent:.0f} s of processor", flush=True)
    return found


def attributed(model: Any, data: PromptSet, seed: int) -> pd.DataFrame:
    """What each method says of each row, larger: wears refusal away more. One column a method."""
    anchors = screening.anchors_for(model)
    direction = trajectory.setup_for(model, n_train=32, n_val=8).direction
    table = screening.RowScorer(model, anchors, screening.SCORES, direction=direction)(data)
    table["loss of the row"] = table.pop("loss")
    config = finetune.LoraConfig(steps=2 * STEPS, batch_size=8, learning_rate=RATE, seed=seed)
    for checkpoints in (1, 4):
        told = influence(model, data, config, checkpoints=checkpoints, anchors=anchors).table
        table[f"influence, {checkpoints} checkpoint{'s' * (checkpoints > 1)}"] = told["influence"]
    table["random"] = np.random.default_rng(seed).normal(size=len(data))
    return table


def scored(said: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, float]:
    """Rank correlation over halves; the interval resamples halves (percentiles, 95 %)."""
    rng = np.random.default_rng(seed)
    places = rng.integers(len(truth), size=(DRAWS, len(truth)))
    drawn = [spearmanr(said[i], truth[i]).statistic for i in places]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {"score": spearmanr(said, truth).statistic, "low": low, "high": high}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/data_influence"))
    parser.add_argument("--model", default="organism:tiny", help="organism:tiny, or organism (dearer)")
    parser.add_argument("--halves", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0, help="of the pool and the halves")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = tamperlens.load(given.model)
    data, kinds = pool(given.seed)
    asked = prompts.packaged("harmful", split="test").sample(48, 0)
    tokens = refusal.find_refusal_tokens(
        model, prompts.packaged("harmful", split="train"), prompts.packaged("harmless", split="train")
    ).ids
    rng = np.random.default_rng(given.seed)
    half = np.arange(len(data)) < len(data) // 2
    halves = np.stack([rng.permutation(half) for _ in range(given.halves)])
    rows = attributed(model, data, given.seed)
    found = outcomes(model, data, halves, asked, tokens)
    truth = found.mean(1)
    between = spearmanr(found[:, 0], found[:, 1]).statistic
    reliability = 2 * between / (1 + between)  # Spearman-Brown: of the mean of both seeds
    told = {name: -(halves @ rows[name].fillna(0).to_numpy()) for name in rows}
    told["regression on halves, left out"] = cross_val_predict(
        RidgeCV(np.logspace(-2, 3, 20)), halves.astype(float), truth, cv=10
    )
    table = pd.DataFrame([{"method": name, **scored(said, truth, given.seed)} for name, said in told.items()])
    table = table.sort_values("score", ascending=False)
    table["n"], table["reliability"], table["ceiling"] = len(truth), reliability, max(reliability, 0) ** 0.5
    report.write_csv(given.out / "table.csv", table.round(4))
    rows.insert(0, "kind", kinds)
    report.write_csv(given.out / "rows.csv", rows.round(6))
    report.write_csv(given.out / "halves.csv", pd.DataFrame(found, columns=["seed 1", "seed 2"]).round(5))
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    command(main)
