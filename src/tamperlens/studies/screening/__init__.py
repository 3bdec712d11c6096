"""Data seen before training: which rows would wear refusal away, and what the whole set would cost.

Contents: `anchors` (a few harmful, safe and ordinary rows), `stream` (rows in portions), `scoring` (one pass
a row), `content` (the baseline that reads words alone), `screening` (`screen`, its result).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.screening.anchors import Anchors, anchors_for
from tamperlens.studies.screening.scoring import SCORES, RowScorer
from tamperlens.studies.screening.screening import Calibration, Screening, screen

__all__ = ["SCORES", "Anchors", "Calibration", "RowScorer", "Screening", "anchors_for", "screen"]

guard(globals(), __all__)
