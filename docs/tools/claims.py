"""Every sentence with a number on our pages, and what stands behind it: docs/claims.toml -> docs/claims.md.

    python docs/tools/claims.py            # checks, and writes docs/claims.md
    python docs/tools/claims.py --show     # what the register makes of the stored results, to be pasted
    python docs/tools/claims.py --accept   # numbers that no file holds were checked again: registers them

The register holds five kinds of entry. A `claim` is a template whose numbers come from a file in the
repository, JSON or CSV; the page must read as the file says, for a table (`each`) row by row. A `quoted` text
holds numbers that are not measured here: published figures, settings, estimates, each with its source. A
text that a script `made` from its results stands on the page line by line, and its test makes it again. A
`page` of definitions and commands has no measurements. What numbers of a section are then left have to be
registered by their hash (`section`), with the script that measures them, so that none changes unnoticed; a
number with no entry is an error.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import importlib.util
import json
import math
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


def plain(text: str) -> str:
    """A text with its line breaks and runs of blanks as single blanks."""
    return " ".join(text.split())


def formatted(value: Any, form: str) -> str:
    """A value as our pages write it.

    `span`: least–most of a list, which is else written out; `%`: percent without the sign; `+`: signed; `.2`,
    `.3`: decimals without the leading zero; anything else as Python formats it. Minus signs are typographic,
    NaN is a dash.
    """
    if form == "span":
        low, high = min(value), max(value)
        return f"{low:g}" if low == high else f"{low:g}–{high:g}"
    if isinstance(value, list):
        return ", ".join(formatted(one, form) for one in value)
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if form.endswith("%") and form.lstrip("+")[:-1] in ("", ".1", ".2"):
        said = f"{100 * value:{'+' if form.startswith('+') else ''}{form.lstrip('+')[:-1] or '.0'}f}"
        said = "0" if float(said) == 0 else said
    elif re.fullmatch(r"\+?\.\d", form):
        said = f"{value:{form}f}"
        said = re.sub(r"^([+-]?)0\.", r"\1.", said)
    else:
        said = format(value, form)
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", said).replace("-", "−")


def stored(artefact: str) -> Any:
    """What a file of results holds: JSON as it is; of CSV a list of rows, numbers as numbers."""
    path = ROOT / artefact
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


def _number(cell: str) -> str | float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        return cell


def filled(one: dict[str, Any]) -> list[str]:
    """The texts of a claim: its template with the values of its file, for a table one a row.

    A place is `{key}` or `{key/inner/0}`, `{key:form}` (`formatted`). Of a CSV the rows that `where` allows
    count, all by default. A table (`each`) takes them one by one. With `by`, a column or several joined by
    ", ", the first part of a place picks the rows by what stands there; of these, or of all without `by`,
    there are `{mean value}`, `{least value}`, `{most value}`, `{all value}` and `{rows}`, and `{value}` is
    that of the first one.
    """
    data = stored(one["artefact"])
    if not isinstance(data, list):
        return [_fill(one["says"], data)]
    where = one.get("where", {})
    rows = [row for row in data if all(str(row[key]) in allowed for key, allowed in where.items())]
    if not rows:
        raise KeyError(f"{one['artefact']} has no rows {where}")
    if one.get("each"):
        return [_fill(one["says"], row) for row in rows]
    if "by" not in one:
        return [_fill(one["says"], _joined(rows))]
    columns = [one["by"]] if isinstance(one["by"], str) else one["by"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(", ".join(str(row[column]) for column in columns), []).append(row)
    return [_fill(one["says"], {key: group[0] | _joined(group) for key, group in groups.items()})]


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, least, most and all of every column of numbers, over the rows that have one; how many rows."""
    found: dict[str, Any] = {"rows": len(rows)}
    for key in rows[0]:
        column = [row[key] for row in rows]
        known = [cell for cell in column if isinstance(cell, float) and not math.isnan(cell)]
        if known and not any(isinstance(cell, str) for cell in column):
            found |= {f"mean {key}": math.fsum(known) / len(known), f"all {key}": known}
            found |= {f"least {key}": min(known), f"most {key}": max(known)}
    return found


def _fill(says: str, data: Any) -> str:
    def value(match: re.Match[str]) -> str:
        path, form = (*re.split(r":(?! )", match[1], maxsplit=1), "")[:2]
        found: Any = data
        for key in path.split("/"):
            found = found[int(key) if isinstance(found, list) else key]
        return formatted(found, form)

    return plain(re.sub(r"\{([^{}]+)\}", value, says))


def left(page: str, body: str, backed: dict[str, list[str]]) -> list[str]:
    """Numbers of a section that no claim and no quoted text of its page holds."""
    text = plain(body)
    for one in sorted(backed.get(page, []), key=len, reverse=True):
        text = text.replace(one.strip("| "), " § ")  # cells share their bars
    return numbers(text)


def behind(register: dict[str, Any]) -> dict[str, list[str]]:
    """Page to the texts that its claims and quotations make."""
    found: dict[str, list[str]] = {}
    for one in register["claim"]:
        found.setdefault(one["page"], []).extend(filled(one))
    for one in register["quoted"]:
        found.setdefault(one["page"], []).extend(quotations(one))
    for one in register.get("made", []):
        found.setdefault(one["page"], []).extend(lines_of(one))
    return found


