"""Run folders merged into one page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.runs import RunFolder
from tamperlens.studies.merging import merge, paired


def run(folder: Path, seed: int, value: float) -> Path:
    with RunFolder.open(folder, kind="audit", config={"seed": seed, "model": "m"}) as made:
        with made.stage("baseline"):
            row = {"measure": "refusal_rate", "set": "harmful", "stage": "after", "value": value, "n": 40}
            frame = pd.DataFrame([{**row, "low": value - 0.1, "high": value + 0.1}])
            frame.to_csv(folder / "measures.csv", index=False)
        made.finish()
    return folder


def test_two_runs_of_a_kind_are_compared(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 0, 0.8), run(tmp_path / "two", 1, 0.2)
    text = merge([one, two], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Settings that differ" in text
    assert "-0.6 [-0.741, -0.459]" in text  # 0.1·√2 to either side
    assert "<script" not in text
    assert "http" not in text.split("</style>")[-1]
    row = paired([RunFolder.read(one), RunFolder.read(two)]).iloc[0]
    assert row["difference"] == pytest.approx(-0.6)


def test_folders_that_are_none(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 0, 0.8)
    with pytest.raises(InputError, match="named twice"):
        merge([one, one], tmp_path / "page.html")
    with pytest.raises(RunFolderError, match="not a run folder"):
        merge([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
