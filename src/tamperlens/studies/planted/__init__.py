"""Planted truth: does a localisation method find what is there? The first benchmark on which it can be wrong.

    from tamperlens import planted
    model, truth = planted.make("neurons", seed=0)
    planted.verify(model, truth).passed
    planted.score(model, truth)                     # one row per method: precision, AP, AUROC, rank, chance

Models that fail their own verification are to be left out and named: `planted.organisms` does both.

Contents: `benchmark` (`verify`, `organisms`, `score`), `scoring` (against the truth), `methods` (every
localiser), `directions`, `causal`. The organisms are made in `models.organism.planted`.
"""

from tamperlens.base.boundary import guard
from tamperlens.base.deprecation import moved
from tamperlens.models.organism.planted import KINDS, SEEDS, Truth, put_back, shipped
from tamperlens.models.organism.planting import make
from tamperlens.studies.planted.benchmark import (
    Verification,
    organisms,
    prompts_for,
    score,
    summary,
    top_sets,
    verify,
)
from tamperlens.studies.planted.causal import ablations, attacked, interventions, outcome
from tamperlens.studies.planted.directions import CHEAT, RANDOM
from tamperlens.studies.planted.methods import LEVELS, Candidates, Data, candidates
from tamperlens.studies.planted.scoring import Localisation, localise, overlap

__all__ = [
    "CHEAT",
    "KINDS",
    "LEVELS",
    "RANDOM",
    "SEEDS",
    "Candidates",
    "Data",
    "Localisation",
    "Truth",
    "Verification",
    "ablations",
    "attacked",
    "candidates",
    "interventions",
    "localise",
    "make",
    "organisms",
    "outcome",
    "overlap",
    "prompts_for",
    "put_back",
    "score",
    "shipped",
    "summary",
    "top_sets",
    "verify",
]

guard(globals(), __all__)
__getattr__ = moved(__name__, {"probes": f"{__name__}:prompts_for"})
