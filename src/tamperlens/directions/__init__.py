"""The direction that refusal goes by, other directions and subspaces, and what they are worth.

Contents:
- `direction`: `Direction`; `finding`: `find_direction`, `direction_at`, `direction_like`; `candidates`
  (splits, means), `screening` (first-order estimates of all candidates), `shortlist` (successive
  elimination), `scoring` (causal scores and their table), `selection` (the published rule as a pure
  function), `doubts` (reasons not to call it refusal), `tokens` (refusal tokens found from the model).
- `causal`: `causal_check` on generated text; `dose`: `dose_curve`, addition by scale; `distances`:
  `distance` (`compare`); `nulls`: `split_half_null`, `bootstrap_null`, `activations`; `geometry`: angles,
  CKA, AUROC as pure functions; `cache`: activations on disk; `separation`: AUROC, d′, TPR of projections.
- `harmfulness` (beside refusal), `concepts` (any other, from contrastive pairs), `subspaces` and `cones`
  (several directions), `validation` (each put to the causal test).
- `checkpoints`: `compare_checkpoints`, every distance beside its null; `transfer`: `causal_transfer`;
  `recording`: `DirectionRecorder`; `features`: `explain_by_features` (sparse autoencoders).
"""

from tamperlens.base.boundary import guard
from tamperlens.base.logits import kl_divergence, refusal_metric
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import Split, split_prompts, split_sizes
from tamperlens.directions.causal import CausalCheck, causal_check, random_directions
from tamperlens.directions.checkpoints import CheckpointDistance, compare_checkpoints
from tamperlens.directions.concepts import Concept, find_concept_direction, read_concept
from tamperlens.directions.cones import optimise_subspace
from tamperlens.directions.direction import Direction
from tamperlens.directions.distances import Distance, compare, distance
from tamperlens.directions.dose import DoseCurve, dose_curve
from tamperlens.directions.features import FeatureExplanation, explain_by_features
from tamperlens.directions.finding import direction_at, direction_like, find_direction, split_of
from tamperlens.directions.harmfulness import (
    HarmfulnessAndRefusal,
    find_harmfulness_direction,
    harmfulness_and_refusal,
    instruction_position,
)
from tamperlens.directions.nulls import (
    DirectionNull,
    SplitHalfNull,
    activations,
    activations_at,
    bootstrap_null,
    split_half_null,
)
from tamperlens.directions.recording import DirectionRecorder, DirectionTrace
from tamperlens.directions.selection import Selection, SelectionRule, select_direction
from tamperlens.directions.separation import Separation, separation
from tamperlens.directions.subspaces import Subspace, contrast_subspace, nullspace_subspace, shift_subspace
from tamperlens.directions.tokens import RefusalTokens, contrast_tokens, find_refusal_tokens
from tamperlens.directions.transfer import TransferCheck, causal_transfer
from tamperlens.directions.validation import SubspaceCheck, validate_subspace

__all__ = [
    "ActivationCache",
    "CausalCheck",
    "CheckpointDistance",
    "Concept",
    "Direction",
    "DirectionNull",
    "DirectionRecorder",
    "DirectionTrace",
    "Distance",
    "DoseCurve",
    "FeatureExplanation",
    "HarmfulnessAndRefusal",
    "RefusalTokens",
    "Selection",
    "SelectionRule",
    "Separation",
    "Split",
    "SplitHalfNull",
    "Subspace",
    "SubspaceCheck",
    "TransferCheck",
    "activations",
    "activations_at",
    "bootstrap_null",
    "causal_check",
    "causal_transfer",
    "compare",
    "compare_checkpoints",
    "contrast_subspace",
    "contrast_tokens",
    "direction_at",
    "direction_like",
    "distance",
    "dose_curve",
    "explain_by_features",
    "find_concept_direction",
    "find_direction",
    "find_harmfulness_direction",
    "find_refusal_tokens",
    "harmfulness_and_refusal",
    "instruction_position",
    "kl_divergence",
    "nullspace_subspace",
    "optimise_subspace",
    "random_directions",
    "read_concept",
    "refusal_metric",
    "select_direction",
    "separation",
    "shift_subspace",
    "split_half_null",
    "split_of",
    "split_prompts",
    "split_sizes",
    "validate_subspace",
]

guard(globals(), __all__)
