"""Adapters attached and unmerged: the same anatomy, and the numbers of the merged model."""

from __future__ import annotations

import contextlib
import copy

import peft
import pytest
import torch
from fingerprints import differences, module_print
from tiny_models import FAMILIES, left_padded_batch

from tamperlens_hooks import (
    UnsupportedModelError,
    ablate_direction,
    ablate_heads,
    capture,
    check,
    describe,
    effective_weight,
    head_output_weight,
    logical_weight,
    residual_means,
    stored_parameter,
    unwrap,
)

SITES = ["resid_pre", "resid_post", "attn_out", "mlp_out", "head_z", "final"]


def with_adapter(model, **settings):
    """A LoRA adapter on every linear map whose update is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = peft.LoraConfig(
            r=4,
            lora_alpha=8,
            lora_dropout=0.2,
            target_modules="all-linear",
            init_lora_weights=False,
            **settings,
        )
        return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attached_adapter_reads_as_the_merged_model(tiny, family):
    base, _ = tiny(family)
    plain = describe(base)
    tuned = with_adapter(copy.deepcopy(base))
    before = module_print(tuned)
    anatomy = describe(tuned)
    assert anatomy == plain == describe(unwrap(tuned))
    assert max(check(tuned, anatomy).values()) < 1e-5
    batch = left_padded_batch((5, 9))
    direction = torch.linspace(-1, 1, anatomy.d_model)
    merged = copy.deepcopy(tuned).merge_and_unload()

    @contextlib.contextmanager
    def edited(model):
        with ablate_direction(model, anatomy, direction), ablate_heads(model, anatomy, [(1, 1)]):
            yield

    with torch.no_grad():
        for around in (contextlib.nullcontext, edited):
            with around(tuned), capture(tuned, anatomy, SITES) as found:
                tuned(**batch)
            with around(merged), capture(merged, anatomy, SITES) as expected:
                merged(**batch)
            with around(base), capture(base, anatomy, SITES) as without:
                base(**batch)
            for site in SITES:
                torch.testing.assert_close(found[site], expected[site], atol=1e-4, rtol=1e-3)
            assert (without["resid_post"] - found["resid_post"]).abs().max() > 0.1  # the adapter does count
    means, _ = residual_means(tuned, batches=[batch], positions=[-1])
    merged_means, _ = residual_means(merged, batches=[batch], positions=[-1])
    torch.testing.assert_close(means, merged_means, atol=1e-4, rtol=1e-3)
    assert differences(before, module_print(tuned)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_own_and_effective_weights(tiny, family):
    base, _ = tiny(family)
    tuned = with_adapter(copy.deepcopy(base))
    merged = copy.deepcopy(tuned).merge_and_unload()
    anatomy = describe(tuned)
    for part in anatomy.projections():
        assert torch.equal(logical_weight(tuned, part), logical_weight(base, part))
        assert torch.equal(stored_parameter(tuned, part.parameter), stored_parameter(base, part.parameter))
        effective = effective_weight(tuned, part)
        torch.testing.assert_close(effective, logical_weight(merged, part), atol=1e-6, rtol=1e-5)
        assert (effective - logical_weight(base, part)).abs().max() > 0.05
        assert torch.equal(effective_weight(base, part), logical_weight(base, part))
    with tuned.disable_adapter():
        part = anatomy.projection("v", 1)
        assert torch.equal(effective_weight(tuned, part), logical_weight(base, part))
    columns = head_output_weight(tuned, anatomy, 1, 2)
    expected = effective_weight(tuned, anatomy.projection("o", 1))[:, 2 * anatomy.d_head : 3 * anatomy.d_head]
    assert torch.equal(columns, expected)


def test_merged_in_place_is_not_counted_twice(tiny):
    base, _ = tiny("llama")
    tuned = with_adapter(copy.deepcopy(base))
    part = describe(tuned).projection("q", 0)
    expected = effective_weight(tuned, part)
    tuned.merge_adapter()
    torch.testing.assert_close(effective_weight(tuned, part), expected, atol=1e-6, rtol=1e-5)
    tuned.unmerge_adapter()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_modules_to_save_and_several_adapters(tiny, family):
    base, _ = tiny(family)
    tuned = with_adapter(copy.deepcopy(base), modules_to_save=["lm_head"])
    tuned.add_adapter("second", peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tuned.set_adapter("second")
    anatomy = describe(tuned)
    assert anatomy == describe(base)
    check(tuned, anatomy)
    part = anatomy.projection("o", 0)
    delta = unwrap(tuned).get_submodule(part.module).get_delta_weight("second")
    expected = logical_weight(base, part) + (delta.T if part.transposed else delta)
    torch.testing.assert_close(effective_weight(tuned, part), expected)


def test_adapters_made_by_transformers_itself(tiny):
    base, _ = tiny("qwen2")
    model = copy.deepcopy(base)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False))
    model.eval()
    assert describe(model) == describe(base)
    check(model, describe(model))


def test_embedding_adapters_keep_the_anatomy(tiny):
    base, _ = tiny("llama")
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(copy.deepcopy(base), config).eval()
    assert describe(tuned) == describe(base)
    check(tuned, describe(tuned))


def test_prompt_learning_is_refused(tiny):
    base, _ = tiny("llama")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    tuned = peft.get_peft_model(copy.deepcopy(base), config)
    with pytest.raises(
        UnsupportedModelError, match="not supported yet: the prompt-learning adapter 'default'"
    ):
        describe(tuned)


def test_training_through_an_edit_updates_the_adapter_only(tiny):
    base, _ = tiny("llama")
    tuned = with_adapter(copy.deepcopy(base)).train()
    anatomy = describe(tuned)
    batch = left_padded_batch((6, 9))
    with ablate_direction(tuned, anatomy, torch.linspace(-1, 1, anatomy.d_model)):
        tuned(**batch, labels=batch["input_ids"]).loss.backward()
    with_gradient = {name for name, p in tuned.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)
