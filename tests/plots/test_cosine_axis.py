"""The axis of cosines shows where they lie."""

from __future__ import annotations

import pandas as pd
import pytest

from tamperlens.plots import cosine_by_layer


@pytest.mark.parametrize(("cosines", "most"), [([0.99, 0.97], 0.06), ([0.2, 0.99], 1.0), ([1.0, 1.0], 0.03)])
def test_the_axis_is_as_wide_as_the_values_need(cosines, most):
    frame = pd.DataFrame({"layer": [0, 1], "cosine": cosines})
    for name, off in (("low", -0.01), ("high", 0.0), ("null", 0.0), ("null_low", -0.01), ("null_high", 0.0)):
        frame[name] = frame["cosine"] + off
    low, high = cosine_by_layer(frame, layer=1, caption="c").still.axes[0].get_ylim()
    assert high - low < most
    assert low < min(cosines) - 0.01 and high > max(cosines)
