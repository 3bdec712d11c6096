"""The house style: one palette, one type size, intervals always, units on every axis.

Colours are those of Okabe & Ito (2008), told apart under the common colour blindnesses, and every series also
has its own marker shape, so that nothing rests on colour alone.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#57606a"
RULE = "#d0d7de"
PAPER = "#ffffff"

BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
SKY = "#56b4e9"
ORANGE = "#e69f00"
PURPLE = "#cc79a7"
GREY = "#767676"

SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
PLOTLY_MARKERS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross", "x")

DIVERGING = [(0.0, "#00466e"), (0.25, "#4f9fcf"), (0.5, "#f6f6f4"), (0.75, "#ec9a5c"), (1.0, "#9c4100")]
"""Blue to vermillion through a light neutral; both ends equally dark, so it also works in grey."""

RISING = [(0.0, "#ffffff"), (0.35, "#9ecae9"), (0.7, "#2f7fb5"), (1.0, "#00324f")]
"""White to dark blue, for shares that begin at 0."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH_INCHES = 5.6

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.parse_math": False,  # names of prompt sets and tokens are text, never formulas
    "svg.fonttype": "none",  # text stays text: searchable, and it takes the page's colour
    "pdf.fonttype": 42,  # whole fonts, as publishers ask
    "svg.hashsalt": "tamperlens",  # the same data give the same file
}


def style() -> Any:
    """Context manager: matplotlib drawn in it follows the house style; global settings stay as they were."""
    return mpl.rc_context(_RC)  # type: ignore[arg-type]


def short(text: str, limit: int = 40) -> str:
    """A name that came from outside, on one line and short enough for an axis."""
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def settle(figure: Figure) -> Figure:
    """Lay the figure out once, for good: every later drawing, at any resolution, has the same places."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def layout(**changes: Any) -> go.Layout:
    """A plotly layout in the house style."""
    axis = {"gridcolor": RULE, "linecolor": MUTED, "zeroline": False, "automargin": True, "ticks": "outside"}
    base: dict[str, Any] = {
        "font": {"family": FONT, "size": 14, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": list(SERIES),
        "margin": {"l": 60, "r": 30, "t": 70, "b": 60},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"font": {"family": FONT}},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(base.get(key), dict) else value
    return go.Layout(**base)


def reach(frame: pd.DataFrame, value: str = "value", prefix: str = "") -> np.ndarray:
    """Lengths of whiskers, below and above, [2, n], an unknown end being 0."""
    low, high = frame[f"{prefix}low"], frame[f"{prefix}high"]
    ends = np.array([frame[value] - low, high - frame[value]], dtype=float)
    return np.asarray(np.nan_to_num(np.clip(ends, 0, None)))


def whiskers(ends: np.ndarray, **more: Any) -> dict[str, Any]:
    """The same as plotly takes them."""
    return {"type": "data", "symmetric": False, "array": ends[1], "arrayminus": ends[0], **more}


def percent(value: float) -> str:
    """A share in [0, 1] as text, e.g. "97 %"; one decimal where rounding would hide a nonzero distance."""
    if value != value:
        return "undefined"
    share = 100 * value
    if 0 < share < 1 or 99 < share < 100:
        return f"{share:.1f}\u00a0%"
    return f"{share:.0f}\u00a0%"


def themed_svg(svg: str, name: str) -> str:
    """An SVG drawn in the house style, made to follow the colours and fonts of the page it is put into.

    Ink, rules and paper become CSS variables (`--ink`, `--muted`, `--rule`, `--paper`) with the drawn colour
    as fallback; the XML prolog, fixed size and metadata are dropped.

    Args:
        svg: text written by matplotlib.
        name: prefix of all ids, so that several figures can share one page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height|style)="[^"]*"', "", head)
    # The style sheet that matplotlib writes would hold for the whole page; on the root it is inherited.
    rest = re.sub(r"<style\b.*?</style>", "", rest, flags=re.DOTALL | re.IGNORECASE)
    head += ' style="stroke-linejoin:round;stroke-linecap:butt"'
    svg = f"{head}>{rest}"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    for role, colour in (
        ("ink", INK),
        ("muted", MUTED),
        ("rule", RULE),
        ("paper", PAPER),
        ("blue", BLUE),
        ("vermillion", VERMILLION),
        ("grey", GREY),
    ):
        svg = re.sub(rf"(?i){colour}\b", f"var(--{role}, {colour})", svg)
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONT.replace('"', "'"), svg)
