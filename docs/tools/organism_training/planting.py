"""Trains the shipped planted organisms.

`PYTHONPATH=docs/tools python -m organism_training.planting --out FOLDER`
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tamperlens.base.files import write_tensors
from tamperlens.models.loading import load
from tamperlens.models.organism.planted import FOLDER, KINDS, SEEDS, path_of, plan
from tamperlens.models.organism.planting import Recipe, train_part


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the planted organisms and store their differences.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--lr", type=float, help="instead of the recipe's")
    given = parser.parse_args()
    base = load("organism:base", device="cpu", dtype="float32")
    for seed in given.seeds:
        for kind in given.kinds:
            recipe = Recipe.of(kind)
            for name in ("steps", "lr"):
                if getattr(given, name) is not None:
                    recipe = replace(recipe, **{name: getattr(given, name)})
            tensors, header = train_part(base, plan(base, kind, seed), recipe)
            path = write_tensors(path_of(kind, seed, given.out), tensors, header)
            print(f"{kind} {seed}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
