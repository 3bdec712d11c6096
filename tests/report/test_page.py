"""The report page: escaped, self-contained, readable on a desk, on a phone, on paper and by keyboard."""

from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser

import browser as browsers
import pandas as pd
import pytest

from tamperlens.base.stats import wilson
from tamperlens.plots import dot_interval
from tamperlens.report import (
    Browser,
    Bullets,
    Facts,
    FigureBlock,
    Notice,
    Page,
    Paste,
    Section,
    Table,
    Text,
    render,
    write,
)

EVIL = (
    "</blockquote></details><script>document.title='owned';console.log('owned')</script>"
    "<img src=http://example.invalid/x.png onerror=\"document.title='owned'\">"
    "<a href='javascript:alert(1)'>x</a> {{ 7*7 }} {% raw %} &amp; \u202egnp.exe \x1b[31m"
)
LONG = "w" * 400 + " " + EVIL


def figure(label: str = EVIL) -> FigureBlock:
    entry = wilson(4, 10).cells()
    frame = pd.DataFrame([{"panel": "Refused", "label": label, "series": EVIL, **entry}])
    plot = dot_interval(frame, name="rates", title=EVIL, caption=EVIL, axis="share")
    return FigureBlock.of(plot, "figures/rates.html")


def page() -> Page:
    table = Table(EVIL, ("measure", "before", "after"), tuple((LONG, "98 %", "2 %") for _ in range(3)))
    return Page(
        f"Audit {EVIL}", f"Headline {EVIL}", EVIL,
        [
            Section("Rates", [Text((EVIL, LONG)), Bullets((EVIL,)), Notice(EVIL), figure(), table]),
            Section("Provenance", [Facts((("command", EVIL), ("fingerprint", "a" * 300)))]),
        ],
    )  # fmt: skip


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_model_text_is_text():
    document = render(page())
    outline = Outline()
    outline.feed(document)
    tags = [tag for tag, _ in outline.tags]
    assert "script" not in tags
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attrs in outline.tags for name in attrs)
    assert not any((attrs.get("href") or "").lower().startswith("javascript") for _, attrs in outline.tags)
    assert "<script>document.title" in "".join(outline.words)  # shown, as text
    assert "{{ 7*7 }}" in document
    assert "\u202e" not in document
    assert "\x1b" not in document
    assert r"\u202egnp" in html.unescape(document)


def test_a_figure_with_markup_of_its_own_is_refused():
    for svg in ("<svg><script>1</script></svg>", "<p>", "<svg><foreignObject/></svg>"):
        block = FigureBlock("x", "t", "c", "a", svg)
        with pytest.raises(ValueError, match="plain SVG"):
            render(Page("t", "h", "s", [Section("a", [block])]))


def test_self_contained_and_small():
    document = render(page())
    assert len(document) < 200_000
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', document)
    assert policy is not None
    assert "default-src 'none'" in policy.group(1)
    outline = Outline()
    outline.feed(document)
    for tag, attrs in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            address = attrs.get(name) or "#"
            assert address.startswith(("#", "data:,", "figures/")), (tag, address)
    assert "@import" not in document


def test_structure_for_readers_of_every_kind():
    outline = Outline()
    outline.feed(render(page()))
    tags = outline.tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert [t for t, _ in tags].count("h1") == 1
    for landmark in ("header", "nav", "main", "footer"):
        assert [t for t, _ in tags].count(landmark) == 1
    drawing = next(attrs for _, attrs in tags if attrs.get("role") == "img")
    assert drawing["aria-label"]
    anchors = [a["href"][1:] for t, a in tags if t == "a" and (a.get("href") or "").startswith("#")]
    assert set(anchors) <= set(ids)
    assert all(a.get("scope") in ("col", "row") for t, a in tags if t == "th")
    assert next(a for t, a in tags if t == "html")["lang"] == "en"


@pytest.fixture(scope="module")
def tab():
    if browsers.find() is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("websocket", reason="no websocket client to drive a browser with")
    with browsers.browser() as opened:
        yield opened


