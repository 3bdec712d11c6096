"""The robustness analysis, from nothing and again on the grid that it left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> str:
    command = [sys.executable, "analyses/refusal_robustness.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is deprecated" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_refusal_robustness_from_scratch_and_from_its_grid(tmp_path):
    settings = ["--models", "organism:tiny", "--seeds", 2, "--steps", 1, 3, "--n-test", 6]
    said = run(*settings, "--out", tmp_path / "first")
    assert "4 done, 0 failed" in said and "RRR" in said and "to half refusal" in said
    assert "the slope in size" not in said  # of one model
    table = pd.read_csv(tmp_path / "first" / "table.csv")
    assert len(table) == 5 and set(table["steps"]) == {0, 1, 3} and set(table["seed"]) == {-1, 0, 1}
    attacked = table[table["attack"] != "none"]
    assert (table["rrr"] + table["ce"]).round(9).eq(1).all() and (attacked["flops"] > 0).all()
    assert (attacked["rrr_low"] <= attacked["rrr"]).all() and (attacked["rrr"] <= attacked["rrr_high"]).all()
    for name in ("RRR_compare", "CE_compare", "RD_compare", "scaling"):
        assert (tmp_path / "first" / f"{name}.png").stat().st_size > 5000, name
    again = run("--grid", tmp_path / "first" / "grid", "--out", tmp_path / "second")
    assert "4 done, 0 failed" in again
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "second" / "table.csv"))
