"""Every Python block and command of the README and the documentation runs; so does every tutorial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, Block, commands, pages, python

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("[0-9]_*.py"))
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
# make sets up an environment first; of these goals the command behind it is run, of the others nothing.
GOALS = {"make audit": "audit", "make docs": "docs-fast"}
QUICK = "--limit 12 --steps 3 --max-new-tokens 8"  # in full: test_make_audit
OTHERS = {"make test", "make test-all", "make check", "make figures", "make setup"}

pytestmark = pytest.mark.slow


def shell(command: str, cwd: Path, limit: float = 850) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=limit,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


@pytest.mark.parametrize(
    "page", [page for page in pages() if python(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_blocks(page: Path, tmp_path: Path) -> None:
    code = "\n".join(block.text for block in python(page))
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    shell(f"{sys.executable} page.py", tmp_path)


def behind(goal: str, out: Path, arguments: str = "") -> str:
    """The command that a goal of the Makefile comes down to, with this environment's programs."""
    made = ["make", "-n", goal, f"BIN={BIN}", "STAMP=none", f"OUT={out}", f"ARGS={arguments}"]
    recipe = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    own = [
        line for line in recipe.strip().splitlines() if line.startswith(str(BIN)) and " -m pip " not in line
    ]
    return f"(cd {ROOT} && {' && '.join(own)})"


SHELL = [(page, block) for page in pages() for block in commands(page)]


@pytest.mark.parametrize(
    ("page", "block"), SHELL, ids=[f"{page.relative_to(ROOT)}:{block.line}" for page, block in SHELL]
)
def test_commands(page: Path, block: Block, tmp_path: Path) -> None:
    (tmp_path / "analyses").symlink_to(ROOT / "analyses")
    kept = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = line.split("#")[0].strip()
        if words in OTHERS:
            continue
        kept.append(behind(GOALS[words], tmp_path / "made", QUICK) if words in GOALS else line)
    shell("\n".join(kept), tmp_path)


@pytest.mark.timeout(3600)
def test_make_audit(tmp_path: Path) -> None:
    """In full, as the README gives it: two minutes on a quiet core, and no limit but against hanging."""
    shell(behind("audit", tmp_path / "made"), tmp_path, limit=3500)
    assert (tmp_path / "made" / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_tutorials(script: Path, tmp_path: Path) -> None:
    real = Path(os.environ.get("TAMPERLENS_REAL", "")) / "smollm2"
    if "TAMPERLENS_REAL" in script.read_text("utf-8") and not real.is_dir():
        pytest.skip("TAMPERLENS_REAL names no folder that holds smollm2")
    shell(f"{sys.executable} {ROOT}/docs/tools/run_tutorial.py {script} {tmp_path}/out", tmp_path)
    page = json.loads((tmp_path / "out" / script.stem / "page.json").read_text())
    outputs = [one for cell in page["cells"] for one in cell.get("outputs", [])]
    assert any("svg" in one for one in outputs)
    assert page["seconds"] < 900  # a limit against hanging; the goal is three minutes on quiet cores
    for one in outputs:
        if "svg" in one:
            assert (tmp_path / "out" / script.stem / one["svg"]).stat().st_size > 2000


def test_all_figures_quick(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} {ROOT}/analyses/all_figures.py --quick --out {tmp_path}/r --only neuron_drift"
    )
    shell(command, tmp_path)
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    entry = manifest["neuron_drift"]
    assert entry["status"] == 0
    assert {"verdict.txt", "drift.csv"} <= set(entry["files"])
    before = (tmp_path / "r" / "manifest.json").read_bytes()
    shell(command, tmp_path)  # finished: left alone
    assert (tmp_path / "r" / "manifest.json").read_bytes() == before
