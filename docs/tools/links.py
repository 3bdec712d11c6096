"""Follow every link of the built site: the file is there, and the anchor in it.

python docs/tools/links.py build/site    # exit 1 and a line for each that leads nowhere
"""

from __future__ import annotations

import html
import re
import sys
import urllib.parse
from functools import cache
from pathlib import Path

LINK = re.compile(r'(?:href|src)="([^"]+)"')
ELSEWHERE = ("http:", "https:", "mailto:", "data:", "javascript:")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Identifiers of a page."""
    return frozenset(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def dead(page: Path, link: str) -> str:
    """What is wrong with a link of a page; empty when it leads somewhere."""
    path, _, anchor = html.unescape(link).partition("#")
    target = (page.parent / urllib.parse.unquote(path.split("?")[0])).resolve() if path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return "no such file"
    anchor = urllib.parse.unquote(anchor)
    if anchor.startswith("__") or target.suffix != ".html" or not anchor:  # __: the theme's own switches
        return ""
    return "" if anchor in anchors(target) else "no such heading"


def main() -> None:
    """Command line."""
    site = Path(sys.argv[1]).resolve()
    found, wrong = 0, []
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # served for any address, so its links are absolute
            continue
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if not link.startswith(ELSEWHERE):
                found += 1
                reason = dead(page, link)
                wrong += [f"{page.relative_to(site)}: {link}: {reason}"] if reason else []
    print(*wrong, f"{found} links, {len(wrong)} dead", sep="\n")
    if wrong or not found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
