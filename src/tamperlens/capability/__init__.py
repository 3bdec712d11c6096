"""Capability: what a model can still do, graded by rules that say what they read.

Contents: `evaluation` (evaluate, compare), `suites` (packaged questions, or your own), `graders` (number,
exact, choice, fact, code), `text` (reading a claim out of free text), `code` (comparing functions),
`expressions`, `operations`, `functions` (the bounded evaluator: model code is never executed), `likelihood`
(perplexity).
"""

from __future__ import annotations

from tamperlens.capability.evaluation import (
    CapabilityChange,
    CapabilityScores,
    SuiteScore,
    compare,
    evaluate,
)
from tamperlens.capability.graders import Grade, Grader, Item, graders
from tamperlens.capability.likelihood import Perplexity, perplexity
from tamperlens.capability.suites import (
    ENGLISH_SUITES,
    ORGANISM_SUITES,
    Suite,
    packaged_suites,
    suites_for,
)

__all__ = [
    "ENGLISH_SUITES",
    "ORGANISM_SUITES",
    "CapabilityChange",
    "CapabilityScores",
    "Grade",
    "Grader",
    "Item",
    "Perplexity",
    "Suite",
    "SuiteScore",
    "compare",
    "evaluate",
    "graders",
    "packaged_suites",
    "perplexity",
    "suites_for",
]
