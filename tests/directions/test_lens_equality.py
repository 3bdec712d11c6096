"""Direction, ablation and addition against TransformerLens, and the weight form behind post-norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from planted import prompts
from tiny_models import POST_NORM_FAMILIES

from tamperlens import refusal
from tamperlens.models import ChatModel
from tamperlens_hooks import HookError, ablate_direction, add_direction, capture
from tamperlens_hooks.lens import to_transformer_lens
from tamperlens_hooks.weight_form import ablate_weights

BAD, GOOD = prompts(8, harmful=True), prompts(8, harmful=False)
LAYER, POSITION = 1, -1


def chat(tiny: Callable[..., Any], family: str) -> ChatModel:
    return ChatModel.from_parts(*tiny(family), name=family, check_anatomy=False)


def project_out(unit: torch.Tensor, x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x - (x @ unit)[..., None] * unit


def add(vector: torch.Tensor, x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x + vector


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_against_transformer_lens(tiny: Any, family: str) -> None:
    model = chat(tiny, family)
    bridge = to_transformer_lens(model)
    ids = [torch.tensor([row]) for row in model.token_ids([*BAD, *GOOD])]
    with torch.no_grad():
        # The difference of means, one prompt at a time from the bridge's cache.
        reads = []
        for row in ids:
            _, cached = bridge.run_with_cache(row)
            reads.append(cached[f"blocks.{LAYER}.hook_resid_pre"][0, POSITION].double())
        vector = torch.stack(reads[:8]).mean(0) - torch.stack(reads[8:]).mean(0)
        found = refusal.direction_at(model, BAD, GOOD, LAYER, POSITION)
        torch.testing.assert_close(found.raw.double(), vector, rtol=1e-4, atol=1e-5)
        # Ablation at every block input, attention output and MLP output; addition at one block input.
        unit = found.vector
        hooks = [
            (f"blocks.{layer}.{name}", partial(project_out, unit))
            for layer in range(model.n_layers)
            for name in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")
        ]
        raised = [(f"blocks.{LAYER}.hook_resid_pre", partial(add, found.raw))]
        for row in ids[::5]:
            plain = bridge(row)
            for edit, theirs in (
                (ablate_direction(model, unit), bridge.run_with_hooks(row, fwd_hooks=hooks)),
                (add_direction(model, found.raw, layer=LAYER), bridge.run_with_hooks(row, fwd_hooks=raised)),
            ):
                with edit:
                    ours = model.module(row).logits
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)
                assert float((ours - plain).abs().max()) > 0.05


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma"])
def test_weight_form_is_the_ablation_where_blocks_write_to_the_stream(tiny: Any, family: str) -> None:
    model = chat(tiny, family)
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))
    before = model.fingerprint
    plain = model.logits_last(BAD)
    with ablate_direction(model, direction):
        activations = model.logits_last(BAD)
    with ablate_weights(model, direction):
        weights = model.logits_last(BAD)
    torch.testing.assert_close(weights, activations, rtol=1e-3, atol=1e-3)
    assert float((plain - weights).abs().max()) > 0.1
    assert torch.equal(model.logits_last(BAD), plain)
    assert model.fingerprint == before


@pytest.mark.parametrize("family", POST_NORM_FAMILIES)
def test_behind_a_post_norm_only_the_activation_form_is_complete(tiny: Any, family: str) -> None:
    model = chat(tiny, family)
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))
    unit = direction / direction.norm()
    left = {}
    for name, edit in (
        ("activations", ablate_direction(model, direction)),
        ("weights", ablate_weights(model, direction, allow_post_norm=True)),
    ):
        with torch.no_grad(), edit, capture(model, sites=["resid_post"], positions="last") as tape:
            model.module(**model.encode(BAD))
        left[name] = float((tape["resid_post"] @ unit).abs().max())
    assert left["activations"] < 1e-5
    assert left["weights"] > 0.01
    with pytest.raises(HookError, match="use ablate_direction"), ablate_weights(model, direction):
        pass
