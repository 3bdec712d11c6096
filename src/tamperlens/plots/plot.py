"""A figure in its two forms, interactive (plotly) and still (matplotlib), with the words that go with it."""

from __future__ import annotations

import base64
import html
import io
import json
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from tamperlens.base.cells import file_name
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, atomic_path, write_text
from tamperlens.base.progress import in_notebook
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

    def png(self) -> bytes:
        """The still figure as PNG."""
        buffer = io.BytesIO()
        with style(), _quiet():
            # Fonts and layout are taken at drawing time, so the style must hold here too.
            self.still.savefig(
                buffer, format="png", dpi=200, bbox_inches="tight", metadata={"Software": "tamperlens"}
            )
        return buffer.getvalue()

    def page(self, library: bool | str = True) -> str:
        """The interactive figure with its caption as one HTML page.

        Args:
            library: True puts plotly.js into the page (4 MB, works anywhere without a network), "directory"
                reads it from `plotly.min.js` beside the page.
        """
        figure = self.interactive.to_html(
            include_plotlyjs=library, full_html=False, config={"displaylogo": False, "responsive": True}
        )
        return _PAGE.format(title=html.escape(self.title), caption=html.escape(self.caption), figure=figure)

    def show(self) -> None:
        """Show the figure: in the notebook that this runs in, else its page in the browser.

        Without a browser the page's path is printed.
        """
        if in_notebook():
            python: Any = sys.modules["IPython"]
            python.display.display(self)
            return
        path = write_text(Path(tempfile.mkdtemp(prefix="tamperlens-")) / f"{self.name}.html", self.page())
        if not webbrowser.open(path.as_uri()):
            print(path)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """What a notebook shows: plotly's figure where it is understood, else the still one."""
        return {
            "application/vnd.plotly.v1+json": json.loads(self.interactive.to_json()),
            "text/html": self._repr_html_(),
            "image/png": base64.b64encode(self.png()).decode(),
            "text/plain": f"{self.title}. {self.alt}",
        }

    def _repr_html_(self) -> str:
        """The still figure with its caption: what front ends without plotly show."""
        title, caption, alt = (html.escape(text) for text in (self.title, self.caption, self.alt))
        picture = base64.b64encode(self.png()).decode()
        return (
            f'<figure><img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{picture}">'
            f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
        )

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
        root = Path(folder)
        library = root / "plotly.min.js"
        if not library.exists():
            from plotly.offline import get_plotlyjs

            write_text(library, get_plotlyjs())
        written = [write_text(root / f"{self.name}.html", self.page("directory"))]
        png = root / f"{self.name}.png"
        with atomic_path(png) as temporary:
            temporary.write_bytes(self.png())
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
