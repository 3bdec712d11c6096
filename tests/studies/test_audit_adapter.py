"""What is left of the attack's adapter when an audit is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tamperlens


def test_discarded_when_asked_and_not_needed_to_resume(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"limit": 4, "steps": 1, "max_new_tokens": 4, "suites": ["logic"]}
    settings |= {"device": "cpu", "progress": False, "keep_adapter": False}
    out = tmp_path / "run"
    result = tamperlens.audit("organism:tiny", out=out, **settings)
    assert not list((out / "attack").rglob("*.safetensors"))
    assert not (out / "attack" / "tuned").exists()
    assert "discarded" in (out / "manifest.json").read_text()
    again = tamperlens.audit("organism:tiny", out=out, resume=True, **settings)
    assert again.headline == result.headline
