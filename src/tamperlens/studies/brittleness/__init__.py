"""Remove sets of weights or ranks one by one, and see what breaks beside matched random sets.

Contents: `running` (`brittleness`), `removals` (what is removed, and its controls), `effects` (sets
beside controls).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.brittleness.running import Brittleness, brittleness

__all__ = ["Brittleness", "brittleness"]

guard(globals(), __all__)
