"""Figures: what is drawn is what was given, and both forms can be read without network."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tamperlens.base.errors import InputError
from tamperlens.base.stats import wilson
from tamperlens.plots import cosine_by_layer, direction_map, dot_interval, loss_curve, percent

EVIL = "<script>alert(1)</script> & $x_1$"


def rates() -> pd.DataFrame:
    rows = []
    for panel, label, series, k, n in [
        ("Refused", "harmful", "before", 196, 200),
        ("Refused", "harmful", "after", 4, 200),
        ("Refused", EVIL, "before", 3, 50),
        ("Refused", EVIL, "after", 2, 50),
        ("Correct", "code", "before", 0, 0),
        ("Correct", "code", "after", 5, 10),
    ]:
        e = wilson(k, n)
        entry = {"value": e.value, "low": e.low, "high": e.high, "n": e.n}
        rows.append({"panel": panel, "label": label, "series": series, **entry})
    return pd.DataFrame(rows)


def table(layers: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"position": p, "layer": x, "bypass": float(10 * p + x), "passed": x < 3}
            for p in (-2, -1)
            for x in range(layers)
        ]
    )


def cosines() -> pd.DataFrame:
    layers = np.arange(5)
    value = np.array([math.nan, 0.9, 0.6, 0.3, -0.2])
    return pd.DataFrame(
        {
            "layer": layers, "cosine": value, "low": value - 0.05, "high": value + 0.05,
            "null": 0.9, "null_low": 0.85, "null_high": 0.95,
        }
    )  # fmt: skip


def all_plots():
    return [
        dot_interval(rates(), name="rates", title=f"Rates {EVIL}", caption="c", axis="share of prompts"),
        direction_map(table(), layer=2, position=-1, tokens=["<|end|>", EVIL[:17]], caption="c"),
        direction_map(table(32), layer=2, position=-1, caption="c", name="direction32"),
        cosine_by_layer(cosines(), layer=3, caption="c"),
        loss_curve(pd.DataFrame({"step": range(1, 41), "loss": np.linspace(3, 0.1, 40)}), caption="c"),
    ]


def test_saved_files_are_offline_readable_and_repeatable(tmp_path):
    before = dict(mpl.rcParams)
    for plot in all_plots():
        page, png, svg = plot.save(tmp_path / "one")
        text = page.read_text()
        assert re.findall(r'src="([^"]*)"', text) == ["plotly.min.js"]
        assert "<script>alert(1)" not in text
        with Image.open(png) as image:
            assert image.width >= 900
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
        ElementTree.fromstring(svg.read_text())  # well-formed
        assert plot.svg() == svg.read_text()
        assert "<script" not in svg.read_text()
    assert (tmp_path / "one" / "plotly.min.js").stat().st_size > 1_000_000
    for plot in all_plots():
        plot.save(tmp_path / "two")
    for path in (tmp_path / "one").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert dict(mpl.rcParams) == before


def test_ids_are_unique_when_figures_share_a_page():
    ids = [i for plot in all_plots() for i in re.findall(r'\bid="([^"]+)"', plot.svg())]
    assert len(ids) == len(set(ids))
    for plot in all_plots():
        svg = plot.svg()
        known = set(re.findall(r'\bid="([^"]+)"', svg))
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {a or b for a, b in used} <= known


def test_dots_stand_where_the_numbers_say():
    plot = dot_interval(rates(), name="rates", title="t", caption="c", axis="share")
    trace = next(t for t in plot.interactive.data if t.name == "before")
    assert list(trace.x) == [0.98, 0.06]  # the undefined one is not drawn
    e = wilson(196, 200)
    assert trace.error_x.array[0] == pytest.approx(e.high - e.value)
    assert trace.error_x.arrayminus[0] == pytest.approx(e.value - e.low)
    drawn = [s[:, 0] for a in plot.still.axes for c in a.collections for s in c.get_segments()]
    assert any(list(x) == pytest.approx([e.low, e.high]) for x in drawn)
    texts = [text.get_text() for axes in plot.still.axes for text in axes.texts]
    assert "before: undefined" in texts
    assert "before 98\u00a0%" in plot.alt
    assert "n = 200" in plot.svg()


def test_selected_cell_is_marked_and_orientation_is_right():
    plot = direction_map(table(), layer=2, position=-1, caption="c")
    heat = plot.interactive.data[0]
    # Rows run from the last position up; columns are layers.
    assert np.asarray(heat.z, dtype=float).tolist() == [[-10, -9, -8, -7], [-20, -19, -18, -17]]
    shape = plot.interactive.layout.shapes[0]
    assert (shape.x0, shape.x1, shape.y0, shape.y1) == (1.5, 2.5, -0.5, 0.5)
    box = next(p for p in plot.still.axes[0].patches if p.get_edgecolor()[:3] != (1, 1, 1))
    assert box.get_xy() == (1.5, -0.5)
    assert "layer 2, position -1" in plot.alt
    assert "2 candidates did not" in plot.alt


def test_loss_direction_in_words():
    rising = loss_curve(pd.DataFrame({"step": [1, 2], "loss": [1.0, 2.0]}), caption="c")
    assert "rises from 1.00 to 2.00" in rising.alt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.004, "0.4 %"),
        (0.5, "50 %"),
        (0.996, "99.6 %"),
        (1.0, "100 %"),
        (math.nan, "undefined"),
    ],
)
def test_percent(value, text):
    assert percent(value).replace("\u00a0", " ") == text


def test_empty_input_is_named():
    with pytest.raises(InputError, match="dot_interval needs rows"):
        dot_interval(pd.DataFrame(), name="x", title="t", caption="c", axis="a")
    with pytest.raises(InputError, match="bypass"):
        direction_map(table().drop(columns="bypass"), layer=0, position=-1, caption="c")
    with pytest.raises(InputError, match="nothing was logged"):
        loss_curve(pd.DataFrame({"step": [1], "loss": [math.nan]}), caption="c")
    with pytest.raises(InputError, match="null_low"):
        cosine_by_layer(cosines().drop(columns="null_low"), layer=0, caption="c")


def test_pdf_is_vector_with_text_and_repeatable(tmp_path):
    for plot in all_plots()[:2]:
        *_, path = plot.save(tmp_path / "one", pdf=True)
        data = path.read_bytes()
        assert data.startswith(b"%PDF")
        assert b"/CIDFontType2" in data  # TrueType, not drawn outlines
        assert b"/Subject" in data  # the caption, with n and what the intervals are
        assert b"/Subtype /Image" not in data or plot.name == "direction"
        assert plot.pdf(tmp_path / "again.pdf").read_bytes() == data


def test_compute_that_was_reached_nowhere_is_drawn() -> None:
    from tamperlens.plots.compute import compute_curve

    dots = pd.DataFrame(
        {"series": ["m"], "size": [1e6], "flops": [1e9], "value": [0.0], "low": [0.0], "high": [0.4]}
    )
    nothing = {"value": [math.nan], "low": [math.nan], "high": [math.nan], "reason": ["it refused nothing"]}
    half = pd.DataFrame({"series": ["m"], "size": [1e6], **nothing})
    lines = pd.DataFrame(columns=["series", "flops", "value"])
    plot = compute_curve(dots, lines, half, caption="c", axis="share")
    assert "not reached" in plot.svg() and "it refused nothing" in plot.alt
