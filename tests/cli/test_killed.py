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
from killed_programs import KINDS, RAY, Runs, outcome, said, strays, workers

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
            found = manifest(out)
            (process,) = runs.start(kind, out)
            codes = runs.ended(length * rng.uniform(0.02, 1.0) if killed < KILLS else None)
            if codes is None:
                os.kill(process, SIGNALS[killed % len(SIGNALS)])
                codes = runs.ended(60)
                assert codes is not None, "it goes on 60 s after the signal"
                ends.update(codes)
                killed += 1
                # The command itself was told to end; before it took the folder up, it leaves a killed run's.
                if codes[0] in (130, 143) and manifest(out) != found:
                    assert strays(out) == []
                    assert manifest(out).get("status") != "running"
                continue
            assert codes == [0], said(out)[-2000:]
            break
        assert outcome(kind, out) == expected, f"run {run} after {killed} kills"
        assert strays(out) == []
        run += 1
    print(f"{kind}: {killed} kills in {run} runs, exit codes {dict(ends)}")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_ray_workers_and_drivers_killed(tmp_path: Path, runs: Runs) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    expected = runs.whole("grid", tmp_path / "serial" / "run")
    assert runs.whole(RAY, tmp_path / "whole" / "run") == expected
    length = time.monotonic() - began
    killed, run, rng = Counter[str](), 0, random.Random(7)
    ends: Counter[tuple[str, int]] = Counter()
    while killed.total() < KILLS:
        out = tmp_path / str(run) / "run"
        out.parent.mkdir()
        for _ in range(200):
            (process,) = runs.start(RAY, out)
            codes, victim, lost = None, "", 0
            while codes is None and victim != "driver":
                done = killed.total() >= KILLS or lost == 2  # a third death ends a task
                codes = runs.ended(None if done else length * rng.uniform(0.02, 0.6))
                if codes is None:
                    hired = workers(process)
                    victim = "worker" if hired and rng.random() < 0.7 else "driver"
                    lost += victim == "worker"
                    os.kill(rng.choice(hired) if victim == "worker" else process, SIGNALS[killed.total() % 3])
                    killed[victim] += 1
            codes = codes or runs.ended(60)
            assert codes is not None, "it goes on 60 s after the signal"
            ends[victim, codes[0]] += 1
            assert "Traceback" not in said(out), said(out)[-3000:]
            if codes == [0]:
                break
            assert victim == "driver" and codes[0] in (-signal.SIGKILL, 130, 143), said(out)[-2000:]
        assert outcome(RAY, out) == expected, f"run {run} after {killed.total()} kills"
        assert strays(out) == []
        run += 1
    print(f"ray: {dict(killed)} in {run} runs, ends {dict(ends)}")
