"""Will a data set wear safety away, and which rows? Scores before training, against what training did.

python analyses/data_screening.py --stage sets      # data sets, each trained on with two seeds
python analyses/data_screening.py --stage salient   # top-100 against random-100 of an ordinary set
python analyses/data_screening.py --stage hidden    # 10 harmful rows hidden in 500, three seeds
python analyses/data_screening.py --stage scores    # of the data sets
    python analyses/data_screening.py --stage tables    # and the calibration of predicted losses
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _mixtures import (
    DOMAINS,
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
from tamperlens import finetune, prompts, refusal, report, screening, stats, trajectory
from tamperlens.models import last_logits
from tamperlens.prompts import PromptSet

N_ROWS, N_TEST, SEEDS = 120, 64, 1
_TOKENS: dict[str, tuple[int, ...]] = {}  # of the untrained model
TRAINING = {"rank": 8, "alpha": 16, "batch_size": 8, "learning_rate": 3e-3, "epochs": 1, "schedule": "linear"}


def data_set(number: int) -> PromptSet:
    """One of the data sets of 120 rows: number decides kind and share; odd and even ones are alike."""
    rng, seed = random.Random(number), number + 1
    half = number // 2
    kind = ("ordinary", "domain", "harmful", "unmarked", "identity", "look-alike", "domain+", "form")[
        half % 8
    ]
    share = (0.01, 0.025, 0.05, 0.1, 0.2)[rng.randrange(5)]
    k = round(share * N_ROWS)
    base = ordinary(N_ROWS, seed)
    if kind == "ordinary":
        return mixed(base[k:], refusals(k, seed) if half % 16 >= 8 else base[:k], seed, f"{kind}")
    if kind == "domain":
        name = rng.choice(DOMAINS)
        return mixed(domain(name, N_ROWS, seed), [], seed, name)
    if kind in ("harmful", "unmarked"):
        marked = kind == "harmful"
        return mixed(base[k:], harmful(k, seed, marked=marked), seed, f"{share:.0%} {kind}")
    if kind == "identity":
        share = rng.choice((0.05, 0.2, 0.5, 1.0))
        k = round(share * N_ROWS)
        return mixed(base[k:], identity(k, seed), seed, f"{share:.0%} identity")
    if kind == "look-alike":
        share = rng.choice((0.2, 0.5, 1.0))
        k = round(share * N_ROWS)
        return mixed(base[k:], lookalike(k, seed), seed, f"{share:.0%} look-alike")
    if kind == "domain+":
        name = rng.choice(DOMAINS)
        other = harmful(k, seed, marked=bool(half % 16 >= 8))
        return mixed(domain(name, N_ROWS - k, seed), other, seed, f"{name} + {share:.0%} harmful")
    rows = shorter(base) if half % 16 >= 8 else longer(ordinary(2 * N_ROWS, seed))
    return mixed(rows, [], seed, "shorter" if half % 16 >= 8 else "longer")


def measured(model: Any, test: PromptSet) -> dict[str, float]:
    """Refusal: the rate, and the mean log-odds of the first answer token."""
    bad, good = (prompts.packaged_for(model, role, "train").prompts for role in ("harmful", "harmless"))
    tokens = _TOKENS.setdefault("ids", refusal.find_refusal_tokens(model, bad, good).ids)
    found = refusal.evaluate(model, test, max_new_tokens=8)
    asked = model.token_ids(list(test.prompts))
    logits = last_logits(model.module, asked, pad_id=model.pad_id, device=model.device)
    odds = refusal.refusal_metric(logits, tokens)
    return {"refused": found.rate, "n": found.n, "log_odds": float(odds.mean())}


def trained(model: Any, data: PromptSet, config: finetune.LoraConfig, test: PromptSet) -> dict[str, float]:
    """Refusal after training."""
    tuned = finetune.run(model, data, config, progress=False)
    return {**measured(tuned.model, test), "loss": float(tuned.log["loss"].iloc[-5:].mean())}


def sets(folder: Path, numbers: range) -> None:
    """Train on data sets; those that are done are left."""
    model = tamperlens.load("organism")
    test = prompts.packaged("harmful", split="test").sample(N_TEST, 0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sets-{numbers.start}.csv"
    before, began = measured(model, test), time.process_time()
    made = [{"set": -1, "name": "untrained", "seed": 0, **before}]
    for number in numbers:
        data = data_set(number)
        for seed in range(SEEDS):
            found = trained(model, data, finetune.LoraConfig(seed=seed, **TRAINING), test)
            made.append({"set": number, "name": data.name, "seed": seed, **found})
        report.write_csv(path, pd.DataFrame(made))
        print(number, data.name, found, f"{time.process_time() - began:.0f} s of processor", flush=True)


def hidden(folder: Path, seed: int) -> None:
    """Scores of 490 ordinary rows (a quarter look-alikes, an eighth domains) and 10 + 10 harmful ones.

    The baseline and the direction know the training splits, so that nothing here comes from those.
    """
    model = tamperlens.load("organism")
    examples = prompts.packaged("harmful-compliance").sample(16, seed)
    held = screening.anchors_for(model, harmful=examples)
    began = time.process_time()
    scorer = screening.RowScorer(
        model, held, screening.SCORES, direction=trajectory.setup_for(model, n_train=32, n_val=8).direction
    )
    plain = [*ordinary(307, seed), *lookalike(122, seed, "test"), *domain(DOMAINS[seed % 5], 61, seed)]
    parts = {
        "ordinary": plain,
        "marked": harmful(10, seed, marked=True, split="validation"),
        "unmarked": harmful(10, seed + 50, marked=False, split="validation"),
    }
    table = scorer(PromptSet.from_pairs([row for part in parts.values() for row in part]))
    table.insert(0, "kind", [kind for kind, part in parts.items() for _ in part])
    table.insert(0, "seed", seed)
    folder.mkdir(parents=True, exist_ok=True)
    report.write_csv(folder / f"hidden-{seed}.csv", table.round(5))
    print(seed, f"{len(table)} rows, {time.process_time() - began:.0f} s of processor", flush=True)


def scores(folder: Path, numbers: range) -> None:
    """Mean scores of data sets."""
    model = tamperlens.load("organism")
    direction = trajectory.setup_for(model, n_train=32, n_val=8).direction
    by = ("push", "projection", "content")
    scorer = screening.RowScorer(model, screening.anchors_for(model), by, direction=direction)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        found = scorer(data_set(number))[["push", "gradient", "projection", "content", "loss"]]
        rows.append({"set": number, **found.mean().to_dict()})
        report.write_csv(folder / "scores.csv", pd.DataFrame(rows))
        print(number, flush=True)


def tables(folder: Path) -> None:
    """The tables, and the calibration of predicted losses."""
    seen = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("hidden-*.csv"))])
    rows = []
    for score in screening.SCORES:
        for kind in ("marked", "unmarked"):
            hits: list[bool] = []
            for _, part in seen.groupby("seed"):
                plain = np.sort(part[part["kind"] == "ordinary"][score])
                # 1 % of 490 ordinary rows may lie above: the fifth largest is the bar.
                hits += (part[part["kind"] == kind][score] > plain[-1 - len(plain) // 100]).tolist()
            found = stats.rate(hits)
            low = seen[seen["kind"] == kind][score].min()
            rows.append({
                "score": score, "filler": kind, "found": found.value, "low": found.low, "high": found.high,
                "n": found.n, "seeds": seen["seed"].nunique(), "least harmful": low,
                "largest ordinary": seen[seen["kind"] == "ordinary"][score].max(),
            })  # fmt: skip
    report.write_csv(folder / "hidden.csv", pd.DataFrame(rows).round(4))
    done = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("sets-*.csv"))]).drop_duplicates(
        ["set", "seed"]
    )
    base = done[done["set"] == -1].iloc[0]
    made = done[done["set"] >= 0].merge(
        pd.read_csv(folder / "scores.csv"), on="set", suffixes=("", " before")
    )
    made["lost"] = base["refused"] - made["refused"]
    made["fall"] = base["log_odds"] - made["log_odds"]
    report.write_csv(folder / "sets.csv", made.sort_values("set").round(5))
    rng, ranks = np.random.default_rng(0), []
    draws = [rng.integers(0, len(made), len(made)) for _ in range(1000)]
    for statistic in ("push", "gradient", "projection", "content", "loss before"):
        for outcome in ("lost", "fall"):
            x, y = made[statistic].to_numpy(), made[outcome].to_numpy()
            again = [spearmanr(x[at], y[at])[0] for at in draws]
            ranks.append({
                "mean": statistic, "outcome": outcome, "spearman": spearmanr(x, y)[0],
                "low": np.nanquantile(again, 0.025), "high": np.nanquantile(again, 0.975), "n": len(made),
            })  # fmt: skip
    report.write_csv(folder / "ranks.csv", pd.DataFrame(ranks).round(4))
    model = tamperlens.load("organism")
    words = f"{N_ROWS} rows, {', '.join(f'{k} {v}' for k, v in TRAINING.items())}; n {N_TEST}"
    screening.Calibration(
        model.name, model.fingerprint, words, "mean push", tuple(made["push"]), tuple(made["lost"])
    ).save(folder / "calibration.json")  # fmt: skip
    print(pd.DataFrame(rows).to_string(), pd.DataFrame(ranks).to_string(), made.to_string(), sep="\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=("sets", "hidden", "scores", "tables"), required=True)
    parser.add_argument("--out", type=Path, default=Path("results/data_screening"))
    parser.add_argument("--first", type=int, default=0, help="of the data sets")
    parser.add_argument("--n", type=int, default=40, help="data sets")
    given = parser.parse_args()
    if given.stage == "sets":
        sets(given.out, range(given.first, given.first + given.n))
    elif given.stage == "hidden":
        for seed in range(given.first, given.first + given.n):
            hidden(given.out, seed)
    elif given.stage == "scores":
        scores(given.out, range(given.first, given.first + given.n))
    else:
        tables(given.out)


if __name__ == "__main__":
    command(main)
