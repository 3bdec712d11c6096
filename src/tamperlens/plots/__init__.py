"""Figures, interactive (plotly) and still (matplotlib PNG and SVG), in one house style.

Contents: `dot_interval` (rates with intervals), `direction_map` (layer × position), `cosine_by_layer` (with
the split-half null), `loss_curve`, `dose_curve`, `compute_curve` (a share against attack compute), `tradeoff`
(two shares against each other), `head_map`, `attention_map`, `ablation_curve`, `agreement_map` (attention
heads), `drift_over_steps`, `drift_by_group`, `ratio_map`, `ratio_intervals` (drift); each returns a `Plot`,
which saves HTML, PNG and SVG and shows itself in a notebook. `style` holds the palette.
"""

from tamperlens.base.boundary import guard
from tamperlens.plots.compute import compute_curve as compute_curve
from tamperlens.plots.direction import direction_map as direction_map
from tamperlens.plots.dose import dose_curve as dose_curve
from tamperlens.plots.drift import drift_by_group as drift_by_group
from tamperlens.plots.drift import drift_over_steps as drift_over_steps
from tamperlens.plots.drift import paired_styles as paired_styles
from tamperlens.plots.drift import ratio_intervals as ratio_intervals
from tamperlens.plots.drift import ratio_map as ratio_map
from tamperlens.plots.heads import ablation_curve as ablation_curve
from tamperlens.plots.heads import agreement_map as agreement_map
from tamperlens.plots.heads import attention_map as attention_map
from tamperlens.plots.heads import head_map as head_map
from tamperlens.plots.intervals import dot_interval as dot_interval
from tamperlens.plots.lines import cosine_by_layer as cosine_by_layer
from tamperlens.plots.lines import loss_curve as loss_curve
from tamperlens.plots.plot import Plot as Plot
from tamperlens.plots.scatter import causal_scatter as causal_scatter
from tamperlens.plots.steps import band_over_steps as band_over_steps
from tamperlens.plots.style import percent as percent
from tamperlens.plots.tradeoff import tradeoff as tradeoff

__all__ = [
    "Plot",
    "ablation_curve",
    "agreement_map",
    "attention_map",
    "band_over_steps",
    "causal_scatter",
    "compute_curve",
    "cosine_by_layer",
    "direction_map",
    "dose_curve",
    "dot_interval",
    "drift_by_group",
    "drift_over_steps",
    "head_map",
    "loss_curve",
    "paired_styles",
    "percent",
    "ratio_intervals",
    "ratio_map",
    "tradeoff",
]

guard(globals(), __all__)
