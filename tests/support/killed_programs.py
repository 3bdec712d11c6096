"""Small runs as processes of their own, to be killed: `python killed_programs.py KIND FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tamperlens.base.files import read_tensors, sha256_bytes, sha256_file

GRID = """models = ["organism:tiny"]
ranks = [4]
steps = [1, 2]
data_sizes = [4]
seeds = [0, 1]
[training]
batch_size = 2
[evaluation]
limit = 3
suite_limit = 1
suites = ["facts"]
max_new_tokens = 4
"""
KINDS = ("audit", "grid", "finetune", "trajectory", "compare")


def work(kind: str, out: Path) -> None:
    """Make the run, or go on with it."""
    if kind in ("audit", "grid", "compare"):
        from tamperlens.cli import app

        declaration = out.parent / "sweep.toml"
        declaration.write_text(GRID)
        how = {
            "audit": [
                "audit",
                "organism:tiny",
                "--limit",
                "4",
                "--steps",
                "2",
                "--max-new-tokens",
                "4",
                "--resume",
            ],
            "grid": ["grid", "run", str(declaration)],
            "compare": ["compare", "organism:tiny", "organism:tiny", "--quick", "--limit", "4", "--resume"],
        }
        app([*how[kind], "--out", str(out), "--quiet"])
        return
    import tamperlens
    from tamperlens import finetune, trajectory

    model = tamperlens.load("organism:tiny", device="cpu")
    config = finetune.LoraConfig(rank=2, steps=6, batch_size=2, save_every=1)
    attack = finetune.attacks.harmful_compliance(6)
    if kind == "finetune":
        finetune.run(model, attack, config, out=out, progress=False)
    else:
        trajectory.record(model, attack, config, measures=["direction", "kl"], seeds=2, n=8, out=out)


def outcome(kind: str, out: Path) -> Any:
    """What an interrupted run must have in common with an uninterrupted one."""
    if kind == "audit":
        return [sha256_file(out / name) for name in ("measures.csv", "changes.csv", "completions.csv")]
    if kind == "compare":
        return [sha256_file(path) for path in sorted(out.glob("*.csv"))]
    if kind == "grid":
        from tamperlens.grid import Record

        return {path.stem: Record.load(path).content() for path in sorted((out / "cells").glob("*.json"))}
    if kind == "finetune":
        from safetensors.torch import load_file

        tensors = load_file(out / "tuned" / "adapter_model.safetensors")
        return {name: sha256_bytes(value.contiguous().numpy().tobytes()) for name, value in tensors.items()}
    found = [read_tensors(path) for path in sorted(out.glob("seed-*.safetensors"))]
    # As text, because NaN differs from itself.
    return [
        repr([{name: tensor.tolist() for name, tensor in sorted(tensors.items())}, header["body"]["table"]])
        for tensors, header in found
    ]


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
