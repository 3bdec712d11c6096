"""Floor 3, refusal: who refuses what, and the direction that refusal goes by.

Contents:
- `judges`: names to judges (`judges.get("weighted")`); `lists` (published keyword lists), `weighted` and
`cues`
  (the default judge), `degenerate` (empty, repeating or broken text).
- `calibrated` (the judge trained on people's verdicts; `train_judge` is its recipe, `evidence` and `anchors`
  what it looks at), `labelled` (human-labelled answers), `cards` (`calibrate` → `JudgeCard`, `correct`).
- `guards`, `guard_formats`: published guard and classifier models, asked as their authors do.
- `ensembles`, `embedding_judge`: judges made of judges, and of embeddings; `embedders`: texts to vectors;
  `representation`: RD, `representation_distance`.
- `rates`: `evaluate`, `judge_answers`, `compare`; `completions`: answers with verdicts and decoding;
  `samples` (any-of-n, mean-of-n), `variants` (system prompts, prefills; RRR, CE and over-refusal together).
- `directions`: `find_direction`, `direction_at`, `direction_like`; `candidates` (splits, means, causal
scores),
  `selection` (the published rule as a pure function), `metric` (refusal metric, KL), `tokens` (refusal tokens
  found from the model).
- `causal`: `causal_check` on generated text; `distances`: `distance`; `nulls`: `split_half_null`,
  `bootstrap_null`, `activations`; `geometry`: angles, CKA, AUROC as pure functions; `cache`: activations
  on disk; `separation`: AUROC, d′, TPR of projections.
- `harmfulness` (beside refusal), `concepts` (any other, from contrastive pairs), `subspaces` and `cones`
  (several directions), `validation` (each put to the causal test).
- `checkpoints`: `compare_checkpoints`, every distance beside its null; `transfer`: `causal_transfer`;
  `recording`: `DirectionRecorder`; `shallowness`: `token_kl`, `prefill_depth`.
"""

from tamperlens.base.protocols import Verdict
from tamperlens.models import Decoding
from tamperlens.refusal import judges
from tamperlens.refusal.cache import ActivationCache
from tamperlens.refusal.calibrated import CalibratedJudge, Explanation, JudgeWeights
from tamperlens.refusal.candidates import Split, split_prompts, split_sizes
from tamperlens.refusal.cards import CardRow, CorrectedRate, JudgeCard, calibrate, card_of, correct
from tamperlens.refusal.causal import CausalCheck, causal_check, random_directions
from tamperlens.refusal.checkpoints import CheckpointDistance, compare_checkpoints
from tamperlens.refusal.completions import Completions
from tamperlens.refusal.concepts import Concept, find_concept_direction, read_concept
from tamperlens.refusal.cones import optimise_subspace
from tamperlens.refusal.degenerate import DegenerateRules, degenerate_reason
from tamperlens.refusal.directions import (
    Direction,
    direction_at,
    direction_like,
    find_direction,
    split_of,
)
from tamperlens.refusal.distances import Distance, distance
from tamperlens.refusal.embedders import HiddenStateEmbedder, SentenceEmbedder, get_embedder
from tamperlens.refusal.embedding_judge import EmbeddingJudge
from tamperlens.refusal.ensembles import EnsembleJudge
from tamperlens.refusal.guard_formats import GuardFormat
from tamperlens.refusal.guards import GuardJudge
from tamperlens.refusal.harmfulness import (
    HarmfulnessAndRefusal,
    find_harmfulness_direction,
    harmfulness_and_refusal,
    instruction_position,
)
from tamperlens.refusal.keyword import KeywordJudge
from tamperlens.refusal.labelled import LabelledAnswers, read_labelled
from tamperlens.refusal.lists import KeywordList
from tamperlens.refusal.metric import kl_divergence, refusal_metric
from tamperlens.refusal.nulls import (
    DirectionNull,
    SplitHalfNull,
    activations,
    activations_at,
    bootstrap_null,
    split_half_null,
)
from tamperlens.refusal.rates import OutcomeRates, RefusalRates, compare, evaluate, judge_answers, rates_of
from tamperlens.refusal.recording import DirectionRecorder, DirectionTrace
from tamperlens.refusal.representation import RepresentationDistance, representation_distance
from tamperlens.refusal.samples import SampledRates, evaluate_samples, paired_samples, samples_of
from tamperlens.refusal.selection import Selection, SelectionRule, select_direction
from tamperlens.refusal.separation import Separation, separation
from tamperlens.refusal.shallowness import PrefillDepth, TokenKL, prefill_depth, token_kl
from tamperlens.refusal.subspaces import Subspace, contrast_subspace, nullspace_subspace, shift_subspace
from tamperlens.refusal.tokens import RefusalTokens, contrast_tokens, find_refusal_tokens
from tamperlens.refusal.transfer import TransferCheck, causal_transfer
from tamperlens.refusal.validation import SubspaceCheck, validate_subspace
from tamperlens.refusal.variants import Robustness, VariantRates, evaluate_variants, robustness
from tamperlens.refusal.weighted import WeightedJudge

__all__ = [
    "ActivationCache",
    "CalibratedJudge",
    "CardRow",
    "CausalCheck",
    "CheckpointDistance",
    "Completions",
    "Concept",
    "CorrectedRate",
    "Decoding",
    "DegenerateRules",
    "Direction",
    "DirectionNull",
    "DirectionRecorder",
    "DirectionTrace",
    "Distance",
    "EmbeddingJudge",
    "EnsembleJudge",
    "Explanation",
    "GuardFormat",
    "GuardJudge",
    "HarmfulnessAndRefusal",
    "HiddenStateEmbedder",
    "JudgeCard",
    "JudgeWeights",
    "KeywordJudge",
    "KeywordList",
    "LabelledAnswers",
    "OutcomeRates",
    "PrefillDepth",
    "RefusalRates",
    "RefusalTokens",
    "RepresentationDistance",
    "Robustness",
    "SampledRates",
    "Selection",
    "SelectionRule",
    "SentenceEmbedder",
    "Separation",
    "Split",
    "SplitHalfNull",
    "Subspace",
    "SubspaceCheck",
    "TokenKL",
    "TransferCheck",
    "VariantRates",
    "Verdict",
    "WeightedJudge",
    "activations",
    "activations_at",
    "bootstrap_null",
    "calibrate",
    "card_of",
    "causal_check",
    "causal_transfer",
    "compare",
    "compare_checkpoints",
    "contrast_subspace",
    "contrast_tokens",
    "correct",
    "degenerate_reason",
    "direction_at",
    "direction_like",
    "distance",
    "evaluate",
    "evaluate_samples",
    "evaluate_variants",
    "find_concept_direction",
    "find_direction",
    "find_harmfulness_direction",
    "find_refusal_tokens",
    "get_embedder",
    "harmfulness_and_refusal",
    "instruction_position",
    "judge_answers",
    "judges",
    "kl_divergence",
    "nullspace_subspace",
    "optimise_subspace",
    "paired_samples",
    "prefill_depth",
    "random_directions",
    "rates_of",
    "read_concept",
    "read_labelled",
    "refusal_metric",
    "representation_distance",
    "robustness",
    "samples_of",
    "select_direction",
    "separation",
    "shift_subspace",
    "split_half_null",
    "split_of",
    "split_prompts",
    "split_sizes",
    "token_kl",
    "validate_subspace",
]
