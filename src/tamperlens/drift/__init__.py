"""How far groups of weights move while a model is fine-tuned, and whether safety weights move further.

    safety, utility = neurons.snip(model, refusals), neurons.snip(model, instructions)
    groups = drift.groups(model, safety=safety, utility=utility)
    recorder = drift.Recorder(groups, every=100)
    tuned = finetune.run(model, attack, recorders=[recorder])
    trace = tuned.recordings[0]                               # DriftTrace: to_frame, plot, save
    drift.test_hypotheses(traces, margin=0.1).verdict         # "H1", "H2" or "cannot tell"; three seeds

Contents: `grouping` (groups with matched controls), `recording` (Recorder), `trace` (DriftTrace and its
figures), `verdict` (test_hypotheses, DriftVerdict), `comparing` (two trainings); `plots.drift` draws.
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.drift.comparing import DriftChange, compare
from tamperlens.drift.grouping import Groups, groups
from tamperlens.drift.recording import Recorder, measure
from tamperlens.drift.trace import MEASURES, DriftTrace, by_group, layer_map, over_steps
from tamperlens.drift.verdict import DriftVerdict, test_hypotheses

__all__ = [
    "MEASURES",
    "DriftChange",
    "DriftTrace",
    "DriftVerdict",
    "Groups",
    "Recorder",
    "by_group",
    "compare",
    "groups",
    "layer_map",
    "measure",
    "over_steps",
    "test_hypotheses",
]

guard(globals(), __all__)
