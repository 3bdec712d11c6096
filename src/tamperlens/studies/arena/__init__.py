"""Defences judged under the worst attack that there is.

Contents: `settings` (the attacks, and those of one who knows the defence), `running` (`arena`, successive
halving), `judging` (scores and verdicts), `result` (the table and its figure), `sets`
(every defence of `finetune.defences` made for a model).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.arena.result import ArenaResult
from tamperlens.studies.arena.running import arena
from tamperlens.studies.arena.sets import every
from tamperlens.studies.arena.settings import Attacker, Setting, attacker, standard

__all__ = ["ArenaResult", "Attacker", "Setting", "arena", "attacker", "every", "standard"]

guard(globals(), __all__)
