"""Grids run as processes of their own, to be killed; and their cells, to be compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tamperlens.grid import Record


def start(declaration: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """`tamperlens grid run` in the background, in a session of its own."""
    program = [
        sys.executable,
        "-m",
        "tamperlens.cli",
        "grid",
        "run",
        str(declaration),
        "--out",
        str(out),
        *more,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = (out.parent / f"{out.name}.log").open("ab")
    return subprocess.Popen(program, stdout=log, stderr=log, env=environment, start_new_session=True)


def cells(out: Path) -> list[Path]:
    """Records on disk."""
    return sorted((out / "cells").glob("*.json"))


def kill_after(process: subprocess.Popen[bytes], out: Path, done: int, pause: float) -> int:
    """kill -9 as soon as so many cells are on disk and a moment has passed; how many there were."""
    while len(cells(out)) < done and process.poll() is None:
        time.sleep(0.02)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(cells(out))


def contents(out: Path) -> dict[str, dict[str, Any]]:
    """Address to everything in a record that follows from the declaration."""
    return {path.stem: Record.load(path).content() for path in cells(out)}


def stamps(out: Path) -> dict[str, int]:
    """When each record was written: a second writing would show."""
    return {path.stem: path.stat().st_mtime_ns for path in cells(out)}


def attempts(out: Path) -> set[int]:
    """How often cells were tried."""
    return {json.loads(path.read_text())["body"]["attempts"] for path in cells(out)}
