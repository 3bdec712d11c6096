"""Remove sets of weights or ranks one by one, and see what breaks beside matched random sets.

Contents: `running` (`brittleness`), `removals` (what is removed, and its controls), `effects` (sets
beside controls), `choosing` (which of several sets, on prompts that did not choose it).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.brittleness.choosing import Choice
from tamperlens.studies.brittleness.running import Brittleness, brittleness

__all__ = ["Brittleness", "Choice", "brittleness"]

guard(globals(), __all__)
