"""Every sentence with a number on our pages, and what stands behind it: docs/claims.toml -> docs/claims.md.

    python docs/tools/claims.py            # checks, and writes docs/claims.md
    python docs/tools/claims.py --accept   # the numbers of a section were measured again: registers them

The register holds three kinds of entry. A `sentence` is a template whose numbers come from a file in the
repository; the page must read as the file says. A `section` names the script that measures its numbers and
the test that holds the script; the numbers of the text are registered by their hash, so that none changes
unnoticed. A `page` of definitions and settings has no measurements. A heading with a number and no entry is
an error.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REGISTER, PAGE = ROOT / "docs" / "claims.toml", ROOT / "docs" / "claims.md"
WRITTEN = ("docs/architecture.md", "docs/claims.md")  # made by scripts from the code itself
# What is no claim: code, links, headings of papers and sources with their years, versions, names with digits.
_NO_CLAIM = re.compile(
    r"`[^`]*`|\]\([^)]*\)|https?://\S+|\barXiv\s*\S+|\b\d{4}\.\d{4,5}\b|\b(?:19|20)\d\d\b|\bv?\d+\.\d+\.\d+\b"
    r"|<!--.*?-->|\b[A-Za-z]+[-_]?\d[\w.-]*"
)
_NUMBER = re.compile(r"(?<![\w.])[−-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e-?\d+)?")


def pages() -> list[str]:
    """Markdown pages that readers see, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "analyses" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if name not in WRITTEN and not name.startswith("docs/assets")]


def sections(page: str) -> Iterator[tuple[str, str]]:
    """(heading, text) of a page, code blocks left out."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    parts = re.split(r"^#{1,2} (.+)$", text, flags=re.M)
    for heading, body in zip(["", *parts[1::2]], [parts[0], *parts[2::2]], strict=True):
        yield heading.strip(), body


def numbers(text: str) -> list[str]:
    """Numbers of a text that may be claims."""
    plain = _NO_CLAIM.sub(" ", text)
    return [one.rstrip(".,") for one in _NUMBER.findall(plain)]


def digest(found: list[str]) -> str:
    """Short hash of numbers in their order."""
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:12]


def filled(says: str, artefact: str) -> str:
    """A template with the values of a JSON file: {key}, {key:.2f} formatted, {key:span} as least–most."""
    data = json.loads((ROOT / artefact).read_text(encoding="utf-8"))

    def value(match: re.Match[str]) -> str:
        path, _, form = match[1].partition(":")
        found: Any = data
        for key in path.split("/"):
            found = found[int(key) if isinstance(found, list) else key]
        if form == "span":
            low, high = min(found), max(found)
            return f"{low:g}" if low == high else f"{low:g}–{high:g}"
        return format(found, form)

    return re.sub(r"\{([^{}]+)\}", value, says)


def faults(register: dict[str, Any]) -> list[str]:
    """What is not backed, or differs from what backs it."""
    found = []
    settings = [one["path"] for one in register["page"]]
    listed = {(one["page"], one["heading"]): one for one in register["section"]}
    seen = set()
    for page in pages():
        if any(fnmatch.fnmatch(page, pattern) for pattern in settings):
            continue
        for heading, body in sections(page):
            mine = numbers(body)
            entry = listed.get((page, heading))
            seen.add((page, heading))
            if mine and entry is None:
                found.append(f"{page}, “{heading}”: {', '.join(mine[:8])} have nothing behind them")
            elif entry is not None and entry["numbers"] != digest(mine):
                found.append(
                    f"{page}, “{heading}”: numbers differ from those registered; measure again "
                    f"({entry['source']}), then docs/tools/claims.py --accept"
                )
    found += [f"{page}, “{heading}” is registered and not there" for page, heading in set(listed) - seen]
    for one in register["sentence"]:
        text = " ".join((ROOT / one["page"]).read_text(encoding="utf-8").split())
        want = filled(one["says"], one["artefact"])
        if want not in text:
            found.append(f"{one['page']} does not say “{want}”, which {one['artefact']} does")
    for one in (*register["section"], *register["sentence"]):
        for named in (one.get("test", ""), one.get("artefact", "")):
            if named and not (ROOT / named.partition("::")[0]).is_file():
                found.append(f"{one['page']}: no file {named}")
        script = re.search(r"python (\S+\.py)", one.get("source", ""))
        if script and not (ROOT / script[1]).is_file():
            found.append(f"{one['page']}: no script {script[1]}")
    return found


def table(register: dict[str, Any]) -> str:
    """docs/claims.md."""
    lines = [
        "# What stands behind each number",
        "",
        "Written by `python docs/tools/claims.py` from `docs/claims.toml`. A test fails when a section holds "
        "a number with nothing behind it, or another than was registered, and when a sentence differs from "
        "its file.",
        "",
        "| page | claim | from | held by |",
        "| --- | --- | --- | --- |",
    ]
    for one in register["sentence"]:
        said = filled(one["says"], one["artefact"]).replace("|", "\\|")
        lines.append(f"| {one['page']} | {said} | `{one['artefact']}`, {one['source']} | `{one['test']}` |")
    for one in register["section"]:
        body = dict(sections(one["page"])).get(one["heading"], "")
        name = one["heading"] or "top"
        held = f"`{one['test']}`" if one.get("test") else "its script"
        lines.append(f"| {one['page']} | {name}: {len(numbers(body))} numbers | {one['source']} | {held} |")
    lines += ["", "Pages of definitions, settings and commands, without measurements of ours: "]
    lines[-1] += "; ".join(f"`{one['path']}` ({one['why']})" for one in register["page"]) + "."
    return "\n".join(lines) + "\n"


def accepted(text: str, register: dict[str, Any]) -> str:
    """The register with the hashes of the sections as they are."""
    for one in register["section"]:
        body = dict(sections(one["page"])).get(one["heading"], "")
        head = f'page = "{one["page"]}"\nheading = {json.dumps(one["heading"], ensure_ascii=False)}\n'
        text = re.sub(
            re.escape(head) + 'numbers = "[^"]*"', f'{head}numbers = "{digest(numbers(body))}"', text
        )
    return text


def main() -> None:
    """Command line."""
    text = REGISTER.read_text(encoding="utf-8")
    if "--accept" in sys.argv:
        REGISTER.write_text(accepted(text, tomllib.loads(text)), encoding="utf-8")
        text = REGISTER.read_text(encoding="utf-8")
    register = tomllib.loads(text)
    wrong = faults(register)
    if wrong:
        raise SystemExit("\n".join(wrong))
    PAGE.write_text(table(register), encoding="utf-8")


if __name__ == "__main__":
    main()