def lines_of(one: dict[str, Any]) -> list[str]:
    """Lines with numbers of a text that a script wrote from its results, or that its `maker` makes of them.

    A maker is a script with `page_of(rows)`, which takes what is stored.
    """
    if "maker" in one:
        spec = importlib.util.spec_from_file_location("maker", ROOT / one["maker"])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        text = module.page_of(stored(one["artefact"]))
    else:
        text = (ROOT / one["artefact"]).read_text(encoding="utf-8")
    return [line for line in map(plain, text.splitlines()) if numbers(line)]


def quotations(one: dict[str, Any]) -> list[str]:
    """The texts of a quotation: as they stand in the register, or what its `pattern` finds on the page."""
    texts = [plain(text) for text in one.get("texts", [])]
    if "pattern" in one:
        whole = plain((ROOT / one["page"]).read_text(encoding="utf-8"))
        texts += [match[0] for match in re.finditer(one["pattern"], whole)]
    return texts


def faults(register: dict[str, Any]) -> list[str]:
    """What is not backed, or differs from what backs it."""
    found = []
    settings = [one["path"] for one in register["page"]]
    listed = {(one["page"], one["heading"]): one for one in register["section"]}
    seen, backed = set(), behind(register)
    for page in pages():
        whole = plain((ROOT / page).read_text(encoding="utf-8"))
        found += [f"{page} does not say “{one}”" for one in backed.get(page, []) if one not in whole]
        if any(fnmatch.fnmatch(page, pattern) for pattern in settings):
            continue
        for heading, body in sections(page):
            mine = left(page, body, backed)
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
    for one in (*register["section"], *register["claim"], *register["page"], *register.get("made", [])):
        for named in (one.get("test", ""), one.get("artefact", "")):
            if named and not (ROOT / named.partition("::")[0]).is_file():
                found.append(f"{one.get('page', one.get('path'))}: no file {named}")
        script = re.search(r"python (\S+\.py)", one.get("source", ""))
        if script and not (ROOT / script[1]).is_file():
            found.append(f"{one['page']}: no script {script[1]}")
    return found


def table(register: dict[str, Any]) -> str:
    """docs/claims.md."""
    lines = [
        "# What stands behind each number",
        "",
        "Written by `python docs/tools/claims.py` from `docs/claims.toml`. A test fails when a page holds a "
        "number with nothing behind it, and when a sentence or a row of a table differs from its file. "
        "*Measured*: filled from a file of results in the repository. *Published*, *setting*, *estimate*: "
        "not measured here, with its source. *By hash*: measured, but no file holds it; the number cannot "
        "change unnoticed.",
        "",
        "| page | claim | kind | from | held by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in register["claim"]:
        texts = filled(one)
        said = texts[0].strip("| ").replace("|", "·")
        said += f" … ({len(texts)} rows)" if len(texts) > 1 else ""
        held = f"`{one['test']}`" if one.get("test") else "this register"
        lines.append(f"| {one['page']} | {said} | measured | `{one['artefact']}`, {one['source']} | {held} |")
    for one in register["quoted"]:
        said = " … ".join(text.strip("| ").replace("|", "·") for text in quotations(one))
        lines.append(f"| {one['page']} | {said} | {one['kind']} | {one['source']} | this register |")
    for one in register.get("made", []):
        count = sum(len(numbers(line)) for line in lines_of(one))
        said = f"what {one['source']} wrote: {count} numbers"
        lines.append(f"| {one['page']} | {said} | measured | `{one['artefact']}` | `{one['test']}` |")
    backed = behind(register)
    for one in register["section"]:
        body = dict(sections(one["page"])).get(one["heading"], "")
        name = one["heading"] or "top"
        held = f"`{one['test']}`" if one.get("test") else "its script"
        count = len(left(one["page"], body, backed))
        lines.append(f"| {one['page']} | {name}: {count} numbers | by hash | {one['source']} | {held} |")
    lines += ["", "Pages without measurements of ours, or made whole from a file: "]
    lines[-1] += "; ".join(f"`{one['path']}` ({one['why']})" for one in register["page"]) + "."
    return "\n".join(lines) + "\n"


def accepted(text: str, register: dict[str, Any]) -> str:
    """The register with the hashes of what is left of the sections as they are."""
    backed = behind(register)
    for one in register["section"]:
        body = dict(sections(one["page"])).get(one["heading"], "")
        head = f'page = "{one["page"]}"\nheading = {json.dumps(one["heading"], ensure_ascii=False)}\n'
        text = re.sub(
            re.escape(head) + 'numbers = "[^"]*"',
            f'{head}numbers = "{digest(left(one["page"], body, backed))}"',
            text,
        )
    return text


def main() -> None:
    """Command line."""
    text = REGISTER.read_text(encoding="utf-8")
    if "--accept" in sys.argv:
        REGISTER.write_text(accepted(text, tomllib.loads(text)), encoding="utf-8")
        text = REGISTER.read_text(encoding="utf-8")
    register = tomllib.loads(text)
    if "--show" in sys.argv:
        print("\n".join(line for one in register["claim"] for line in (f"# {one['page']}", *filled(one))))
        return
    wrong = faults(register)
    if wrong:
        raise SystemExit("\n".join(wrong))
    PAGE.write_text(table(register), encoding="utf-8")


if __name__ == "__main__":
    main()
