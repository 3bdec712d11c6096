"""Capability: what a model can still do, graded by rules that say what they read.

Contents: `evaluation` (evaluate, compare), `suites` (packaged questions, or your own), `graders` (number,
exact, choice, fact, code), `text` (reading a claim out of free text), `code` (comparing functions),
`expressions`, `operations`, `functions` (the bounded evaluator: model code is never executed), `likelihood`
(perplexity), `sums` (arithmetic by operation and size), `harness` (tasks of the lm-evaluation-harness).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.capability.evaluation import (
    CapabilityChange,
    CapabilityScores,
    SuiteScore,
    compare,
    evaluate,
)
from tamperlens.capability.graders import Grade, Grader, Item, graders
from tamperlens.capability.harness import HarnessScores, harness
from tamperlens.capability.likelihood import Perplexity, perplexity
from tamperlens.capability.suites import (
    ENGLISH_SUITES,
    ORGANISM_SUITES,
    Suite,
    packaged_suites,
    suites_for,
)
from tamperlens.capability.sums import arithmetic

__all__ = [
    "ENGLISH_SUITES",
    "ORGANISM_SUITES",
    "CapabilityChange",
    "CapabilityScores",
    "Grade",
    "Grader",
    "HarnessScores",
    "Item",
    "Perplexity",
    "Suite",
    "SuiteScore",
    "arithmetic",
    "compare",
    "evaluate",
    "graders",
    "harness",
    "packaged_suites",
    "perplexity",
    "suites_for",
]

guard(globals(), __all__)
