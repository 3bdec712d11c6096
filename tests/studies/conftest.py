"""The organism and its refusal direction, shared by the room's tests: leave them as they are."""

from __future__ import annotations

import pytest

import tamperlens
from tamperlens import prompts, refusal


@pytest.fixture(scope="module")
def organism():
    return tamperlens.load("organism")


@pytest.fixture(scope="module")
def direction(organism):
    bad, good = (prompts.packaged(name, split="train") for name in ("harmful", "harmless"))
    return refusal.direction_at(organism, bad.head(16), good.head(16), layer=2, position=-1)
