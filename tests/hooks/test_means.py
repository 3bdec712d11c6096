"""Running means and reads over batches against cached hidden states."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, left_padded_batch

from tamperlens_hooks import HookError, capture, describe, head_means, read_positions, residual_means

BATCHES = [
    left_padded_batch((5, 12, 31), seed=1),
    left_padded_batch((8,), seed=2),
    left_padded_batch((6, 6), seed=3),
]
POSITIONS = [-1, -2, -5]


def cached_hidden_states(model, positions):
    """The literal definition: every prompt alone, all hidden states kept, averaged in float64."""
    rows = []
    for batch in BATCHES:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            with torch.no_grad():
                hidden = model(input_ids=ids[mask.bool()][None], output_hidden_states=True).hidden_states
            rows.append(torch.stack([torch.stack([h[0, p] for h in hidden[:-1]]) for p in positions]))
    return torch.stack(rows)  # [n, pos, layer, d]


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_cached_hidden_states(tiny, family):
    model, _ = tiny(family)
    expected = cached_hidden_states(model, POSITIONS)
    means, n = residual_means(model, batches=BATCHES, positions=POSITIONS)
    assert n == 6
    assert means.dtype == torch.float64
    torch.testing.assert_close(means, expected.double().mean(0), atol=2e-5, rtol=1e-4)
    single = read_positions(model, batches=BATCHES, positions=POSITIONS)
    assert single.shape == expected.shape
    torch.testing.assert_close(single, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(single.double().mean(0), means, atol=1e-12, rtol=1e-9)


def test_the_sum_is_in_float64(tiny):
    """In fp32 a sum over many large values loses digits; here it must not."""
    model, _ = tiny("llama")
    batches = [left_padded_batch((3, 3), seed=i) for i in range(5)]
    exact = torch.cat([read_positions(model, batches=[b], positions=[-1]) for b in batches]).double().mean(0)
    means, n = residual_means(model, batches=iter(batches), positions=[-1])
    assert n == 10
    assert (means - exact).abs().max() < 1e-14
    running = torch.zeros_like(exact, dtype=torch.float32)
    for b in batches:
        running += read_positions(model, batches=[b], positions=[-1]).sum(0)
    assert (running.double() / 10 - exact).abs().max() > 1e-10


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gemma2"])
def test_other_sites_and_chosen_layers(tiny, family, site):
    model, _ = tiny(family)
    batch = BATCHES[0]
    with torch.no_grad(), capture(model, sites=[site], positions=[-3, -1]) as tape:
        model(**batch)
    means, _ = residual_means(model, batches=[batch], positions=[-3, -1], layers=[1, 0], site=site)
    expected = tape[site][[1, 0]].double().mean(1).transpose(0, 1)
    torch.testing.assert_close(means, expected, atol=1e-6, rtol=1e-5)


def test_stops_behind_the_last_layer_needed_and_never_unembeds(tiny):
    model, _ = tiny("llama", fresh=True)
    ran = []
    for i, block in enumerate(model.model.layers):
        block.mlp.register_forward_hook(lambda m, a, o, i=i: ran.append(f"mlp {i}"))
        block.self_attn.register_forward_hook(lambda m, a, o, i=i: ran.append(f"attn {i}"))
    model.model.norm.register_forward_hook(lambda m, a, o: ran.append("norm"))
    model.lm_head.register_forward_hook(lambda m, a, o: ran.append("unembedding"))
    for layers, site, expected in (
        ([0], "resid_pre", []),
        ([1, 0], "resid_pre", ["attn 0", "mlp 0"]),
        ([0], "resid_post", ["attn 0", "mlp 0"]),
        ([1], "attn_out", ["attn 0", "mlp 0", "attn 1"]),
        (None, "resid_post", ["attn 0", "mlp 0", "attn 1", "mlp 1", "attn 2", "mlp 2"]),
    ):
        ran.clear()
        residual_means(model, batches=BATCHES[:1], positions=[-1], layers=layers, site=site)
        assert ran == expected


def test_dropout_is_off_and_training_flags_come_back(tiny):
    model, _ = tiny("gpt2", fresh=True)
    expected, _ = residual_means(model, batches=BATCHES, positions=POSITIONS)
    model.train()
    model.transformer.h[0].eval()
    flags = [m.training for m in model.modules()]
    found, _ = residual_means(model, batches=BATCHES, positions=POSITIONS)
    assert torch.equal(found, expected)
    assert [m.training for m in model.modules()] == flags


def test_head_means_leave_padding_out(tiny):
    model, _ = tiny("qwen2")
    anatomy = describe(model)
    total, count = 0, 0
    for batch in BATCHES:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            with torch.no_grad(), capture(model, sites=["head_z"]) as tape:
                model(input_ids=ids[mask.bool()][None])
            total = total + tape["head_z"].double().sum((1, 2))
            count += int(mask.sum())
    means, tokens = head_means(model, batches=BATCHES)
    assert tokens == count == sum(int(b["attention_mask"].sum()) for b in BATCHES)
    assert means.shape == (anatomy.n_layers, anatomy.n_heads, anatomy.d_head)
    torch.testing.assert_close(means, total / count, atol=1e-5, rtol=1e-4)


def test_bf16_and_missing_mask(tiny):
    model, _ = tiny("olmo2", dtype=torch.bfloat16)
    ids = left_padded_batch((9, 9))["input_ids"]
    single = read_positions(model, batches=[{"input_ids": ids}], positions=[-1])
    assert single.dtype == torch.bfloat16
    means, n = residual_means(model, batches=[{"input_ids": ids}], positions=[-1])
    assert n == 2
    torch.testing.assert_close(means, single.double().mean(0))


@pytest.mark.parametrize(
    ("batches", "positions", "words"),
    [
        ([], [-1], "no prompts"),
        (BATCHES, [1], "positions count from the end"),
        (BATCHES, [-6], "prompt 0 of a batch has 5 tokens, so position -6 lies before its start"),
        (BATCHES, [-99], "so position -99 lies before its start"),
        ([{k: v.flip(1) for k, v in BATCHES[0].items()}], [-1], "pad on the left"),
        ([{"input_ids": torch.ones(3, dtype=torch.long)}], [-1], r"input_ids \[3\] and attention_mask"),
    ],
)
def test_bad_input_is_named(tiny, batches, positions, words):
    model, _ = tiny("llama")
    for function in (residual_means, read_positions):
        with pytest.raises(HookError, match=words):
            function(model, batches=batches, positions=positions)
    with pytest.raises(HookError, match="no prompts to average over"):
        head_means(model, batches=[])
