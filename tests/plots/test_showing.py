"""A plot shows itself: in a notebook, in a browser, without either."""

from __future__ import annotations

import base64
import sys
import types

import pandas as pd
import pytest

from tamperlens import plots
from tamperlens.plots import plot as module


@pytest.fixture
def plot():
    frame = pd.DataFrame({"panel": "a", "series": "<b>x</b>", "dose": [1, 2], "value": [0.1, 0.4]})
    frame = frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05)
    return plots.dose_curve(frame, name="dose", title="T<i>", caption="c", x_axis="x", y_axis="y")


def test_what_a_notebook_gets(plot):
    bundle = plot._repr_mimebundle_()
    figure = bundle["application/vnd.plotly.v1+json"]
    assert figure["data"][0]["y"] is not None and "layout" in figure
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "T&lt;i&gt;" in plot._repr_html_() and "<b>x</b>" not in plot._repr_html_()
    assert bundle["text/plain"].startswith("T<i>. ")


def test_in_a_notebook_it_is_displayed(plot, monkeypatch):
    shown = []
    python = types.SimpleNamespace(
        get_ipython=lambda: types.SimpleNamespace(kernel=1),
        display=types.SimpleNamespace(display=shown.append),
    )
    monkeypatch.setitem(sys.modules, "IPython", python)
    plot.show()
    assert shown == [plot]


def test_elsewhere_a_page_is_opened(plot, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    opened = []
    monkeypatch.setattr(module.webbrowser, "open", lambda address: opened.append(address) or False)
    plot.show()
    (path,) = capsys.readouterr().out.split()
    assert opened == [f"file://{path}"]
    with open(path, encoding="utf-8") as handle:
        page = handle.read()
    assert "plotly" in page and '<script src="http' not in page, "no network is needed"
