"""The same numbers as TransformerLens's patching and attribution patching, on five families."""

from __future__ import annotations

import pytest
import torch
from head_examples import CLEAN, CORRUPT

from tamperlens import heads
from tamperlens.hooks import to_transformer_lens

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen2", "gemma2"]
TOKENS = (70, 90)


def last(logits: torch.Tensor) -> torch.Tensor:
    """Difference of two logits; [batch, vocab] of ours or [batch, pos, vocab] of TransformerLens."""
    final = logits if logits.ndim == 2 else logits[:, -1]
    return final[:, TOKENS[0]] - final[:, TOKENS[1]]


def mean_last(logits: torch.Tensor) -> torch.Tensor:
    return last(logits).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_agreement(chat, family: str) -> None:
    from transformer_lens import patching
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    model = chat(family)
    clean, corrupt = (torch.tensor(model.token_ids(texts)) for texts in (CLEAN, CORRUPT))
    bridge = to_transformer_lens(model)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        start = mean_last(bridge(corrupt))
        table = patching.get_act_patch_attn_head_out_all_pos(bridge, corrupt, cache, mean_last)
    ours = heads.attribute(model, CLEAN, corrupt=CORRUPT, method="patch", target=last)
    theirs = heads.HeadScores.from_values(
        model, table - start, method="patching", target="logit difference", convention="patched − corrupt"
    )
    assert (ours.scores - theirs.scores).abs().max() <= 1e-5
    assert ours.ranking() == theirs.ranking()
    found = attribution_patch(bridge, clean, corrupt, mean_last)
    sums = torch.zeros(model.n_layers, model.anatomy.n_heads)
    for node, score in found.node_scores.items():
        if node.kind == "attn_head_out":
            sums[node.layer, node.head] += score
    at_corrupt, at_clean = (
        heads.attribute(model, CLEAN, corrupt=CORRUPT, method="gradient", at=at, target=last).scores
        for at in ("corrupt", "clean")
    )
    assert (at_corrupt - sums).abs().max() <= 1e-5
    assert (at_clean - sums).abs().max() > 1e-2  # the point matters, and is named


def test_from_values_refuses_other_tables(chat) -> None:
    model = chat("llama")
    made = {"method": "m", "target": "t", "convention": "c"}
    with pytest.raises(ValueError, match=r"must be \[3, 6\]"):
        heads.HeadScores.from_values(model, torch.zeros(6, 3), **made)
    with pytest.raises(ArithmeticError, match="NaN"):
        heads.HeadScores.from_values(model, torch.full((3, 6), torch.nan), **made)
    per_prompt = heads.HeadScores.from_values(model, torch.ones(5, 3, 6), **made)
    assert per_prompt.n == 5
    assert per_prompt.estimate(0, 0).interval == (1, 1)
