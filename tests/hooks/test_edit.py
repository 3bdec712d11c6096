"""Writing: against orthogonalised weights, while generating, with checkpointing, and bad arguments."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch
from tiny_models import FAMILIES, POST_NORM_FAMILIES, left_padded_batch

from tamperlens_hooks import (
    HookError,
    ablate_direction,
    ablate_heads,
    add_direction,
    capture,
    describe,
    head_means,
    patch_heads,
)

LENGTHS = (5, 12, 31)


def a_direction(anatomy, seed=3):
    return torch.randn(anatomy.d_model, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def orthogonalised(model, anatomy, direction):
    """A copy whose embedding and output matrices cannot write along the direction (Arditi et al. 2024)."""
    model = copy.deepcopy(model)
    unit = direction / direction.norm()
    tables = [model.get_submodule(anatomy.embedding).weight]
    tables += [p for name, p in model.named_parameters() if "wpe" in name]
    for table in tables:
        table -= (table @ unit)[:, None] * unit
    for part in (p for p in anatomy.projections() if p.name in ("o", "down")):
        weight, bias = anatomy.logical_weight(model, part), anatomy.logical_bias(model, part)
        weight -= unit[:, None] * (unit @ weight)
        if bias is not None:
            bias -= (bias @ unit) * unit
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_ablation_against_orthogonalised_weights(tiny, family):
    """The same map where blocks write directly to the stream; another one behind a post-norm."""
    model, _ = tiny(family, tie_word_embeddings=False)
    anatomy, batch = describe(model), left_padded_batch(LENGTHS)
    direction = a_direction(anatomy)
    with torch.no_grad():
        by_weights = orthogonalised(model, anatomy, direction)(**batch).logits
        plain = model(**batch).logits
        with ablate_direction(model, anatomy, direction):
            by_activations = model(**batch).logits
    real = batch["attention_mask"].bool()
    gap = (by_weights - by_activations)[real].abs().max()
    assert (plain - by_activations)[real].abs().max() > 0.2
    if family in POST_NORM_FAMILIES:
        assert gap > 0.1
    else:
        assert gap < 1e-3


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        *((family, torch.float32) for family in FAMILIES),
        ("llama", torch.bfloat16),
        ("gemma2", torch.bfloat16),
    ],
)
def test_nothing_is_left_along_an_ablated_direction(tiny, family, dtype):
    model, _ = tiny(family) if dtype == torch.float32 else tiny(family, dtype=dtype)
    anatomy = describe(model)
    direction = a_direction(anatomy)
    sites = ["resid_pre", "attn_out", "mlp_out", "resid_post"]
    with torch.no_grad(), ablate_direction(model, anatomy, direction), capture(model, anatomy, sites) as tape:
        model(**left_padded_batch(LENGTHS))
    for site in sites:
        along = tape[site].double() @ (direction / direction.norm()).double()
        assert along.abs().max() < (1e-5 if dtype == torch.float32 else 0.03)
        assert tape[site].double().std() > 0.1


def each_edit(model, anatomy, batch):
    direction = a_direction(anatomy)
    means, _ = head_means(model, anatomy, [batch])
    return {
        "ablate_direction": lambda: ablate_direction(model, anatomy, direction),
        "add_direction": lambda: add_direction(model, anatomy, direction, layer=1, scale=3.0),
        "zero": lambda: ablate_heads(model, anatomy, [(0, 0), (1, 2)]),
        "means": lambda: ablate_heads(model, anatomy, [(0, 0), (1, 2)], mode=means),
        "patch": lambda: patch_heads(model, anatomy, {(1, 1): torch.full((anatomy.d_head,), 2.0)}),
    }


@torch.no_grad()
def greedy_without_cache(model, ids, mask, tokens):
    """The literal definition: the whole sequence again for every token."""
    for _ in range(tokens):
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        logits[:, model.generation_config.eos_token_id] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids


@pytest.mark.parametrize(
    ("family", "names"),
    [
        *((family, ["ablate_direction", "means"]) for family in FAMILIES),
        *(("llama", [name]) for name in ("ablate_direction", "add_direction", "zero", "means", "patch")),
    ],
)
def test_edits_hold_while_generating_with_a_cache(tiny, family, names):
    model, _ = tiny(family)
    anatomy = describe(model)
    batch = left_padded_batch((4, 9, 9))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with contextlib.ExitStack() as edits:
        for name in names:
            edits.enter_context(each_edit(model, anatomy, batch)[name]())
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            use_cache=True,
        )
        expected = greedy_without_cache(model, ids, mask, 3)
    assert torch.equal(found, expected)
    assert not torch.equal(found, greedy_without_cache(model, ids, mask, 3))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_edits_with_gradient_checkpointing_give_the_same_gradients(tiny, family):
    model, _ = tiny(family, fresh=True)
    anatomy = describe(model)
    batch = left_padded_batch((7, 11))
    direction = a_direction(anatomy)

    def gradients():
        model.zero_grad()
        with ablate_direction(model, anatomy, direction), ablate_heads(model, anatomy, [(1, 0)]):
            model(**batch, labels=batch["input_ids"]).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, found in gradients().items():
        torch.testing.assert_close(found, plain[name], atol=1e-5, rtol=1e-4)


def test_gradients_flow_into_patched_values(tiny):
    model, _ = tiny("qwen3")
    anatomy = describe(model)
    z = torch.zeros(anatomy.d_head, requires_grad=True)
    with patch_heads(model, anatomy, {(0, 3): z}):
        model(**left_padded_batch((6,))).logits[:, -1, 3].sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    model.zero_grad(set_to_none=True)


def test_mean_ablation_leaves_padding_out(tiny):
    model, _ = tiny("llama")
    anatomy = describe(model)
    batch = left_padded_batch((3, 20))
    head = (1, 4)
    with torch.no_grad(), capture(model, anatomy, ["head_z"]) as plain:
        model(**batch)
    real = batch["attention_mask"].bool()
    expected = plain["head_z"][1][:, :, 4][real].mean(0)
    with (
        torch.no_grad(),
        ablate_heads(model, anatomy, [head], mode="mean"),
        capture(model, anatomy, ["head_z"]) as t,
    ):
        model(**batch)
    torch.testing.assert_close(t["head_z"][1][:, :, 4], expected.expand(2, 20, -1))
    untouched = [h for h in range(anatomy.n_heads) if h != 4]
    assert torch.equal(t["head_z"][1][:, :, untouched], plain["head_z"][1][:, :, untouched])
    with_padding = plain["head_z"][1][:, :, 4].mean((0, 1))
    assert (with_padding - expected).abs().max() > 0.05


def test_length_does_not_matter_for_removal_and_does_for_addition(tiny):
    model, _ = tiny("mistral")
    anatomy, batch = describe(model), left_padded_batch((6,))
    direction = a_direction(anatomy)

    def logits(context):
        with torch.no_grad(), context:
            return model(**batch).logits

    a = logits(ablate_direction(model, anatomy, direction))
    torch.testing.assert_close(
        a, logits(ablate_direction(model, anatomy, 1e-3 * direction)), atol=1e-5, rtol=1e-4
    )
    b = logits(add_direction(model, anatomy, direction, layer=0, scale=2.0))
    torch.testing.assert_close(b, logits(add_direction(model, anatomy, 2 * direction, layer=0)))
    assert (b - logits(add_direction(model, anatomy, direction, layer=0))).abs().max() > 0.05
    fine = torch.float64
    torch.testing.assert_close(
        a, logits(ablate_direction(model, anatomy, direction.to(fine))), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda m, a: ablate_direction(m, a, torch.ones(47)),
            r"has shape \[47\]; the residual stream .* is \[48\]",
        ),
        (lambda m, a: ablate_direction(m, a, torch.zeros(48)), "direction is zero"),
        (lambda m, a: ablate_direction(m, a, torch.full((48,), torch.nan)), "NaN or infinity"),
        (lambda m, a: add_direction(m, a, torch.full((48,), torch.inf), layer=0), "NaN or infinity"),
        (lambda m, a: add_direction(m, a, torch.ones(48), layer=0, scale=math.nan), "scale is nan"),
        (lambda m, a: add_direction(m, a, torch.ones(48), layer=3), "layer 3 is out of range"),
        (lambda m, a: ablate_direction(m, a, torch.ones(48), layers=[-1]), "layer -1 is out of range"),
        (lambda m, a: ablate_heads(m, a, [(0, 6)]), "head 6 is out of range: llama has heads 0 to 5"),
        (lambda m, a: ablate_heads(m, a, [(3, 0)]), "layer 3 is out of range"),
        (lambda m, a: ablate_heads(m, a, []), "at least one"),
        (lambda m, a: ablate_heads(m, a, [(0, 0), (0, 0)]), "must be different"),
        (lambda m, a: ablate_heads(m, a, [(0, 0)], mode=torch.ones(2, 8)), r"got \[2, 8\]"),
        (
            lambda m, a: patch_heads(m, a, {(0, 0): torch.ones(7)}),
            r"broadcast to \[batch, seq, 8\]; got \[7\]",
        ),
    ],
)
def test_bad_arguments_are_named(tiny, edit, words):
    model, _ = tiny("llama")
    with pytest.raises(HookError, match=words) as error, edit(model, describe(model)):
        pass
    assert "\n" not in str(error.value)


def test_a_patch_of_the_wrong_length_is_named(tiny):
    model, _ = tiny("llama")
    anatomy = describe(model)
    with (
        pytest.raises(HookError, match=r"z of head \(0, 0\) is \[5, 8\], the forward pass needs \[1, 6, 8\]"),
        patch_heads(model, anatomy, {(0, 0): torch.ones(5, 8)}),
    ):
        model(**left_padded_batch((6,)))
