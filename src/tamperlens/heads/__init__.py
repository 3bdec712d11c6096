"""Which attention heads carry a behaviour, and what they look at.

Contents:
- `attribution` (attribute: eight methods) over `direct`, `gradient` (and integrated), `exact` (ablate,
  patch, path), `published` (ships, sahara); `targets` (what is measured), `inputs` (pairs, batches, align).
- `edges` (EAP-IG: a score for every edge between parts).
- `scores` (HeadScores, rank_agreement, agreement).
- `curves` (ablation_curve: top heads against random heads of the same layers).
- `recording` (HeadRecorder for finetune.run, HeadTrace, compare).
- `patterns` (attention over a prompt, tokens_read, pages that open without network).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.heads.attribution import attribute
from tamperlens.heads.curves import AblationCurve, ablation_curve
from tamperlens.heads.edges import EdgeScores, edges
from tamperlens.heads.inputs import align
from tamperlens.heads.patterns import Patterns, patterns, tokens_read, write_page
from tamperlens.heads.recording import HeadChange, HeadRecorder, HeadTrace, compare
from tamperlens.heads.scores import HeadScores, agreement, rank_agreement
from tamperlens.heads.targets import Target, resolve_target

__all__ = [
    "AblationCurve",
    "EdgeScores",
    "HeadChange",
    "HeadRecorder",
    "HeadScores",
    "HeadTrace",
    "Patterns",
    "Target",
    "ablation_curve",
    "agreement",
    "align",
    "attribute",
    "compare",
    "edges",
    "patterns",
    "rank_agreement",
    "resolve_target",
    "tokens_read",
    "write_page",
]

guard(globals(), __all__)
