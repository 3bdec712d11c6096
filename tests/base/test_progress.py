"""A pipe gets a line every 30 seconds, with the time left."""

from __future__ import annotations

import pytest

from tamperlens.base.progress import progress_bar


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with progress_bar(100, "prompts", True, clock=lambda: now[0]) as advance:
        for _ in range(10):
            now[0] += 12
            advance(5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "prompts: 15 of 100, about 204 s left"  # 36 s for 15, so 2.4 s each
    assert len(lines) == 3
    with progress_bar(100, "prompts", False, clock=lambda: now[0]) as advance:
        now[0] += 99
        advance(1)
    assert capsys.readouterr().err == ""
