"""Names and prose use the field's terms."""

from __future__ import annotations

import re

import pytest
from doc_blocks import ROOT

NAMES = re.compile(r"^\s*class _?(Watch|Seen|Together|Reads|Held|Probes|Look)\b", re.MULTILINE)
PROSE = re.compile(
    r"\b(too|is|are) dear\b|\b(every|each|one|due|usual) look\b|\blooks run\b|capability probe"
)


@pytest.mark.parametrize("folder", ["src", "hooks", "docs", "analyses"])
def test_no_word_of_our_own_where_there_is_a_term(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    found = [(path.name, pattern.search(text)) for path, text in texts.items() for pattern in (NAMES, PROSE)]
    assert not [(name, hit[0]) for name, hit in found if hit]
