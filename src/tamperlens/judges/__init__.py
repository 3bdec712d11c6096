"""What an answer is: refusal, partial refusal, compliance or degenerate, said by a judge.

Contents:
- `registry`: names to judges (`judges.get("acts")`, `register`, `names`); `lists` and `keyword`
  (published keyword lists), `weighted` and `cues`, `degenerate` (empty, repeating or broken text), `answers`
  (thoughts are taken off before a judge looks).
- `acts` (the default judge), `meaning` (the same with sentence embeddings: `acts+minilm`), `languages`
  (which language an answer is in), `multilingual` (its pattern sets).
- `calibrated` (the judge trained on people's verdicts; `evidence` is what it looks at), `logistic` (what the
  two judges with trained weights share), `labelled` (human-labelled answers), `cards` (`calibrate` →
  `JudgeCard`).
- `guards`, `guard_formats`: published guard and classifier models, asked as their authors do.
- `ensembles`, `embedding_judge`: judges made of judges, and of embeddings; `embedders`: texts to vectors.
"""

from tamperlens.base.boundary import guard
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.judges.acts import ActsExplanation, ActsJudge, ActsWeights
from tamperlens.judges.answers import UNFINISHED, ask, reads_answers
from tamperlens.judges.calibrated import CalibratedJudge, Explanation, JudgeWeights
from tamperlens.judges.cards import CardRow, JudgeCard, agreement, calibrate, card_of
from tamperlens.judges.degenerate import DegenerateRules, degenerate_reason
from tamperlens.judges.embedders import HiddenStateEmbedder, SentenceEmbedder, default_embedder, get_embedder
from tamperlens.judges.embedding_judge import EmbeddingJudge
from tamperlens.judges.ensembles import EnsembleJudge
from tamperlens.judges.guard_formats import GuardFormat
from tamperlens.judges.guards import GuardJudge
from tamperlens.judges.keyword import KeywordJudge
from tamperlens.judges.labelled import LabelledAnswers, read_labelled
from tamperlens.judges.lists import KeywordList
from tamperlens.judges.meaning import MeaningJudge, MeaningWeights
from tamperlens.judges.registry import DEFAULT, get, names, register
from tamperlens.judges.weighted import WeightedJudge

__all__ = [
    "DEFAULT",
    "UNFINISHED",
    "ActsExplanation",
    "ActsJudge",
    "ActsWeights",
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
    "MeaningJudge",
    "MeaningWeights",
    "SentenceEmbedder",
    "Verdict",
    "WeightedJudge",
    "agreement",
    "ask",
    "calibrate",
    "card_of",
    "default_embedder",
    "degenerate_reason",
    "get",
    "get_embedder",
    "names",
    "read_labelled",
    "reads_answers",
    "register",
]

guard(globals(), __all__)
