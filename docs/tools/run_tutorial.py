"""Run a tutorial in percent format and keep what its cells print, return and draw.

    python docs/tools/run_tutorial.py docs/tutorials/1_audit.py build/tutorials

The last expression of a cell is shown: a figure as SVG, a frame as a table, anything else as text. Written:
`OUT/<stem>/page.json` and the figures; `page.json` holds the hash of the script, so that a page that was made
from another version is not used.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REAL = "smollm2"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def digest(path: Path) -> str:
    """Hash of a script."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cells(text: str) -> list[tuple[str, str]]:
    """(kind, content) of every cell; markdown without its comment signs."""
    parts = CELL.split(text)[1:]
    found = []
    for mark, body in zip(parts[::2], parts[1::2], strict=True):
        if "markdown" in mark:
            lines = [re.sub(r"^# ?", "", line) for line in body.strip().splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


def run_cell(source: str, space: dict[str, Any]) -> tuple[str, Any]:
    """Execute a cell; what it printed, and the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<tutorial>", "exec"), space)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<tutorial>", "eval"), space)
    return printed.getvalue(), value


def shown(value: Any, folder: Path, number: int) -> dict[str, str]:
    """An output of a page: svg (file and words), html, or text."""
    import pandas as pd

    from tamperlens.plots import Plot

    if isinstance(value, Plot):
        name = f"{number:02d}-{value.name}.svg"
        (folder / name).write_text(value.svg(), encoding="utf-8")
        return {"svg": name, "title": value.title, "caption": value.caption, "alt": value.alt}
    if isinstance(value, pd.DataFrame):
        return {"html": value.to_html(index=False, border=0, na_rep="–")}
    return {"text": repr(value)}


def run(script: Path, out: Path) -> dict[str, Any]:
    """Run a tutorial and write its page."""
    folder = out.resolve() / script.stem
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    space: dict[str, Any] = {"__name__": "__main__"}
    page: list[dict[str, Any]] = []
    key = digest(script)
    found = cells(script.read_text(encoding="utf-8"))
    began, here = time.perf_counter(), Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            for number, (kind, content) in enumerate(found):
                cell: dict[str, Any] = {"kind": kind, "content": content}
                if kind == "code":
                    text, value = run_cell(content, space)
                    cell["outputs"] = [{"text": text.rstrip()}] if text.strip() else []
                    if value is not None:
                        cell["outputs"].append(shown(value, folder, number))
                page.append(cell)
        finally:
            os.chdir(here)
    result = {"sha256": key, "seconds": round(time.perf_counter() - began, 1), "cells": page}
    (folder / "page.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    return result


def needs_real(script: Path) -> bool:
    """Whether a tutorial runs on a real model."""
    return "TAMPERLENS_REAL" in script.read_text(encoding="utf-8")


def at_hand(script: Path) -> bool:
    """Whether the model that a tutorial runs on is there."""
    return not needs_real(script) or (Path(os.environ.get("TAMPERLENS_REAL", "")) / REAL).is_dir()


def main() -> None:
    """Command line: SCRIPT … OUT; --missing runs only those without a page of this version."""
    *given, out = sys.argv[1:]
    missing = "--missing" in given
    for script in (Path(name) for name in given if name != "--missing"):
        page = Path(out) / script.stem / "page.json"
        if missing and page.exists() and json.loads(page.read_text())["sha256"] == digest(script):
            continue
        if not at_hand(script):
            print(f"{script.name}: not run, TAMPERLENS_REAL names no folder that holds {REAL}", flush=True)
            continue
        result = run(script, Path(out))
        print(f"{script.name}: {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
