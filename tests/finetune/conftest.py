"""Tiny chat models and a toy data set, shared by the fine-tuning tests."""

from __future__ import annotations

import pytest

from tamperlens.prompts import PromptSet

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


@pytest.fixture(scope="session")
def toy() -> PromptSet:
    return PromptSet.from_pairs([(f"Say {word}.", f"{word} it is!") for word in WORDS], name="toy")
