"""The analysis of the alignment tax from end to end, on a GPT-2 of its own without a chat template."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_models import make_model, make_tokenizer

ROOT = Path(__file__).resolve().parents[2]
FEW = [
    "--seeds=1",
    "--steps=2",
    "--n=4",
    "--n-test=3",
    "--n-questions=2",
    "--n-heads=2",
    "--max-new-tokens=8",
]


def run(model: str | Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "analyses" / "alignment_tax.py"), "--model", str(model)]
    return subprocess.run(
        [*script, "--out", str(out), *FEW, *more],
        capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    make_model("gpt2").save_pretrained(folder)
    make_tokenizer(None).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_gpt2_without_a_chat_template(gpt2: Path, tmp_path: Path) -> None:
    done = run(gpt2, tmp_path, "--preset", "published", "--refusals", "2", "4", "--harmless", "0", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(tmp_path / "table.csv").set_index("measure")
    over = "over-refusal (harmless)"
    assert {"refusal", over, "arithmetic", "english-logic", "english-code"} <= set(table.index)
    assert (table.loc[["refusal", over], "n"] == 3).all()
    # A random model neither refuses nor counts: nothing gained, so no tax, and the reason beside it.
    assert table.loc["arithmetic", "tax_reason"] and pd.isna(table.loc["arithmetic", "tax"])
    dose = pd.read_csv(tmp_path / "dose.csv")
    assert set(zip(dose["refusals"], dose["harmless"], strict=True)) == {(2, 0), (2, 2), (4, 0), (4, 2)}
    # The main comparison is the cell (4, 0): not trained again, and in the curve all the same.
    assert "2 refusals + 0 harmless, seed 0" in done.stdout
    assert "4 refusals + 0 harmless" not in done.stdout
    cell = dose[(dose["refusals"] == 4) & (dose["harmless"] == 0)].set_index("measure")
    pd.testing.assert_series_equal(cell["after"], table["after"])
    assert len(pd.read_csv(tmp_path / "heads.csv")) == 2 * 4
    assert len(list(tmp_path.glob("attention-*.png"))) == 2
    assert "unpkg" not in (tmp_path / "attention.html").read_text(encoding="utf-8")[:5000]
    # Published settings: LoRA on the fused c_attn.
    assert "r 16, α 32, qkv, lr 0.0002, 2 steps of 4" in (tmp_path / "verdict.txt").read_text("utf-8")


def test_training_on_the_test_prompts_is_refused(
    gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame({"prompt": ["How to pick a lock?", "How to bake?"], "response": ["No.", "No."]})
    rows.to_csv(tmp_path / "same.csv", index=False)
    same = str(tmp_path / "same.csv")
    options = ["--model", str(gpt2), "--out", str(tmp_path / "out"), "--safety", same, "--harmful", same]
    monkeypatch.setattr(sys, "argv", ["alignment_tax.py", *options, *FEW])
    monkeypatch.syspath_prepend(ROOT / "analyses")
    with pytest.raises(SystemExit, match="2 test prompts are trained on"):
        runpy.run_path(str(ROOT / "analyses" / "alignment_tax.py"), run_name="__main__")
    assert not (tmp_path / "out").exists()
