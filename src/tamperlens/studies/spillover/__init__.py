"""What a change that makes a model refuse more does to everything else, and at what price.

Contents: `running` (`spillover`), `probes` (what is asked, one model measured), `tables` (two models),
`seeds` (several trainings).
"""

from tamperlens.studies.spillover.probes import Probes, Side, measure_side, probes_for
from tamperlens.studies.spillover.running import SpilloverReport, spillover
from tamperlens.studies.spillover.seeds import over_seeds

__all__ = ["Probes", "Side", "SpilloverReport", "measure_side", "over_seeds", "probes_for", "spillover"]
