"""What a change that makes a model refuse more does to everything else, and at what price.

Contents: `running` (`spillover`), `tables` (two models), `seeds` (several trainings). What is asked and what
a model did on it: `studies.evaluation`.
"""

from tamperlens.base.boundary import guard
from tamperlens.base.deprecation import moved
from tamperlens.studies.spillover.running import SpilloverReport, prompts_for, spillover
from tamperlens.studies.spillover.seeds import over_seeds

__all__ = ["SpilloverReport", "over_seeds", "prompts_for", "spillover"]

_BENCH = "tamperlens.studies.evaluation"
__getattr__ = moved(
    __name__,
    {
        "Probes": f"{_BENCH}:EvalPrompts",
        "Side": f"{_BENCH}:Outcomes",
        "measure_side": f"{_BENCH}:measure",
        "probes_for": f"{__name__}:prompts_for",
    },
)

guard(globals(), __all__)
