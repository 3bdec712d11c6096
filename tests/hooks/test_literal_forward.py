"""Every site against forward passes written out by hand, and the wrong variants that must not match."""

from __future__ import annotations

import pytest
import torch
from literal_forward import LITERAL

from tamperlens_hooks import (
    Site,
    ablate_direction,
    ablate_heads,
    add_direction,
    capture,
    describe,
    patch_heads,
)

SITES: list[Site] = ["resid_pre", "resid_post", "attn_out", "mlp_out", "head_z", "final"]
IDS = torch.randint(5, 261, (2, 30), generator=torch.Generator().manual_seed(1))


def record(family: str, model, ids=IDS, edit=lambda site, layer, x: x):
    seen = {}

    def at(site, layer, x):
        x = edit(site, layer, x)
        seen[site, layer] = x
        return x

    with torch.no_grad():
        logits = LITERAL[family](model, ids, at)
    return logits, seen


@pytest.mark.parametrize("family", LITERAL)
def test_every_site_is_what_the_definition_computes(tiny, family):
    model, _ = tiny(family)
    logits, seen = record(family, model)
    with torch.no_grad(), capture(model, sites=SITES) as tape:
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found, logits, atol=2e-4, rtol=1e-4)
    for site in SITES:
        layers = [-1] if site == "final" else range(describe(model).n_layers)
        expected = torch.stack([seen[site, layer] for layer in layers])
        got = tape[site] if site != "final" else tape[site][None]
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4, msg=lambda m, s=site: f"{s}: {m}")


@pytest.mark.parametrize("family", LITERAL)
def test_removing_a_direction_everywhere(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    direction = torch.randn(anatomy.d_model, generator=torch.Generator().manual_seed(3)) * 7
    unit = direction / direction.norm()

    def remove(site, layer, x):
        if site in ("resid_pre", "attn_out", "mlp_out"):
            return x - (x @ unit)[..., None] * unit
        return x

    expected, _ = record(family, model, edit=remove)
    with torch.no_grad(), ablate_direction(model, anatomy, direction):
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=1e-4)

    one_layer, _ = record(family, model, edit=lambda s, i, x: remove(s, i, x) if i == 1 else x)
    with torch.no_grad(), ablate_direction(model, anatomy, direction, layers=[1]):
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found, one_layer, atol=5e-4, rtol=1e-4)

    only_inputs, _ = record(family, model, edit=lambda s, i, x: remove(s, i, x) if s == "resid_pre" else x)
    assert (only_inputs - expected).abs().max() > 0.05  # forgetting the module outputs is another number


@pytest.mark.parametrize("family", LITERAL)
def test_adding_a_direction_at_one_block_input(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    direction = torch.randn(anatomy.d_model, generator=torch.Generator().manual_seed(4))
    expected, _ = record(
        family, model, edit=lambda s, i, x: x - 2.5 * direction if (s, i) == ("resid_pre", 1) else x
    )
    with torch.no_grad(), add_direction(model, anatomy, direction, layer=1, scale=-2.5):
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    plain, _ = record(family, model)
    assert (plain - expected).abs().max() > 0.1


@pytest.mark.parametrize("family", LITERAL)
def test_ablating_and_patching_heads(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    heads = [(0, 1), (1, 0), (1, anatomy.n_heads - 1)]
    _, plain = record(family, model)

    def edited(value):
        def edit(site, layer, x):
            if site != "head_z":
                return x
            x = x.clone()
            for head_layer, head in heads:
                if head_layer == layer:
                    x[:, :, head] = value(x[:, :, head], layer, head)
            return x

        return record(family, model, edit=edit)[0]

    given = torch.randn(len(heads), anatomy.d_head, generator=torch.Generator().manual_seed(5))
    by_head = dict(zip(heads, given, strict=True))
    other = {(i, h): plain["head_z", i][:, :, h].roll(1, dims=0) for i, h in heads}
    cases = [
        (ablate_heads(model, anatomy, heads), edited(lambda z, i, h: torch.zeros_like(z))),
        (
            ablate_heads(model, anatomy, heads, mode="mean"),
            edited(lambda z, i, h: z.mean((0, 1)).expand_as(z)),
        ),
        (ablate_heads(model, anatomy, heads, mode=given), edited(lambda z, i, h: by_head[i, h].expand_as(z))),
        (patch_heads(model, anatomy, other), edited(lambda z, i, h: other[i, h])),
    ]
    for context, expected in cases:
        with torch.no_grad(), context:
            found = model(input_ids=IDS).logits
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_a_post_norm_write_is_not_the_module_output(tiny):
    model, _ = tiny("gemma2")
    anatomy = describe(model)
    raw = {}
    handle = model.model.layers[0].self_attn.register_forward_hook(lambda m, a, out: raw.update(out=out[0]))
    with torch.no_grad(), capture(model, anatomy, sites=["attn_out", "resid_pre"], layers=0) as tape:
        model(input_ids=IDS)
    handle.remove()
    write = tape["attn_out"][0]
    assert (write - raw["out"]).abs().max() > 0.1
    torch.testing.assert_close(write, model.model.layers[0].post_attention_layernorm(raw["out"]).detach())
