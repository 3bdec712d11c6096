"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import tamperlens

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    (root, path)
    for root in ("src", "hooks")
    for path in sorted((ROOT / root).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize(("root", "path"), FILES, ids=lambda one: getattr(one, "stem", ""))
def test_examples_of_a_module(root: str, path: Path) -> None:
    name = ".".join(path.relative_to(ROOT / root).with_suffix("").parts)
    names = vars(importlib.import_module(name))
    parser = doctest.DocTestParser()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            where = f"{name}: {getattr(node, 'name', '')}"
            test = parser.get_doctest(text, {"tamperlens": tamperlens, **names}, where, str(path), 0)
            if test.examples:
                found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
                assert not found.failed


def test_the_main_functions_have_examples() -> None:
    """Fewer than this, and somebody has taken them out."""
    count = sum(path.read_text(encoding="utf-8").count("Examples:\n") for _, path in FILES)
    assert count >= 55
