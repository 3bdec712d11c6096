"""One door to `judges`, `rates` and `directions`, for scripts: `refusal.evaluate`,
`refusal.find_direction`, …

`refusal.judges.get("calibrated")` gives a judge. Look each name up in its own subpackage.
"""

from tamperlens.rates import compare  # that of directions is `distance` here

# isort: split
from tamperlens import directions, judges, rates
from tamperlens.directions import *  # type: ignore[assignment]  # noqa: F403
from tamperlens.judges import (
    CalibratedJudge,
    CardRow,
    DegenerateRules,
    EmbeddingJudge,
    EnsembleJudge,
    Explanation,
    GuardFormat,
    GuardJudge,
    HiddenStateEmbedder,
    Judge,
    JudgeCard,
    JudgeWeights,
    KeywordJudge,
    KeywordList,
    LabelledAnswers,
    SentenceEmbedder,
    Verdict,
    WeightedJudge,
    calibrate,
    card_of,
    default_embedder,
    degenerate_reason,
    get_embedder,
    read_labelled,
)
from tamperlens.rates import *  # noqa: F403

__all__ = [
    "CalibratedJudge",
    "CardRow",
    "DegenerateRules",
    "EmbeddingJudge",
    "EnsembleJudge",
    "Explanation",
    "GuardFormat",
    "GuardJudge",
    "HiddenStateEmbedder",
    "Judge",
    "JudgeCard",
    "JudgeWeights",
    "KeywordJudge",
    "KeywordList",
    "LabelledAnswers",
    "SentenceEmbedder",
    "Verdict",
    "WeightedJudge",
    "calibrate",
    "card_of",
    "compare",
    "default_embedder",
    "degenerate_reason",
    "get_embedder",
    "judges",
    "read_labelled",
]
__all__ += [name for name in (*rates.__all__, *directions.__all__) if name != "compare"]


def __dir__() -> list[str]:
    return sorted(__all__)
