"""Chat models and a direction, shared by the room's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tamperlens.models import ChatModel


@pytest.fixture(scope="session")
def direction() -> Callable[[ChatModel], torch.Tensor]:
    """A fixed vector for a model."""
    return lambda model: torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
