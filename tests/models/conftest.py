"""ChatModels of tiny random models, and the literal definition of greedy generation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tamperlens.models import ChatModel


@pytest.fixture(scope="session")
def chat(tiny: Callable[..., Any]) -> Callable[..., ChatModel]:
    """`chat(family, **what tiny takes)` -> ChatModel; without settings it is shared, so leave it as it is."""
    made: dict[str, ChatModel] = {}

    def make(family: str, **settings: Any) -> ChatModel:
        if settings:
            return ChatModel.from_parts(*tiny(family, **settings), name=family)
        if family not in made:
            made[family] = ChatModel.from_parts(*tiny(family), name=family)
        return dataclasses.replace(made[family])

    return make


@torch.no_grad()
def continue_literally(module: Any, ids: list[int], most: int, stops: frozenset[int]) -> list[int]:
    """No cache, no padding, no batch: one whole forward pass a token, the largest logit wins."""
    new: list[int] = []
    while len(new) < most:
        logits = module(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token in stops:
            break
        new.append(token)
    return new


@pytest.fixture(scope="session")
def literally() -> Callable[..., list[int]]:
    return continue_literally
