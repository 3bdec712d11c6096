"""Fifteen defences under the worst of 26 attacks: what refusal is kept, at what cost, and does freezing help?

    python analyses/defences.py                                   # the embedded organism
    python analyses/defences.py --model FOLDER --refused refusals.csv --benign alpaca.csv --harmful jbb.csv

See `tamperlens.arena` for how the worst attack is chosen, on prompts that do not score it. An interrupted run
goes on where it was. Writes table.csv, sweep.csv, scored.csv, arena.json and verdict.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _shared import command, prompt_file, used

import tamperlens
from tamperlens import prompts
from tamperlens.studies.arena import every


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
    parser.add_argument("--out", type=Path, default=Path("results/defences"), help="folder, gone on with")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    before = given.unaligned or ("organism:base" if given.model == "organism" else None)
    unaligned = None if before is None else tamperlens.load(before, dtype=given.dtype)
    refused = None if given.refused is None else prompts.read(given.refused)
    benign = None if given.benign is None else prompts.read(given.benign)
    harmful = None if given.harmful is None else prompts.read(given.harmful)
    defences = every(model, refused=refused, benign=benign, unaligned=unaligned, only=given.only)
    found = tamperlens.arena(
        model, defences, benign=benign, harmful=harmful, seeds=given.seeds,
        prompts_each=tuple(given.prompts), keep=given.keep, out=given.out,
    )  # fmt: skip
    words = [f"{model.name}, {given.seeds} seeds. {found.summary()}", used()]
    (given.out / "verdict.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    print(found.table.to_string(), *words, sep="\n", flush=True)


if __name__ == "__main__":
    command(main)
