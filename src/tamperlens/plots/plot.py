"""A figure in its two forms, interactive (plotly) and still (matplotlib), with the words that go with it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from tamperlens.base.cells import file_name
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, atomic_path, write_text
from tamperlens.plots.style import style, themed_svg

_UNDATED = {"CreationDate": None, "Creator": "tamperlens"}  # the same data give the same file
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;
padding:0 1rem;color:#1b1f24}}
h1{{font-size:1.2rem}}</style></head>
<body><main><h1>{title}</h1>{figure}<p>{caption}</p></main></body></html>
"""


def need_columns(frame: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """Refuse a table that a figure cannot be drawn from.

    Raises:
        InputError: a column is missing or there are no rows.
    """
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        raise InputError(f"{figure} needs rows with {', '.join(columns)}; missing: {missing or 'rows'}")


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        name: file stem, e.g. "rates".
        title: what it shows, a few words.
        caption: how to read it: n, units, what the intervals are.
        alt: the finding in words, for people who do not see the figure.
        interactive: plotly figure.
        still: matplotlib figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    interactive: go.Figure
    still: Figure

    def __post_init__(self) -> None:
        # Names hold what users call models and concepts, and become ids and files.
        object.__setattr__(self, "name", file_name(self.name))

    def svg(self) -> str:
        """The still figure as SVG that follows the colours of the page it is put into."""
        buffer = io.StringIO()
        with style(), _quiet():
            self.still.savefig(
                buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
            )
        return themed_svg(buffer.getvalue(), self.name)

    def pdf(self, path: PathLike) -> Path:
        """Write the still figure as PDF for a paper: vectors, embedded fonts, the caption as its subject.

        Raises:
            RunFolderError: the file cannot be written.
        """
        words = {**_UNDATED, "Title": self.title, "Subject": self.caption}
        with atomic_path(path) as temporary, style(), _quiet():
            self.still.savefig(temporary, format="pdf", bbox_inches="tight", metadata=words)
        return Path(path)

    def save(self, folder: PathLike, *, pdf: bool = False) -> list[Path]:
        """Write NAME.html, NAME.png and NAME.svg; the page shares one `plotly.min.js` per folder, no network.

        Args:
            folder: where to.
            pdf: also NAME.pdf, for papers.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        import html

        root = Path(folder)
        library = root / "plotly.min.js"
        if not library.exists():
            from plotly.offline import get_plotlyjs

            write_text(library, get_plotlyjs())
        figure = self.interactive.to_html(
            include_plotlyjs="directory", full_html=False, config={"displaylogo": False, "responsive": True}
        )
        page = _PAGE.format(title=html.escape(self.title), caption=html.escape(self.caption), figure=figure)
        written = [write_text(root / f"{self.name}.html", page)]
        png = root / f"{self.name}.png"
        with atomic_path(png) as temporary, style(), _quiet():
            # Fonts and layout are taken at drawing time, so the style must hold here too.
            self.still.savefig(
                temporary, format="png", dpi=200, bbox_inches="tight", metadata={"Software": "tamperlens"}
            )
        written.append(png)
        written.append(write_text(root / f"{self.name}.svg", self.svg()))
        if pdf:
            written.append(self.pdf(root / f"{self.name}.pdf"))
        return written


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
