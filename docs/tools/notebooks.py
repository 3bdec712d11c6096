"""The tutorials as notebooks: the same cells, a line that installs the package first, no outputs.

python docs/tools/notebooks.py            # writes docs/tutorials/*.ipynb; --check only compares
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from run_tutorial import cells, needs_real

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
INSTALL = """# On Colab, or wherever the package is missing: install it (a minute).
import importlib.util

if importlib.util.find_spec("tamperlens") is None:
    %pip install -q tamperlens"""


def notebook(script: Path) -> str:
    """A tutorial in percent format as a notebook's file."""
    found = cells(script.read_text(encoding="utf-8"))
    made = [found[0], ("code", INSTALL), *found[1:]]
    page = {
        "cells": [_cell(f"cell-{i}", kind, text) for i, (kind, text) in enumerate(made)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(page, ensure_ascii=False, indent=1) + "\n"


def _cell(name: str, kind: str, text: str) -> dict[str, Any]:
    if kind == "markdown":  # pages of the site are no files beside a notebook
        text = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)
        return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}
    code = {"cell_type": "code", "id": name, "metadata": {}, "source": text}
    return {**code, "execution_count": None, "outputs": []}


def main() -> None:
    """Write every notebook, or with --check fail where one is not what its script gives."""
    for script in sorted(TUTORIALS.glob("[0-9]_*.py")):
        if needs_real(script):  # not everyone has its weights
            continue
        path, text = script.with_suffix(".ipynb"), notebook(script)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not made from this {script.name}; run python docs/tools/notebooks.py")


if __name__ == "__main__":
    main()
