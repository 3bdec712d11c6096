"""Tables of the scripts are written as the package writes its own: atomically, cells made harmless."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tamperlens import report

SCRIPTS = sorted((Path(__file__).parents[2] / "analyses").glob("*.py"))


def test_no_script_writes_a_table_by_itself() -> None:
    assert len(SCRIPTS) > 10
    assert not [path.name for path in SCRIPTS if ".to_csv(" in path.read_text(encoding="utf-8")]


def test_cells_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    path = report.write_csv(tmp_path / "t.csv", pd.DataFrame({"answer": ["=1+1", "@SUM(A1)", "plain"]}))
    cells = path.read_text(encoding="utf-8").splitlines()[1:]
    assert all(cell.strip('"')[0] not in "=+-@" for cell in cells) and cells[2] == "plain"
