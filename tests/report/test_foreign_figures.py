"""Figures and tables of a run folder that came from somewhere else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import plotly.graph_objects as go
import pytest

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import inside
from tamperlens.base.runs import RunFolder
from tamperlens.plots.plot import Plot
from tamperlens.plots.style import themed_svg
from tamperlens.report.page import _drawn

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1">{}</svg>'


def test_a_style_sheet_never_reaches_the_page():
    hostile = SVG.format("<defs><STYLE type='text/css'>body{display:none}</STYLE></defs><g/>")
    drawn = themed_svg(hostile, "x")
    assert "body" not in drawn and "stroke-linejoin:round" in drawn
    assert "<style" not in _drawn(drawn)
    for inner in ("<style>*{}</style>", '<g style="fill:url(http://x/y)"/>', "<script/>"):
        with pytest.raises(InputError, match="plain SVG"):
            _drawn(SVG.format(inner))
    _drawn(SVG.format('<g style="clip-path:url(#a)"/>'))


def test_our_own_figures_have_none():
    figure, axes = plt.subplots()
    axes.plot([1, 2], [1, 2])
    plot = Plot("../../evil x", "t", "c", "a", go.Figure(), figure)
    plt.close(figure)
    assert plot.name == "evil-x", "what a model is called decides no path"
    assert "<style" not in plot.svg() and _drawn(plot.svg())


def test_a_figure_of_a_run_folder_is_drawn_again_on_another_page():
    once = themed_svg(SVG.format("<g id='x' fill='#000000'/>"), "x")
    assert _drawn(themed_svg(once, "y")).count("style=") == 1


def test_no_link_leaves_a_run_folder(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with RunFolder.open(tmp_path / "run", kind="audit", config={}) as run:
        (run.path / "measures.csv").symlink_to(secret)
        (run.path / "out").symlink_to(tmp_path)
        for parts in (("measures.csv",), ("out", "x.csv"), ("..", "x.csv")):
            with pytest.raises(RunFolderError, match="leaves"):
                run.file(*parts)
        assert run.file("figures", "a.svg").parent.is_dir()
    assert secret.read_text() == "a\n1\n"
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    assert inside(tmp_path / "alias", tmp_path / "alias" / "x.csv"), "the folder itself may be a link"
