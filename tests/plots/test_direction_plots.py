"""The causal scatter and the band over steps: what they say, and tables that they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tamperlens import plots
from tamperlens.base.errors import InputError

CANDIDATES = pd.DataFrame(
    {
        "position": [-1, -1, -2],
        "layer": [1, 2, 2],
        "bypass": [-3.0, -8.0, math.nan],
        "induce": [-1.0, 3.0, math.nan],
        "passed": [False, True, False],
        "chosen": [False, True, False],
    }
)
STEPS = pd.DataFrame({"step": [0, 10], "value": [1.0, 0.8], "low": [1.0, 0.7], "high": [1.0, 0.9]})


def test_scatter_names_the_selected_one(tmp_path: Path) -> None:
    plot = plots.causal_scatter(CANDIDATES, baseline=(5.0, -12.0), caption="how to read it")
    assert "2 candidates, 1 pass" in plot.alt  # the one without scores is not drawn
    assert "layer 2, position -1: -8.0 ablated, 3.0 added" in plot.alt
    assert {path.suffix for path in plot.save(tmp_path)} == {".html", ".png", ".svg"}
    with pytest.raises(InputError, match="induce"):
        plots.causal_scatter(CANDIDATES.drop(columns="induce"), baseline=(0.0, 0.0), caption="")
    with pytest.raises(InputError, match="rows"):
        plots.causal_scatter(CANDIDATES[2:], baseline=(0.0, 0.0), caption="")


def test_band_with_and_without_a_null(tmp_path: Path) -> None:
    with_null = STEPS.assign(null=0.95, null_low=0.9, null_high=1.0)
    plot = plots.band_over_steps(with_null, caption="", axis="cosine")
    assert "at the end: cosine 0.8" in plot.alt
    assert "null is 0.95 [0.9, 1]" in plot.alt
    assert len(plot.save(tmp_path)) == 3
    nothing = STEPS.assign(null=math.nan, null_low=math.nan, null_high=math.nan)
    several = pd.concat([nothing.assign(series=name) for name in ("a", "b")])
    assert "null" not in plots.band_over_steps(several, caption="", axis="cosine").alt
    with pytest.raises(InputError, match="null_low"):
        plots.band_over_steps(STEPS, caption="", axis="cosine")


def test_whiskers_of_equal_series_stand_side_by_side() -> None:
    nothing = STEPS.assign(null=math.nan, null_low=math.nan, null_high=math.nan)
    several = pd.concat([nothing.assign(series=name) for name in ("a", "b", "c")])
    plot = plots.band_over_steps(several, caption="", axis="cosine")
    one, two, three = (bars.lines[0].get_xdata() for bars in plot.still.axes[0].containers)
    reach = STEPS["step"].max() - STEPS["step"].min()
    assert list(two) == list(STEPS["step"])  # the middle one where it belongs
    assert list(two - one) == pytest.approx([0.01 * reach] * len(two))
    assert list(three - two) == pytest.approx([0.01 * reach] * len(two))
    for trace in plot.interactive.data:
        assert list(trace.x) == list(STEPS["step"])
