"""Two processes that start together on one folder: one works, the other waits or is told so; nothing differs.

`TAMPERLENS_PAIRS=20 pytest -m slow tests/cli/test_two_at_once.py` starts twenty pairs of each kind.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from killed_programs import KINDS, Runs, outcome, said, strays

PAIRS = int(os.environ.get("TAMPERLENS_PAIRS", "3"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    with Runs() as runs:
        for kind in KINDS:
            expected = runs.whole(kind, tmp_path / kind / "run")
            ends: Counter[tuple[int, ...]] = Counter()
            for pair in range(PAIRS):
                out = tmp_path / f"{kind}-{pair}" / "run"
                out.parent.mkdir()
                runs.start(kind, out, out)
                codes = tuple(sorted(runs.ended() or []))
                ends[codes] += 1
                text = said(out)
                assert codes[0] == 0, text[-1500:]
                if codes[1]:
                    assert "in use by another process" in text, text[-1500:]
                    assert "Traceback" not in text or kind in ("finetune", "trajectory")
                assert outcome(kind, out) == expected
                assert strays(out) == []
            print(f"{kind}: {dict(ends)}")
