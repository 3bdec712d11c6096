"""Two threads on one model: each gets what it gets alone."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tamperlens import hooks
from tamperlens_hooks.attention import attention_patterns
from tamperlens_hooks.state import evaluating, preserved_randomness
from tamperlens_hooks.weights import zeroed_entries

ROUNDS = 20
PROMPTS = ["say one", "say another thing", "a third", "and more words than that"]


@pytest.fixture(scope="module")
def works(chat) -> dict[str, Any]:
    """Name to a function that uses the model; what it returns does not depend on what was done before."""
    model = chat("llama")
    batch = model.encode(PROMPTS)
    axis = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    name = model.anatomy.projection("up", 1).parameter
    weight = model.module.get_parameter(name)
    flags = {name: torch.arange(weight.numel()).reshape(weight.shape) % 3 == 0}

    def means() -> torch.Tensor:
        with evaluating(model.module), hooks.capture(model, sites=["resid_pre"]) as tape:
            model.module(**batch, use_cache=False)
        return torch.as_tensor(tape["resid_pre"]).clone()

    def ablated() -> torch.Tensor:
        with hooks.ablate_direction(model, axis):
            return model.logits_last(PROMPTS)

    def zeroed() -> torch.Tensor:
        with zeroed_entries(model, flags):
            return model.logits_last(PROMPTS)

    def patterns() -> torch.Tensor:
        return attention_patterns(model, dict(batch))

    def numbers() -> torch.Tensor:
        with preserved_randomness():
            random.seed(3)
            torch.manual_seed(3)
            return torch.tensor([random.random() for _ in range(200)]) + torch.rand(200)

    return {
        "plain": lambda: model.logits_last(PROMPTS), "means": means, "ablated": ablated, "zeroed": zeroed,
        "patterns": patterns, "numbers": numbers,
    }  # fmt: skip


@pytest.mark.parametrize("pair", [("plain", "ablated"), ("plain", "zeroed"), ("means", "ablated"),
                                  ("means", "means"), ("patterns", "plain"), ("numbers", "numbers")],
                         ids="-".join)  # fmt: skip
def test_two_threads_twenty_times(works, pair):
    alone = {name: works[name]() for name in pair}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            futures = [(name, pool.submit(works[name])) for _ in range(ROUNDS) for name in pair]
            wrong = [name for name, future in futures if not torch.equal(future.result(), alone[name])]
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
