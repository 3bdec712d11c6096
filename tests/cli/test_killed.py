"""Runs killed at random moments by KILL, INT and TERM, as often as asked, and gone on with: nothing differs.

What the command was told to end by INT or TERM (exit codes 130 and 143), it leaves without temporary files.

`TAMPERLENS_KILLS=50 pytest -m slow tests/cli/test_killed.py` makes fifty of each kind.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import manifest
from killed_programs import KINDS, Runs, outcome, said, strays

KILLS = int(os.environ.get("TAMPERLENS_KILLS", "6"))
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_gone_on_with(kind: str, tmp_path: Path, runs: Runs) -> None:
    began = time.monotonic()
    expected = runs.whole(kind, tmp_path / "whole" / "run")
    length = time.monotonic() - began
    killed, run, rng = 0, 0, random.Random(KINDS.index(kind))
    ends: Counter[int] = Counter()
    while killed < KILLS:
        out = tmp_path / str(run) / "run"
        out.parent.mkdir()
        for _ in range(200):  # until a process gets to the end of it
            (process,) = runs.start(kind, out)
            codes = runs.ended(length * rng.uniform(0.02, 1.0) if killed < KILLS else None)
            if codes is None:
                os.kill(process, SIGNALS[killed % len(SIGNALS)])
                codes = runs.ended(60)
                assert codes is not None, "it goes on 60 s after the signal"
                ends.update(codes)
                killed += 1
                if codes[0] in (130, 143):  # the command itself was told to end
                    assert strays(out) == []
                    assert manifest(out).get("status") != "running"
                continue
            assert codes == [0], said(out)[-2000:]
            break
        assert outcome(kind, out) == expected, f"run {run} after {killed} kills"
        assert strays(out) == []
        run += 1
    print(f"{kind}: {killed} kills in {run} runs, exit codes {dict(ends)}")
