"""TransformerLens's own results, on the bridge of the same weights, as HeadScores: equal to ours."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from head_examples import CLEAN, CORRUPT

from tamperlens import heads
from tamperlens.base.errors import InputError
from tamperlens.heads import HeadScores
from tamperlens.hooks import to_transformer_lens

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "phi3")


def last(logits):
    return logits[:, 70] - logits[:, 90]


def whole(logits):
    return logits[0, -1, 70] - logits[0, -1, 90]


def ids(model, prompts):
    return torch.tensor(model.token_ids(prompts))


@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_patch_drops_in(family, chat):
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    model = chat(family)
    bridge = to_transformer_lens(model)
    result = attribution_patch(bridge, ids(model, CLEAN), ids(model, CORRUPT), whole)
    theirs = HeadScores.from_transformer_lens(model, result, target="logit 70 − logit 90")
    mine = heads.attribute(model, CLEAN, corrupt=CORRUPT, target=last, method="gradient", at="corrupt")
    assert torch.allclose(theirs.scores, mine.scores, atol=1e-5)
    assert "corrupt run" in theirs.convention and theirs.fingerprint == model.fingerprint
    other = heads.attribute(model, CLEAN, corrupt=CORRUPT, target=last, method="gradient", at="clean")
    assert not torch.allclose(theirs.scores, other.scores, atol=1e-2)  # the other end of the path


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_drops_in(family, chat):
    from transformer_lens import patching

    model = chat(family)
    bridge = to_transformer_lens(model)
    clean, corrupt = ids(model, CLEAN[:1]), ids(model, CORRUPT[:1])
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        start = float(whole(bridge(corrupt)))
        table = patching.get_act_patch_attn_head_out_all_pos(bridge, corrupt, cache, whole)
    make = partial(HeadScores.from_transformer_lens, model, table, target="logit 70 − logit 90")
    mine = heads.attribute(model, CLEAN[:1], corrupt=CORRUPT[:1], target=last, method="patch")
    assert torch.allclose(make(baseline=start).scores, mine.scores, atol=1e-5)
    assert not torch.allclose(make().scores, mine.scores, atol=1e-2)  # a table of metrics is no effect
    assert heads.rank_agreement(make(baseline=start), mine).value > 0.99


def test_direct_logit_attribution_drops_in(chat):
    from transformer_lens.tools.analysis.direct_logit_attribution import direct_logit_attribution

    model = chat("llama")
    bridge = to_transformer_lens(model)
    bridge.enable_compatibility_mode()  # folds norms into the bridge's own weights
    ask = partial(direct_logit_attribution, bridge, ids(model, CLEAN[:1]), answer_tokens=torch.tensor([70]))
    found = HeadScores.from_transformer_lens(model, ask(unit="head"), target="logit 70")
    assert found.scores.abs().max() > 0 and found.method.startswith("direct")
    with pytest.raises(InputError, match='unit="head"'):
        HeadScores.from_transformer_lens(model, ask(unit="component"), target="logit 70")


def test_tables_by_position_are_refused(chat):
    with pytest.raises(InputError, match="_all_pos"):
        HeadScores.from_transformer_lens(chat("llama"), torch.zeros(3, 9, 6), target="x")
