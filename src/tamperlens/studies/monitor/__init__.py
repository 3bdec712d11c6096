"""`Monitor`: a callback that watches any Trainer, stops it by a rule, and can go back.

Contents: `monitor`, `rules` (when to stop), `together` (several processes).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.monitor.monitor import Monitor
from tamperlens.studies.monitor.rules import Rule

__all__ = ["Monitor", "Rule"]

guard(globals(), __all__)
