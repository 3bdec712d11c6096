"""No page says a number with nothing behind it, or another one than was measured."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", ROOT / "docs" / "tools" / "claims.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_number_on_the_pages_has_something_behind_it(claims: ModuleType) -> None:
    register = tomllib.loads((ROOT / "docs" / "claims.toml").read_text(encoding="utf-8"))
    assert claims.faults(register) == []
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims.table(register)


def test_a_new_changed_or_unbacked_number_is_found(
    claims: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "README.md").write_text("# Results\n\nSee `top_5`, 2024 and v1.2.3.\n")
    (tmp_path / "found.json").write_text('{"steps": [7, 8], "rate": 0.25}')
    page = tmp_path / "README.md"
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    sentence = {"page": "README.md", "says": "by step {steps:span}, {rate:.0%}", "artefact": "found.json"}
    section = {"page": "README.md", "heading": "A", "numbers": claims.digest(["7", "8", "25"]), "source": "s"}
    register = {"page": [], "section": [section], "sentence": [sentence]}
    page.write_text("# A\n\nHalf\nby step 7–8, 25%.\n")
    assert claims.faults(register) == []
    page.write_text("# A\n\nHalf by step 7–9, 25%.\n")
    assert [fault.split(":")[0] for fault in claims.faults(register)] == [
        "README.md, “A”",
        "README.md does not say “by step 7–8, 25%”, which found.json does",
    ]
    page.write_text("# A\n\nHalf by step 7–8, 25%.\n\n## B\n\nIt is 12 % better.\n")
    assert claims.faults(register) == ["README.md, “B”: 12 have nothing behind them"]
