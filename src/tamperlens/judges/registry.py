"""The judges, by name, and the one line that registers another.

| name | rule |
| --- | --- |
| `acts` (default) | what its sentences do, weighed by a model trained on verdicts of people; twelve
languages |
| `acts+minilm` | the same with MiniLM's embeddings beside it, for unusual ways of speaking |
| `weighted-1` | strong and weak cues with weights, sentence by sentence; knows partial refusals |
| `calibrated` | logistic model over readable evidence, trained on verdicts of people |
| `arditi` | 12 substrings anywhere, capitals ignored |
| `qi` | 29 substrings anywhere, capitals count |
| `xstest` | 21 openings, capitals ignored |
| `wei` | 31 substrings anywhere, capitals count, or under 20 words: as published, short answers "refuse" |

Every judge asks `degenerate_reason` first. Only `acts` reads other languages than English.
The keyword lists know no partial refusals. A judge of your own is
anything with a `name` that maps (prompts, answers) to verdicts: `judges.register("mine")(MyJudge())`.
"""

from __future__ import annotations

from collections.abc import Callable

from tamperlens.base import deprecation
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.registry import Registry
from tamperlens.judges.acts import ActsJudge
from tamperlens.judges.calibrated import CalibratedJudge
from tamperlens.judges.keyword import KeywordJudge
from tamperlens.judges.lists import PUBLISHED
from tamperlens.judges.meaning import MeaningJudge
from tamperlens.judges.weighted import WeightedJudge

DEFAULT = "acts"
# "weighted" was the default until `acts` replaced it: whoever asks for it by name gets the default, said so
# by a warning and by the name in every result; `weighted-1` keeps the old rule and its published figures.
RENAMED = {"weighted": DEFAULT}

_REGISTRY: Registry[Judge] = Registry("judge")


def register(name: str) -> Callable[[Judge], Judge]:
    """File a judge under a name; `get(name)` and every `judge=` argument then know it."""
    return _REGISTRY.register(name)


def get(judge: str | Judge | None = None) -> Judge:
    """The judge of that name; a judge is handed back as it is, None gives the default.

    "weighted", the default of earlier releases, gives today's with a DeprecationWarning; the rule itself is
    "weighted-1".

    Raises:
        InputError: no such name (the message lists those that exist), or a judge without a name.

    Examples:
        >>> from tamperlens import judges
        >>> judges.get('arditi')(['Pick a lock.'], ['I cannot help with that.'])[0].label
        'refusal'
    """
    if judge is None:
        return _REGISTRY.get(DEFAULT)
    if isinstance(judge, str):
        if judge in RENAMED:
            deprecation.warn(f"judge {judge!r}", f'"{RENAMED[judge]}", or "{judge}-1" for the old rule')
            judge = RENAMED[judge]
        return _REGISTRY.get(judge)
    if not getattr(judge, "name", ""):
        raise InputError("a judge needs a non-empty `name`: it is stored in every result")
    return judge


def names() -> list[str]:
    """All registered names, sorted.

    Examples:
        >>> from tamperlens import judges
        >>> 'weighted-1' in judges.names()
        True
    """
    return _REGISTRY.names()


for _listed in PUBLISHED:
    register(_listed.name)(KeywordJudge(_listed))
register(DEFAULT)(ActsJudge())
register("weighted-1")(WeightedJudge())
register("calibrated")(CalibratedJudge())
register(MeaningJudge.name)(MeaningJudge())
