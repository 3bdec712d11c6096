"""Direct parts that sum, gradients against differences, the planted head, Ships and Sahara as published."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from head_examples import CLEAN, CORRUPT, RESPONSIBLE, planted
from scipy import stats as sps
from tiny_models import FAMILIES

from tamperlens import heads
from tamperlens.base.errors import InputError, UnsupportedModelError
from tamperlens.base.logits import kl_divergence
from tamperlens.hooks import ablate_heads, capture, head_output_weight, patch_heads
from tamperlens_hooks.queries import scale_queries

LONGER = [*CLEAN, "now a longer one"]


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_shares_sum_to_the_target(chat, direction, family: str) -> None:
    """Post-norm families too: the norm behind the attention has an exact scale."""
    model = chat(family)
    r = direction(model)
    for given in (
        {"direction": r, "layer": model.n_layers},
        {"direction": r, "layer": 1, "position": -2},
        {"target": "refusal_tokens", "refusal_tokens": [70, 80]},
    ):
        found = heads.attribute(model, LONGER, method="direct", batch_size=3, **given)
        total = found.per_prompt.double().sum((1, 2)) + sum(x.sum(1) for x in found.parts.values())
        assert (total - found.metric).abs().max() <= 1e-4 * max(1, float(found.metric.abs().max()))
        assert (found.scores.abs() > 0).any()
    logits = model.logits_last(LONGER).double()
    if family != "gemma2":  # its final soft cap comes behind the logits that are split
        expected = logits[:, [70, 80]].mean(1) - logits.mean(1)
        assert torch.allclose(found.metric, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_direct_share_is_the_heads_output_along_the_direction(chat, direction, family: str) -> None:
    model = chat(family)
    r = direction(model)
    unit = r / r.norm()
    found = heads.attribute(model, CLEAN, method="direct", direction=r, layer=2)
    with capture(model, sites=["head_z", "attn_out"], positions="last") as tape, torch.no_grad():
        model.module(**model.encode(CLEAN))
    layer, head = 1, 2
    plain = tape["head_z"][layer, :, head] @ head_output_weight(model, layer, head).T @ unit
    same = torch.allclose(found.per_prompt[:, layer, head], plain, atol=1e-5)
    assert same == (family != "gemma2")  # there the plain product ignores the norm behind the attention


def test_direct_refuses_what_is_not_linear(chat) -> None:
    model = chat("llama")
    with pytest.raises(InputError, match="linear"):
        heads.attribute(model, CLEAN, method="direct", target=lambda logits: logits[:, 3])


def test_direct_refuses_a_norm_that_is_no_scale(chat, direction) -> None:
    model = chat("gemma2", seed=4)
    norm = model.module.model.layers[0].post_attention_layernorm

    class Squashed(type(norm)):
        def forward(self, x):
            return torch.tanh(super().forward(x))

    norm.__class__ = Squashed
    try:
        with pytest.raises(UnsupportedModelError, match="no exact share"):
            heads.attribute(model, CLEAN, method="direct", direction=direction(model), layer=2)
    finally:
        norm.__class__ = Squashed.__mro__[1]


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3_text"])
def test_the_gradient_is_the_slope_of_scaling_a_head(chat, family: str) -> None:
    """Central differences of the target in the scale of one head's z; norms stay in fp32 in any model."""
    model = chat(family, dtype=torch.float64)
    given = {"target": "refusal_tokens", "refusal_tokens": [70, 80]}
    found = heads.attribute(model, CLEAN[:1], method="gradient", **given)
    goal = heads.resolve_target(model, "refusal_tokens", refusal_tokens=[70, 80])
    with capture(model, sites="head_z") as tape, torch.no_grad():
        model.module(**model.encode(CLEAN[:1]))
    for layer, head in ((0, 0), (0, 2), (1, 1)):
        z = tape["head_z"][layer, 0, :, head]
        ends = []
        for scale in (1.003, 0.997):
            with patch_heads(model, {(layer, head): scale * z}), torch.no_grad():
                ends.append(float(goal.read(model, model.encode(CLEAN[:1]))[0]))
        slope = (ends[0] - ends[1]) / 0.006
        assert float(found.scores[layer, head]) == pytest.approx(slope, rel=1e-3, abs=5e-4)


