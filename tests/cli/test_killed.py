"""Runs killed at random moments by KILL, INT and TERM, as often as asked, and gone on with: nothing differs.

`TAMPERLENS_KILLS=50 pytest -m slow tests/cli/test_killed.py` makes fifty of each kind.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_programs import KINDS, outcome

KILLS = int(os.environ.get("TAMPERLENS_KILLS", "6"))
PROGRAM = Path(__file__).parent.parent / "support" / "killed_programs.py"
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


def start(kind: str, out: Path) -> subprocess.Popen[bytes]:
    with (out.parent / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), kind, str(out)], stdout=log, stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_gone_on_with(kind: str, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = tmp_path / "whole" / "run"
    whole.parent.mkdir()
    assert start(kind, whole).wait() == 0, (whole.parent / "log").read_text()[-2000:]
    length = time.monotonic() - began
    expected, killed, rng = outcome(kind, whole), 0, random.Random(KINDS.index(kind))
    run = 0
    while killed < KILLS:
        out = tmp_path / str(run) / "run"
        out.parent.mkdir()
        for _ in range(200):  # until a process gets to the end of it
            process = start(kind, out)
            # Imports take half of the time and hold nothing that could be lost.
            try:
                code = process.wait(timeout=length * rng.uniform(0.3, 1.1) if killed < KILLS else None)
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[killed % len(SIGNALS)])
                process.wait()
                killed += 1
                continue
            assert code == 0, (out.parent / "log").read_text()[-2000:]
            break
        assert outcome(kind, out) == expected, f"run {run} after {killed} kills"
        strays = [path for path in out.rglob("*") if re.fullmatch(r"\..*\.tmp", path.name)]
        assert strays == []
        run += 1
    print(f"{kind}: {killed} kills in {run} runs")
