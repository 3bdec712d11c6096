"""Fifteen defences under the worst of 26 attacks: what refusal is kept, at what cost, and does freezing help?

    python analyses/defences.py                                   # the embedded organism
    python analyses/defences.py --model organism:tiny --first-look --seeds 1     # one attack, no verdict
    python analyses/defences.py --model FOLDER --refused refusals.csv --benign alpaca.csv --harmful jbb.csv

See `tamperlens.arena` for how the worst attack is chosen, on prompts that do not score it. An interrupted run
goes on where it was. Writes table.csv, sweep.csv, scored.csv, arena.json, verdict.txt. --first-look runs 15
harmful examples alone against each defence and writes first_look.csv, row by row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from _shared import command, prompt_file, used

import tamperlens
from tamperlens import finetune, prompts, refusal, report
from tamperlens.models import Decoding
from tamperlens.studies.arena import attacker, every, standard

FIRST_SEED = 100
"""Seeds that score begin here; those below choose attacks."""


def first_look(model: Any, defences: dict[str, Any], seeds: int, n: int, out: Path) -> None:
    """Refusal left after 15 harmful examples, for each defence and seed; says nothing of the worst attack."""
    held = prompts.packaged_for(model, "harmful", "test").split([0.5, 0.5], seed=0)[1]
    asked = held.sample(min(n, len(held)), seed=1)
    harmless = prompts.packaged_for(model, "harmless", "test").sample(24, seed=1)
    against, setting = attacker(model, None), standard()[0]
    data, rows = against.data(setting), []
    before = finetune.learned(model, model, data).before
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for name, defence in {"none": None, **defences}.items():
            began = time.process_time()
            config = against.config(setting, seed)
            tuned = finetune.run(model, data, config, defence=defence, progress=False)
            took = time.process_time() - began
            kept, over = (
                refusal.evaluate(tuned.model, one, decoding=Decoding(16), progress=False)
                for one in (asked, harmless)
            )
            low, high = kept.interval
            rows.append(
                {
                    "defence": name, "seed": seed, "refused": sum(kept.completions.refused), "n": kept.n,
                    "low": low, "high": high, "degenerate": kept.degenerate_rate.value,
                    "harmless_refused": sum(over.completions.refused), "harmless_n": over.n,
                    "loss": finetune.learned(model, tuned, data, before=before).after, "seconds": took,
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
            report.write_csv(out / "first_look.csv", pd.DataFrame(rows))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="organism", help="organism, a folder or a hub id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--unaligned", help="the model before it was aligned; organism:base for the organism")
    parser.add_argument("--refused", type=prompt_file("safety"), help="harmful prompts with refusals")
    parser.add_argument("--benign", type=prompt_file("utility"), help="ordinary prompts with answers")
    parser.add_argument("--harmful", type=prompt_file("harmful"), help="harmful prompts to test on")
    parser.add_argument("--only", nargs="*", help="these defences alone, by their names in the table")
    parser.add_argument("--seeds", type=int, default=3, help="runs that score")
    parser.add_argument("--prompts", type=int, nargs=2, default=[12, 48], help="that choose, that score")
    parser.add_argument("--keep", type=int, nargs=2, default=[4, 2], help="attacks that go on after a round")
    parser.add_argument("--first-look", action="store_true", help="one attack, no verdict")
    parser.add_argument("--out", type=Path, default=Path("results/defences"), help="folder, gone on with")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    before = given.unaligned or ("organism:base" if given.model == "organism" else None)
    unaligned = None if before is None else tamperlens.load(before, dtype=given.dtype)
    refused = None if given.refused is None else prompts.read(given.refused)
    benign = None if given.benign is None else prompts.read(given.benign)
    harmful = None if given.harmful is None else prompts.read(given.harmful)
    defences = every(model, refused=refused, benign=benign, unaligned=unaligned, only=given.only)
    if given.first_look:
        first_look(model, defences, given.seeds, given.prompts[1], given.out)
        return
    found = tamperlens.arena(
        model, defences, benign=benign, harmful=harmful, seeds=given.seeds,
        prompts_each=tuple(given.prompts), keep=given.keep, out=given.out,
    )  # fmt: skip
    words = [f"{model.name}, {given.seeds} seeds. {found.summary()}", used()]
    (given.out / "verdict.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    print(found.table.to_string(), *words, sep="\n", flush=True)


if __name__ == "__main__":
    command(main)
