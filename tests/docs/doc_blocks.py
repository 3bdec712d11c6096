"""Code blocks of the README and the documentation, in order, and which of them are not run."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
SKIPPED = re.compile(r"<!-- not run: .+ -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int
    run: bool


def pages() -> list[Path]:
    """Every page that people read: the root's, the analyses' table and the site's own."""
    roots = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "analyses/README.md")]
    return [*roots, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            textwrap.dedent(found["body"]),
            text[: found.start()].count("\n") + 1,
            not SKIPPED.search(text[: found.start()].rstrip() + "\n"),
        )
        for found in FENCE.finditer(text)
    ]


def commands(page: Path) -> list[Block]:
    """Shell blocks to be run."""
    return [block for block in blocks(page) if block.language == "bash" and block.run]


def python(page: Path) -> list[Block]:
    """Python blocks to be run, in one namespace."""
    return [block for block in blocks(page) if block.language == "python" and block.run]
