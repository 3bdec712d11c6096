"""The tutorials as notebooks: made from their scripts, and they run from the first cell to the last."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [  # a tutorial on a real model has no notebook: not everyone has its weights
    one
    for one in sorted((ROOT / "docs" / "tutorials").glob("[0-9]_*.py"))
    if "TAMPERLENS_REAL" not in one.read_text("utf-8")
]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    import notebooks

    return notebooks


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_what_its_script_gives(tool, script):
    found = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert found == tool.notebook(script), "run python docs/tools/notebooks.py"
    page = json.loads(found)
    sources = [cell["source"] for cell in page["cells"]]
    assert sources[0].startswith("# ") and "%pip install -q tamperlens" in sources[1]
    assert sources[-1].startswith("## The same on your model")
    assert not any(cell.get("outputs") for cell in page["cells"])
    if "nbformat" in sys.modules or __import__("importlib.util").util.find_spec("nbformat"):
        import nbformat

        nbformat.validate(nbformat.reads(found, as_version=4))


@pytest.mark.slow  # minutes: every tutorial as a person runs it
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_figures_and_no_warnings(script, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    page = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    done = nbclient.NotebookClient(
        page, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [out for cell in done.cells if cell.cell_type == "code" for out in cell.outputs]
    said = [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not said, said
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert pictures and all("text/html" in out.data for out in pictures)
    assert all(len(out.get("data", {}).get("text/plain", "")) < 2000 for out in outputs)
