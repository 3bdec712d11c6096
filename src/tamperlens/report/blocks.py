"""What a page is made of. Every string is plain text and is escaped; only figures carry markup (SVG)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tamperlens.plots import Plot

MOST_BYTES = 2_500_000
"""Of the answers that a page holds."""


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    paragraphs: tuple[str, ...]
    kind: str = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of short statements."""

    items: tuple[str, ...]
    kind: str = "bullets"


@dataclass(frozen=True)
class Notice:
    """Something a reader must know before believing a number."""

    text: str
    kind: str = "notice"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row; other columns are right-aligned numbers unless in `words`.

    Attributes:
        caption: what it shows and how to read it.
        header: column names.
        rows: cells as text, one sequence per row, as long as the header.
        words: indices of columns that hold words.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    kind: str = "table"


@dataclass(frozen=True)
class FigureBlock:
    """A figure.

    Attributes:
        name: id on the page.
        title: a few words.
        caption: n, units, intervals.
        alt: the finding in words.
        svg: markup drawn by `tamperlens.plots`, put in as it is.
        link: relative address of the interactive version, or empty.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    link: str = ""
    kind: str = "figure"

    @classmethod
    def of(cls, plot: Plot, link: str = "") -> FigureBlock:
        """Of a figure at hand."""
        return cls(plot.name, plot.title, plot.caption, plot.alt, plot.svg(), link)


@dataclass(frozen=True)
class Facts:
    """Names and values, e.g. provenance; long values such as hashes wrap."""

    rows: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True)
class Paste:
    """Text to be copied as it is, such as a table for a paper; folded.

    Attributes:
        title: what it is.
        text: the text.
    """

    title: str
    text: str
    kind: str = "paste"


@dataclass(frozen=True)
class Browser:
    """Two models' answers to the same prompts, side by side, to be searched, filtered and downloaded.

    Its page carries one script of ours, allowed by its hash; rows go in as data and are shown as text.
    Prompts and answers are folded until a reader opens a row.

    Attributes:
        intro: what is in it, and where the rest is.
        rows: one per prompt, plain values; `model`, `set`, `index`, `prompt`, `base`, `tuned`, `base_label`
            and `tuned_label`.
        name: stem of downloaded files.
    """

    intro: str
    rows: tuple[dict[str, object], ...]
    name: str = "answers"
    kind: str = "browser"

    @classmethod
    def of(cls, rows: Iterable[dict[str, object]], file: str, *, longest: int = 1200) -> Browser:
        """Of rows as above, changed verdicts first, texts cut, and about 2.5 MB of them at most.

        Args:
            rows: one per prompt.
            file: the file beside the page that holds all of them in full.
            longest: characters of a prompt or answer.
        """
        cut = [row | {key: str(row[key])[:longest] for key in ("prompt", "base", "tuned")} for row in rows]
        cut.sort(key=lambda row: row["base_label"] == row["tuned_label"])
        sizes = accumulate(len(json.dumps(row, ensure_ascii=False).encode()) for row in cut)
        kept = [row for row, size in zip(cut, sizes, strict=True) if size <= MOST_BYTES]
        left = len(cut) - len(kept)
        rest = f" {left} more, unchanged ones last, are in {file}." if left else ""
        intro = (
            "The same prompts, before and after; those whose verdict changed come first. Texts are cut after "
            f"{longest} characters; all of them, in full: {file}.{rest}"
        )
        return cls(intro, tuple(kept), file.rpartition(".")[0])


Block = Text | Bullets | Notice | Table | FigureBlock | Facts | Paste | Browser


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: what was studied.
        headline: the finding in one sentence, with numbers and intervals.
        subtitle: when, with what.
        sections: in reading order.
        lead: the one picture that stands with the headline on the first screen.
    """

    title: str
    headline: str
    subtitle: str
    sections: Sequence[Section]
    lead: FigureBlock | None = None
