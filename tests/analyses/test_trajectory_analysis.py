"""The analysis script, end to end on the organism."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_alignment_trajectory_writes_its_order(tmp_path):
    command = [
        sys.executable, "analyses/alignment_trajectory.py", "--out", str(tmp_path), "--steps", "6",
        "--seeds", "3", "--n", "8", "--n-score", "16",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Half of the final change at step" in (tmp_path / "verdict.txt").read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "trajectory.csv")
    assert set(table["seed"]) == {0, 1, 2} and table["step"].max() == 6
    order = pd.read_csv(tmp_path / "order.csv")
    assert {"drift: all weights", "refusal log-odds", "direction cosine"} <= set(order["measure"])
    for name in ("page.html", "trajectory.png", "pairs.csv"):
        assert (tmp_path / name).stat().st_size > 200


def test_too_few_steps_for_an_order_are_refused_before_the_model_is_loaded(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "analyses"))
    script = importlib.import_module("alignment_trajectory")
    monkeypatch.setattr(sys, "argv", ["alignment_trajectory.py", "--steps", "1", "--model", "no such model"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2 and "--steps 1: at least 2" in capsys.readouterr().err