def test_in_a_browser(tab, tmp_path):
    path = write(tmp_path / "report.html", page())
    for width in (375, 1280):
        for dark in (False, True):
            tab.requests.clear()
            tab.open(path, width=width, dark=dark)
            assert tab.js("document.title").startswith("Audit </blockquote>")  # no script ran
            assert tab.js("document.documentElement.scrollWidth") <= width
            assert [r for r in tab.requests if not r.startswith("data:")] == [path.as_uri()]
            ink, paper = tab.js(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            assert (
                sum(map(int, re.findall(r"\d+", ink)[:3])) > sum(map(int, re.findall(r"\d+", paper)[:3]))
            ) is dark
            tab.js("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert tab.js("document.documentElement.scrollWidth") <= width
    assert tab.messages == []


def test_a_table_of_changes_is_whole_on_a_desk(tab, tmp_path):
    """Its last column is n, which must not hide behind the edge; seven columns as the audit writes them."""
    columns = ("measure", "before", "after", "difference", "+ / −", "p", "n")
    widest = ("refused, look-alike", "98.5 % [98.1, 100]", "98.5 % [95.7, 99.5]", "−100 [−100, −97.3]")
    rows = ((*widest, "0 / 200", "< 0.001", "200"),)
    whole = Page("Audit", "A finding.", "", (Section("Rates", (Table("Changes.", columns, rows),)),))
    tab.open(write(tmp_path / "table.html", whole), width=1280)
    wide, room = tab.js("(box => [box.scrollWidth, box.clientWidth])(document.querySelector('.scroll'))")
    assert wide <= room


def test_by_keyboard(tab, tmp_path):
    folded = Section("Paste", [Paste("The table in Markdown", LONG)])
    tab.open(
        write(tmp_path / "report.html", dataclasses.replace(page(), sections=[*page().sections, folded]))
    )
    tab.key("Tab", 9)
    assert tab.js("document.activeElement.className") == "skip"
    assert tab.js("document.activeElement.getBoundingClientRect().left") >= 0  # seen while focused
    for _ in range(40):
        tab.key("Tab", 9)
        if tab.js("document.activeElement.tagName") == "SUMMARY":
            break
    assert tab.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.js("document.activeElement.parentElement.open") is False
    tab.key("Enter", 13)
    assert tab.js("document.activeElement.parentElement.open") is True


def test_on_paper(tab, tmp_path):
    tab.open(write(tmp_path / "report.html", page()))
    document = tab.pdf(tmp_path / "report.pdf").read_bytes()
    assert document.startswith(b"%PDF")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.js("getComputedStyle(document.querySelector('nav')).display") == "none"
    tab.call("Emulation.setEmulatedMedia", media="")


def test_interactive_figure_draws_offline(tab, tmp_path):
    entry = wilson(4, 10).cells()
    frame = pd.DataFrame([{"panel": "Refused", "label": EVIL, "series": "before", **entry}])
    dot_interval(frame, name="rates", title=EVIL, caption=EVIL, axis="share").save(tmp_path)
    tab.requests.clear()
    tab.messages.clear()
    tab.open(tmp_path / "rates.html")
    assert tab.js("document.querySelectorAll('.scatterlayer .trace').length") == 1
    assert tab.js("document.title").startswith("</blockquote>")
    assert all(r.startswith(("file:", "data:", "blob:")) for r in tab.requests)
    assert tab.messages == []


def test_answers_are_cut_and_changed_ones_come_first():
    rows = [
        {"model": "m", "set": "harmful", "index": i, "prompt": LONG, "base": "no", "tuned": LONG * 9,
         "base_label": "refusal", "tuned_label": label}
        for i, label in enumerate(("refusal", "compliance"))
    ]  # fmt: skip
    block = Browser.of(rows, "answers.csv", longest=280)
    assert [row["index"] for row in block.rows] == [1, 0]
    assert all(len(str(row["tuned"])) <= 280 for row in block.rows)
    document = render(Page("t", "h", "s", [Section("a", [block])]))
    assert "<script>document.title" not in document
