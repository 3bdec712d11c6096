"""The monitor in two processes, with whole weights and with sharded ones, sees what it sees in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import two_watched
from launching import KINDS, in_two_processes

from tamperlens.base.files import read_tensors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = tmp_path_factory.mktemp("alone")
    two_watched.main(made, batch_size=4)
    return dict(json.loads((made / "said-0.json").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_sees_what_it_sees_in_one(kind: str, alone: dict[str, Any], tmp_path: Path) -> None:
    """Training is bit for bit as without it; rows agree to rounding; all stop and go back together."""
    in_two_processes(two_watched.__file__, tmp_path, kind)
    first, second = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert first["kind"] == second["kind"] == kind
    assert first["left out"] == second["left out"] == [2, 3]
    for way in two_watched.KINDS:
        assert first[way]["same"] and second[way]["same"]
        assert second[way]["rows"] == []
        expected = alone[way]["rows"]
        assert [row[:2] for row in first[way]["rows"]] == [row[:2] for row in expected]
        numbers = [row[2] for row in first[way]["rows"]]
        assert numbers == pytest.approx([row[2] for row in expected], rel=0.02, abs=2e-3)
        assert first[way]["stopped"] == second[way]["stopped"] == alone[way]["stopped"] == 3
        assert first[way]["good"] == second[way]["good"] == 2
        one, two = (read_tensors(tmp_path / f"{way}-{rank}.safetensors")[0] for rank in (0, 1))
        kept = read_tensors(tmp_path / f"{way}-stopped" / "last-good.safetensors")[0]
        for name, value in one.items():
            assert torch.equal(value, two[name])
            assert torch.equal(value, kept[name])
    if kind == "FSDP":
        assert "pass reference=" in first["refused"]
        assert first["refused"] == second["refused"]
