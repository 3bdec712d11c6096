"""B9: the direction search by shortlist against the published, exhaustive one: same choice, at what share.

    python benchmarks/bench_selection.py --models organism organism:base --positions -4 -3 -2 -1 --splits 5

For each model and split both searches run one after the other in this process, the first of them in turn, on
the same prompts, refusal tokens and places. Times are processor seconds of the whole `find_direction`, means
and nulls included, and of scoring alone.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
from interleaved import words

import tamperlens
from tamperlens import prompts, refusal
from tamperlens.directions import find_refusal_tokens, finding
from tamperlens.directions.shortlist import TOLERANCE

METHODS = ("shortlist", "exhaustive")


class Clock:
    """Processor seconds in `score_table`, which is what the two methods differ in."""

    def __init__(self) -> None:
        self.spent, self._own = 0.0, finding.score_table
        finding.score_table = self

    def __call__(self, *args: object, **kwargs: object) -> pd.DataFrame:
        began = time.process_time()
        table = self._own(*args, **kwargs)  # type: ignore[arg-type]
        self.spent = time.process_time() - began
        return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["organism"])
    parser.add_argument("--positions", nargs="+", type=int, default=None)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--n-train", type=int, default=32)
    parser.add_argument("--n-val", type=int, default=16)
    given = parser.parse_args()
    clock, agree, n = Clock(), 0, 0
    for name in given.models:
        model = tamperlens.load(name)
        bad, good = (prompts.packaged_for(model, role, "train") for role in ("harmful", "harmless"))
        tokens = find_refusal_tokens(model, bad.prompts, good.prompts)
        shares, wholes = [], []
        for seed in range(given.splits):
            found, scoring, whole = {}, {}, {}
            for method in METHODS if seed % 2 else METHODS[::-1]:
                began = time.process_time()
                found[method] = refusal.find_direction(
                    model, bad, good, n_train=given.n_train, n_val=given.n_val, seed=seed,
                    positions=given.positions, refusal_tokens=tokens, selection=method,
                )  # fmt: skip
                whole[method], scoring[method] = time.process_time() - began, clock.spent
            fast, all_of_them = (found[method] for method in METHODS)
            same = (fast.layer, fast.position) == (all_of_them.layer, all_of_them.position)
            near = fast.bypass <= all_of_them.bypass + TOLERANCE
            alike = same or (near and fast.passed == all_of_them.passed)
            agree, n = agree + alike, n + 1
            shares.append(scoring["shortlist"] / scoring["exhaustive"])
            wholes.append(whole["shortlist"] / whole["exhaustive"])
            kinds = fast.table["scores"].value_counts().to_dict()
            each = ", ".join(
                f"{method} ({one.layer}, {one.position}) bypass {one.bypass:.2f} passed {one.passed}"
                for method, one in sorted(found.items())
            )
            verdict = "same" if same else "near" if alike else "OTHER"
            print(f"     {name}, split {seed}: {each}; {verdict}; rows {kinds}", flush=True)
        print(f"B9   {name}: scoring, shortlist / exhaustive: {words(sorted(shares))}")
        print(f"B9   {name}: whole search: {words(sorted(wholes))}", flush=True)
    print(f"B9   same place or bypass within {TOLERANCE:g}: {agree} of {n}")


if __name__ == "__main__":
    main()
