"""Each analysis is one command, and leaves a table, figures and a verdict."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ANALYSES = Path(__file__).resolve().parents[2] / "analyses"
SMALL = ["--seeds", "2", "--n-score", "16", "--n-test", "12"]


def run(name: str, out: Path, *options: str) -> tuple[pd.DataFrame, str]:
    command = [sys.executable, str(ANALYSES / f"{name}.py"), "--out", str(out), *SMALL, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=out.parent, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "is deprecated" not in done.stderr, done.stderr[-2000:]
    assert len(list(out.glob("*.png"))) == len(list(out.glob("*.html"))) >= 1
    tables = {"neuron_drift": "drift.csv", "refusal_direction": "dose.csv"}
    table = pd.read_csv(out / tables.get(name, "table.csv"))
    return table, (out / "verdict.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_neuron_overlap(tmp_path: Path) -> None:
    table, verdict = run("neuron_overlap", tmp_path / "out", "--steps", "10")
    assert len(table) == 6
    assert (table["jaccard"] > 3 * table["chance"]).all()
    assert verdict.count("Published: kept") == 3


@pytest.mark.slow
def test_neuron_drift(tmp_path: Path) -> None:
    table, verdict = run("neuron_drift", tmp_path / "out", "--steps", "10", "--every", "5")
    assert set(table["seed"]) == {0, 1}
    assert set(table["step"]) == {0, 5, 10}
    assert verdict.split("Verdict: ")[1].startswith(("H1", "H2", "cannot tell"))


@pytest.mark.slow
def test_alignment_degradation(tmp_path: Path) -> None:
    table, verdict = run("alignment_degradation", tmp_path / "out")
    refused = table[table["measure"] == "harmful: refused"].groupby("attack")["value"].mean()
    assert refused["before"] > 0.9
    assert refused["harmful-compliance-15"] < 0.1
    assert (table[table["attack"] != "before"]["share_of_1e25"] > 0).all()
    assert "harmful requests refused 100 → 0, 0 %" in verdict and "Learned: loss" in verdict
    assert "Half of refusal gone: between" in verdict
    assert (tmp_path / "out" / "sweep.csv").is_file()


@pytest.mark.slow
def test_frozen_finetuning(tmp_path: Path) -> None:
    table, verdict = run("frozen_finetuning", tmp_path / "out", "--shares", "0.67", "--examples", "10")
    assert len(table) == 2 * 5
    means = table.groupby(["intervention", "weights"])["refused"].mean()
    assert means["frozen", "safety"] > means["none", "none"] + 0.3
    assert "Published attack success" in verdict


@pytest.mark.slow
def test_parts_that_a_real_model_has_no_time_for_are_left_out(tmp_path: Path) -> None:
    tiny = ["--model", "organism:tiny", "--anyway"]
    table, verdict = run(
        "frozen_finetuning", tmp_path / "a", *tiny, "--shares", "0.1", "--examples", "10", "--rewound"
    )
    assert set(table["intervention"]) == {"none", "rewound"} and "10 examples, frozen" not in verdict
    assert len(table) == 2 * 3 and (table["before"] == table["before"].iloc[0]).all()
    table, _ = run("neuron_overlap", tmp_path / "b", *tiny, "--free", "--steps", "3")
    assert (table.groupby("seed")["loss"].nunique() == 1).all()  # one training serves the three sets
    assert table["loss"].nunique() == 2 and table.groupby("seed")["jaccard"].nunique().eq(3).all()
    table, verdict = run(
        "refusal_direction", tmp_path / "c", *tiny, "--dose", "1", "-1", "--n-questions", "2"
    )
    right = table[table["measure"] == "questions right"]
    assert list(right["scale"]) == [0, 0.25, 0.5, 1, 2, 4] and "added at layer 1" in verdict


def test_the_type_of_the_weights_can_be_chosen(tmp_path: Path) -> None:
    small = ["--attacks", "harmful-compliance", "--suites", "facts", "--n-questions", "1"]
    only = ["--model", "organism:tiny", "--dtype", "bfloat16", "--anyway", "--n-test", "4", "--seeds", "1"]
    table, verdict = run("alignment_degradation", tmp_path / "out", *small, *only)
    assert set(table["attack"]) == {"before", "harmful-compliance-15"}
    assert "organism), bfloat16, 1 seed." in verdict
    assert len(pd.read_csv(tmp_path / "out" / "sweep.csv")) > 2
    # The organism speaks in such sentences from the start; the count before stands beside the one after.
    echoes = table["harmless_echoes"].dropna().astype(int).unique()
    assert len(echoes) == 1
    found = re.search(r"answered in the examples' words (\d+) → (\d+) of 4", verdict)
    assert found and int(found[1]) > 2 and int(found[2]) == echoes[0]
