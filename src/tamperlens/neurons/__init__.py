"""Which weights, rows, ranks and heads carry a behaviour.

Contents:
- `snip` (snip), `simple` (wanda, magnitude, random): a score for every weight -> `scores` (WeightScores);
  `passes` (portions, shards, the sequential mode) and `examples` (encoding, losses) are what they share.
- `choosing` (a fraction of the scores, over `cutoffs`: exact top-k) -> WeightMask; `selection`
  (set_difference, sweep).
- `experts` (expert_snip): the same score for the stacked weights of sparse experts.
- `ranks`: ActSVD, removal of ranks, orthogonal difference, subspace overlap.
- `units`: scores by row, neuron and head; activation contrast; contrastive attribution.
- `presets` (published, calibrated: options that go together; normalised).
- `interventions` (zeroed, control: a matched random set), `overlaps` (overlap = compare, noise_floor).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.base.masks import Jaccard, WeightMask
from tamperlens.base.parts import Part
from tamperlens.neurons.experts import ExpertScores, expert_snip
from tamperlens.neurons.interventions import control, zeroed
from tamperlens.neurons.overlaps import NoiseFloor, Overlap, compare, noise_floor, overlap
from tamperlens.neurons.presets import PRESETS, Preset, normalised, preset, preset_scores
from tamperlens.neurons.ranks import (
    RankEdit,
    Subspaces,
    act_svd,
    orthogonal_difference,
    random_ranks,
    ranks_removed,
    subspace_overlap,
    top_ranks,
)
from tamperlens.neurons.scores import WeightScores
from tamperlens.neurons.selection import set_difference, sweep
from tamperlens.neurons.simple import magnitude, random, wanda
from tamperlens.neurons.snip import snip
from tamperlens.neurons.units import (
    UnitScores,
    activation_contrast,
    by_head,
    by_neuron,
    by_row,
    contrastive_attribution,
    unit_mask,
)

__all__ = [
    "PRESETS",
    "ExpertScores",
    "Jaccard",
    "NoiseFloor",
    "Overlap",
    "Part",
    "Preset",
    "RankEdit",
    "Subspaces",
    "UnitScores",
    "WeightMask",
    "WeightScores",
    "act_svd",
    "activation_contrast",
    "by_head",
    "by_neuron",
    "by_row",
    "compare",
    "contrastive_attribution",
    "control",
    "expert_snip",
    "magnitude",
    "noise_floor",
    "normalised",
    "orthogonal_difference",
    "overlap",
    "preset",
    "preset_scores",
    "random",
    "random_ranks",
    "ranks_removed",
    "set_difference",
    "snip",
    "subspace_overlap",
    "sweep",
    "top_ranks",
    "unit_mask",
    "wanda",
    "zeroed",
]

guard(globals(), __all__)
