"""The newcomer's five scripts run as they stand, each in a namespace of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_blocks import ROOT, Block, python

SCRIPTS = python(ROOT / "docs" / "tasks" / "five_scripts.md")


@pytest.mark.parametrize("script", SCRIPTS, ids=["direction", "freeze", "drift", "heads", "monitor"])
@pytest.mark.filterwarnings("ignore:tamperlens. step")  # the monitor's own warning: its rule stops the run
def test_a_script_runs(
    script: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(script.text, "script", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert "._" not in script.text and len(script.text.splitlines()) <= 30  # public names, one screen
    assert len(said.splitlines()) >= 1 and "nan" not in said
