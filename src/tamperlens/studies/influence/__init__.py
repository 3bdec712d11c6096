"""Which examples wore refusal away: estimated along one training, and tried by leaving them out.

Contents: `rows` (the estimate, its result, and the trial).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.influence.rows import Influence, LeftOut, influence

__all__ = ["Influence", "LeftOut", "influence"]

guard(globals(), __all__)