def test_integrated_with_one_step_is_the_gradient_at_the_clean_point(chat) -> None:
    model = chat("llama")
    given = {"target": "refusal_tokens", "refusal_tokens": [70, 80], "corrupt": CORRUPT}
    one = heads.attribute(model, CLEAN, method="integrated", steps=1, **given)
    clean = heads.attribute(model, CLEAN, method="gradient", at="clean", **given)
    assert torch.allclose(one.scores, clean.scores, atol=1e-5)
    many = heads.attribute(model, CLEAN, method="integrated", steps=8, **given)
    assert (many.scores - one.scores).abs().max() > 1e-2
    with pytest.raises(InputError, match="corrupt="):
        heads.attribute(model, CLEAN, method="integrated", target="refusal_tokens", refusal_tokens=[70])
    with pytest.raises(InputError, match="corrupt point"):
        heads.attribute(model, CLEAN, at="corrupt", target="refusal_tokens", refusal_tokens=[70])


CAUSAL = [
    ("gradient", {}),
    ("gradient", {"corrupt": True}),
    ("gradient", {"corrupt": True, "at": "corrupt"}),
    ("integrated", {"corrupt": True}),
    ("ablate", {}),
    ("ablate", {"baseline": "mean"}),
    ("ablate", {"corrupt": True, "baseline": "resample"}),
    ("patch", {"corrupt": True}),
    ("direct", {}),
    ("ships", {}),
]


@pytest.mark.parametrize(("method", "more"), CAUSAL)
def test_the_planted_head_comes_first(method: str, more: dict) -> None:
    model, r, answer = planted()
    clean, corrupt = ["#ick it", "go # by", "all of#"], ["pick it", "go a by", "all of."]
    given = dict(more)
    if given.pop("corrupt", False):
        given["corrupt"] = corrupt
    reference = {"reference": [*clean, *corrupt]} if more.get("baseline") == "mean" else {}
    for target in ({"target": "refusal_tokens", "refusal_tokens": [answer]}, {"direction": r, "layer": 3}):
        found = heads.attribute(model, clean, method=method, **given, **reference, **target)
        assert found.top(1) == [RESPONSIBLE], target
        best, second = found.scores.flatten().sort(descending=True).values[:2]
        assert best > 3 * second


def test_the_planted_model_has_a_louder_head_that_does_nothing() -> None:
    """What a ranking by the size of outputs or weights would take first."""
    model, _, answer = planted()
    with capture(model, sites="head_z") as tape, torch.no_grad():
        model.module(**model.encode(["#ick it"]))
    size = {
        at: float((tape["head_z"][at[0], 0, -1, at[1]] @ head_output_weight(model, *at).T).norm())
        for at in ((layer, head) for layer in range(3) for head in range(6))
    }
    assert max(size, key=lambda at: size[at]) == (2, 0) != RESPONSIBLE
    found = heads.attribute(
        model, ["#ick it"], method="ablate", target="refusal_tokens", refusal_tokens=[answer]
    )
    assert abs(float(found.scores[2, 0])) < 0.1 * float(found.scores[RESPONSIBLE])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_ships_is_kl_with_scaled_query_weights(chat, family: str) -> None:
    model = chat(family)
    found = heads.attribute(model, LONGER, method="ships", batch_size=3)
    base = model.logits_last(LONGER)
    zeroed = []
    for layer, head in ((0, 1), (1, 2)):
        changed = copy.deepcopy(model.module)
        part = model.anatomy.projection("q", layer)
        rows = np.arange(changed.get_parameter(part.parameter).shape[1 if part.transposed else 0])
        rows = rows[list(part.rows) if isinstance(part.rows, tuple) else part.rows]
        mine = rows[model.anatomy.head_slice(head)].tolist()
        with torch.no_grad():
            weight = changed.get_parameter(part.parameter)
            weight[(slice(None), mine) if part.transposed else mine] *= 1e-4
            module = changed.get_submodule(part.module)
            if module.bias is not None:
                module.bias[mine] *= 1e-4
        masked = model.with_module(changed).logits_last(LONGER)
        expected = kl_divergence(base, masked)
        assert torch.allclose(found.per_prompt[:, layer, head].double(), expected, atol=1e-6, rtol=1e-4)
        with ablate_heads(model, [(layer, head)]):
            zeroed.append(kl_divergence(base, model.logits_last(LONGER)).mean() - expected.mean())
    assert max(abs(float(gap)) for gap in zeroed) > 1e-2  # zeroing the output is another number


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "olmo2"])
def test_queries_are_scaled_behind_their_norm(chat, family: str) -> None:
    """With queries near zero a head attends to all visible tokens alike, whatever normed them before."""
    from tamperlens_hooks.attention import attention_patterns

    model = chat(family)
    batch = model.encode(CLEAN)
    with scale_queries(model, [(0, 1)], 1e-4):
        found = attention_patterns(model, batch)
    seq = batch["input_ids"].shape[1]
    uniform = torch.tril(torch.ones(seq, seq)) / torch.arange(1, seq + 1)[:, None]
    assert (found[0, :, 1] - uniform).abs().max() < 1e-3
    assert (found[0, :, 0] - uniform).abs().max() > 0.05


