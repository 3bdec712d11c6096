"""Chat models and a direction, shared by the room's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tamperlens.models import ChatModel


@pytest.fixture(scope="session")
def chat(tiny: Any) -> Callable[..., ChatModel]:
    """`chat(family, **settings)` -> ChatModel around `tiny`; made once, leave them whole."""
    made: dict[str, ChatModel] = {}

    def make(family: str, **settings: Any) -> ChatModel:
        key = f"{family} {sorted(settings.items())}"
        if key not in made:
            module, tokenizer = tiny(family, **settings)
            made[key] = ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)
        return made[key]

    return make


@pytest.fixture(scope="session")
def direction() -> Callable[[ChatModel], torch.Tensor]:
    """A fixed vector for a model."""
    return lambda model: torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
