"""Which examples wore refusal away: estimated along one training, and tried by leaving them out.

Contents: `influence` (the estimate, its result, and the trial).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.influence.influence import Influence, LeftOut, influence

__all__ = ["Influence", "LeftOut", "influence"]

guard(globals(), __all__)