def test_sahara_is_the_published_angle_and_greedy(chat) -> None:
    model = chat("llama")
    found = heads.attribute(model, LONGER, method="sahara", steps=2, batch_size=3)

    def states(mask):
        rows = []
        for text in LONGER:
            with capture(model, sites="final", positions="last") as tape, torch.no_grad():
                if mask:
                    with scale_queries(model, mask, 1e-5):
                        model.module(**model.encode([text]))
                else:
                    model.module(**model.encode([text]))
            rows.append(tape["final"].reshape(-1))
        return torch.stack(rows).double()

    def degrees(one, two):
        u, v = (torch.linalg.svd(x, full_matrices=False)[0][:, 0] for x in (one, two))
        return math.degrees(math.acos(min(1.0, abs(float(u @ v)))))

    base = states([])
    everything = [(layer, head) for layer in range(3) for head in range(6)]
    first = {at: degrees(base, states([at])) for at in everything}
    for at, value in first.items():
        assert float(found.scores[at]) == pytest.approx(value, abs=1e-3)
    best = max(first, key=lambda at: first[at])
    second = {at: degrees(base, states([best, at])) for at in everything if at != best}
    assert found.order == (best, max(second, key=lambda at: second[at]))
    assert float(found.metric[1]) == pytest.approx(max(second.values()), abs=1e-3)
    with pytest.raises(InputError, match="two prompts"):
        heads.attribute(model, CLEAN[:1], method="sahara")
    assert len({str(at) for at in found.order}) == 2


def test_saved_scores_come_back(chat, direction, tmp_path) -> None:
    model = chat("llama")
    found = heads.attribute(model, CLEAN, method="direct", direction=direction(model), layer=2)
    again = heads.HeadScores.load(found.save(tmp_path / "scores.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert again.parts.keys() == found.parts.keys()
    assert again.convention == found.convention
    sahara = heads.attribute(model, CLEAN, method="sahara")
    assert heads.HeadScores.load(sahara.save(tmp_path / "sahara.safetensors")).order == sahara.order
    assert found.plot().alt


def test_rank_agreement_is_spearman_over_resampled_prompts(chat) -> None:
    model = chat("llama")
    given = {"target": "refusal_tokens", "refusal_tokens": [70, 80]}
    one = heads.attribute(model, LONGER, method="ablate", **given)
    two = heads.attribute(model, LONGER, method="gradient", **given)
    found = heads.rank_agreement(one, two)
    expected = sps.spearmanr(one.scores.flatten(), two.scores.flatten()).statistic
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    assert found.n == len(LONGER)
    assert heads.rank_agreement(one, one).interval == pytest.approx((1, 1))
    other = heads.attribute(model, LONGER, method="sahara")
    assert "heads" in heads.rank_agreement(one, other).method
    table = heads.agreement([one, two, other])
    assert list(table["one"]) == ["ablate", "ablate", "gradient"]
