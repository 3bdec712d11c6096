"""What the command's tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = ("--limit", "6", "--max-new-tokens", "4", "--steps", "3", "--quiet")


def manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"stages": {}}
