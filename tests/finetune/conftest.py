"""Tiny chat models and a toy data set, shared by the fine-tuning tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


@pytest.fixture(scope="session")
def chat(tiny: Callable[..., Any]) -> Callable[..., ChatModel]:
    """`chat(family, **what tiny takes)` -> ChatModel; made once per family and settings."""
    made: dict[str, ChatModel] = {}

    def make(family: str, **settings: Any) -> ChatModel:
        key = f"{family} {sorted(settings.items())}"
        if key not in made:
            module, tokenizer = tiny(family, **settings)
            made[key] = ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)
        return made[key]

    return make


@pytest.fixture(scope="session")
def toy() -> PromptSet:
    return PromptSet.from_pairs([(f"Say {word}.", f"{word} it is!") for word in WORDS], name="toy")
