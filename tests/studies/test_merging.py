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
    (row,) = paired([RunFolder.read(one), RunFolder.read(two)])
    assert row.measure == "refusal_rate · harmful · after" and (row.before, row.after) == (0.8, 0.2)
    assert row.difference.value == pytest.approx(-0.6) and row.difference.n == 40
    assert row.difference.high == pytest.approx(-0.6 + 0.1 * 2**0.5)


def test_equal_measures_are_counted_and_not_listed(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 0, 0.8), run(tmp_path / "two", 1, 0.8)
    text = merge([one, two], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Of 1 measures that both have, 1 are equal" in text and "Measures that differ" not in text


def test_intervals_stand_behind_their_values(tmp_path: Path) -> None:
    folder = run(tmp_path / "one", 0, 0.8)
    row = {
        "model": "m",
        "steps": 4,
        "rrr": 0.5,
        "rrr_low": 0.3,
        "rrr_high": 0.7,
        "rrr_n": 20,
        "address": "ad",
    }
    pd.DataFrame([row, {**row, "rrr": float("nan")}]).to_csv(folder / "results_grid.csv", index=False)
    text = merge([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0.5 [0.3, 0.7]" in text and "0.8 [0.7, 0.9]" in text and "undefined" in text
    assert "rrr_low" not in text and ">ad<" not in text
    assert '<td class="number">0.5 [0.3, 0.7]</td>' in text and "<td>harmful</td>" in text


def test_a_monitor_s_folder(tmp_path: Path) -> None:
    """Without a manifest: known by its rows; unfinished until its bill is there."""
    folder = tmp_path / "m"
    folder.mkdir()
    row = {"measure": "direction cosine", "n": 8, "null_low": 0.9, "null_high": 0.99, "seconds": 0.1}
    steps = [{**row, "step": s, "value": v, "low": v - 0.1, "high": v} for s, v in ((0, 1.0), (8, 0.5))]
    pd.DataFrame(steps).to_csv(folder / "rows.csv", index=False)
    text = merge([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "unfinished" in text and "0.5 [0.4, 0.5] (step 8)" in text and "[0.9, 0.99]" in text
    (folder / "monitor.json").write_text('{"stopped_at": null}')
    assert "unfinished" not in merge([folder], tmp_path / "page.html").read_text(encoding="utf-8")


def test_folders_that_are_none(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 0, 0.8)
    with pytest.raises(InputError, match="named twice"):
        merge([one, one], tmp_path / "page.html")
    with pytest.raises(RunFolderError, match="not a run folder"):
        merge([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_same_settings_on_another_model_are_not_called_the_same(tmp_path: Path) -> None:
    one, two, three = (run(tmp_path / name, 0, 0.8) for name in ("one", "two", "three"))
    for folder, digest in ((one, "a" * 64), (two, "b" * 64), (three, "a" * 64)):
        with RunFolder.open(folder, kind="audit", config={"seed": 0, "model": "m"}, resume=True) as made:
            made.pin(model=digest, prompts_harmful="c" * 64)
    text = merge([one, two], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "same settings" not in text and "model (sha256)" in text and "bbbbbbbbbbbbbbbb" in text
    assert "prompts_harmful (sha256)" not in text
    text = merge([one, three], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Both runs have the same settings, models and prompts." in text


DAMAGE = {
    "empty": b"",
    "bytes": b"\xff\xfe\x00\x9c",
    "no table": b'"a\nb,c',
    "other columns": b"a,b\n1,2\n",
    "words": b"measure,set,stage,value,low,high,n\nx,y,z,many,few,some,all\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_left_out_and_named(tmp_path: Path, damage: str) -> None:
    one, two = run(tmp_path / "one", 0, 0.8), run(tmp_path / "two", 1, 0.2)
    (two / "measures.csv").write_bytes(DAMAGE[damage])
    (two / "figures").mkdir()
    (two / "figures" / "rates.svg").write_bytes(DAMAGE[damage])
    told: list[str] = []
    text = merge([one, two], tmp_path / "page.html", tell=told.append).read_text(encoding="utf-8")
    assert "0.8 [0.7, 0.9]" in text  # the good run is there
    assert any("rates.svg" in line for line in told)
    assert any("measures.csv" in line or "the comparison" in line for line in told)
    assert all(line in text for line in told if "&" not in line and "'" not in line and '"' not in line)


def test_a_run_whose_manifest_is_damaged_is_left_out_beside_a_good_one(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 0, 0.8), run(tmp_path / "two", 1, 0.2)
    (two / "manifest.json").write_text("{}")
    told: list[str] = []
    text = merge([one, two], tmp_path / "page.html", tell=told.append).read_text(encoding="utf-8")
    assert "0.8 [0.7, 0.9]" in text and "Left out" in text and len(told) == 1 and "two" in told[0]
    with pytest.raises(RunFolderError, match=r"manifest\.json"):
        merge([two], tmp_path / "page.html")


def test_changed_artefacts_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with RunFolder.open(folder, kind="audit", config={"m": 1}, artefacts=("measures.csv", "a.txt")) as made:
        with made.stage("all"):
            (folder / "a.txt").write_text("a")
        made.finish()
    (folder / "a.txt").write_text("b")
    assert "a.txt is changed since the run wrote it" in merge([folder], tmp_path / "p.html").read_text()
