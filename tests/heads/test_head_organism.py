"""On the organism: how far first-order estimates rank heads as exact effects do, stated as numbers."""

from __future__ import annotations

import pytest

import tamperlens
from tamperlens import heads, prompts, refusal


@pytest.mark.slow
def test_gradients_rank_heads_as_exact_effects_do() -> None:
    """Measured with these 58 pairs: .96 [.94, .99] at the corrupt point against patching, .98 [.94, .99]
    integrated, and .81 [.70, .94] for zero ablation, where the step is long and the log-odds saturate.
    """
    model = tamperlens.load("organism")
    tokens = refusal.find_refusal_tokens(
        model,
        list(prompts.packaged("harmful", split="train").prompts[:40]),
        list(prompts.packaged("harmless", split="train").prompts[:40]),
    )
    clean, corrupt = heads.align(
        model,
        prompts.packaged("harmful", split="test").head(60),
        prompts.packaged("harmless", split="test"),
    )
    assert len(clean) >= 50
    given = {"target": "refusal_tokens", "refusal_tokens": tokens}
    patch = heads.attribute(model, clean, corrupt=corrupt, method="patch", **given)
    zero = heads.attribute(model, clean, method="ablate", **given)
    for exact, least, settings in (
        (patch, 0.9, {"method": "gradient", "corrupt": corrupt, "at": "corrupt"}),
        (patch, 0.85, {"method": "integrated", "corrupt": corrupt}),
        (zero, 0.5, {"method": "gradient"}),
    ):
        found = heads.rank_agreement(exact, heads.attribute(model, clean, **given, **settings))
        print(settings["method"], settings.get("at", ""), found)
        assert found.value > least
        assert found.low < found.high <= 1
