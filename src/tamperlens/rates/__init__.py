"""Rates over prompts and models: who refuses what, with n and an interval.

Contents:
- `evaluation`: `evaluate`, `judge_answers`, `compare`; `completions`: answers with verdicts and decoding;
  `corrected`: `correct`, rates corrected for their judge.
- `samples` (any-of-n, mean-of-n), `variants` (system prompts, prefills; RRR, CE and over-refusal together).
- `representation`: RD, `representation_distance`; `shallowness`: `token_kl`, `prefill_depth`.
"""

from tamperlens.base.boundary import guard
from tamperlens.models import Decoding
from tamperlens.rates.completions import Completions
from tamperlens.rates.corrected import CorrectedRate, correct
from tamperlens.rates.evaluation import OutcomeRates, RefusalRates, compare, evaluate, judge_answers, rates_of
from tamperlens.rates.representation import RepresentationDistance, representation_distance
from tamperlens.rates.samples import SampledRates, evaluate_samples, paired_samples, samples_of
from tamperlens.rates.shallowness import PrefillDepth, TokenKL, prefill_depth, token_kl
from tamperlens.rates.variants import Robustness, VariantRates, evaluate_variants, robustness

__all__ = [
    "Completions",
    "CorrectedRate",
    "Decoding",
    "OutcomeRates",
    "PrefillDepth",
    "RefusalRates",
    "RepresentationDistance",
    "Robustness",
    "SampledRates",
    "TokenKL",
    "VariantRates",
    "compare",
    "correct",
    "evaluate",
    "evaluate_samples",
    "evaluate_variants",
    "judge_answers",
    "paired_samples",
    "prefill_depth",
    "rates_of",
    "representation_distance",
    "robustness",
    "samples_of",
    "token_kl",
]

guard(globals(), __all__)
