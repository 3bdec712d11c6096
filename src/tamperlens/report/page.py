"""Blocks into one self-contained page: no network, everything from a model escaped.

A page has no script, unless it holds a `Browser`: then it has the one in `templates`, allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tamperlens.base import cells
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, write_text
from tamperlens.report.blocks import Page

SCRIPTED = ("browser", "paste")
"""Blocks that need the page's script."""


def render(page: Page) -> str:
    """The page as one HTML document.

    The document's content security policy forbids scripts (but for our own where there is a `Browser`) and
    every outside resource, so that text written by a model cannot act even if a browser took it for markup.
    """
    script = ""
    if any(block.kind in SCRIPTED for section in page.sections for block in section.blocks):
        script = (Path(__file__).parent / "templates" / "browser.js").read_text(encoding="utf-8")
    return _template().render(page=page, script=Markup(script), digest=script_digest(script))


def script_digest(script: str) -> str:
    """The hash by which a content security policy allows a script; "" for none."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() if script else ""


def json_in_page(value: Any) -> Markup:
    """Plain values as JSON that cannot close its element; NaN is null, other numbers have five digits."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


def write(path: PathLike, page: Page) -> Path:
    """Write the page atomically and return its path.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    return write_text(path, render(page))


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tamperlens.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["slug"] = slug
    environment.filters["drawn"] = _drawn
    environment.filters["json_in_page"] = json_in_page
    return environment.get_template("page.html.j2")


def visible(text: object) -> object:
    """Text whose control and direction-changing characters show as code points, so that they cannot act.

    Applied to everything the template puts out; markup of our own passes as it is.
    """
    if not isinstance(text, str) or isinstance(text, Markup):
        return text
    return cells.visible(text)


def slug(text: str) -> str:
    """Text as an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _drawn(svg: str) -> Markup:
    """Markup of our own drawing, in which every label is escaped."""
    check_drawing(svg)
    return Markup(svg)


def check_drawing(svg: str) -> None:
    """Refuse a figure that could act on the page.

    Raises:
        InputError: it is no plain SVG drawing.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise InputError(f"a figure must be a plain SVG drawing: {error}") from error
    for element in root.iter():
        tag = str(element.tag).rsplit("}", 1)[-1].lower()
        # A style sheet would hold for the whole page.
        forbidden = ("script", "style", "foreignobject", "a", "iframe")
        acts = tag in forbidden or (element is root and tag != "svg")
        for name, value in element.attrib.items():
            key = name.rsplit("}", 1)[-1].lower()
            inside = "data:image/png;base64," if tag == "image" else "#"  # colour bars are drawn as pixels
            acts = acts or key.startswith("on") or (key == "href" and not value.startswith(inside))
            acts = acts or (key == "style" and "url(" in re.sub(r"url\(#", "", value))
        if acts:
            raise InputError(f"a figure must be a plain SVG drawing: it holds <{tag}>")
