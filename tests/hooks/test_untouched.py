"""Whatever is read or edited, and however it ends, the model is afterwards what it was, bit for bit."""

from __future__ import annotations

import pytest
import torch
from fingerprints import differences, module_print
from tiny_models import FAMILIES, left_padded_batch

from tamperlens_hooks import (
    ablate_direction,
    ablate_heads,
    add_direction,
    capture,
    check,
    describe,
    head_means,
    patch_heads,
    read_positions,
    residual_means,
)

SITES = ["resid_pre", "resid_post", "attn_out", "mlp_out", "head_z", "final"]


def contexts(model, anatomy):
    direction = torch.linspace(-1, 1, anatomy.d_model)
    return [
        lambda: capture(model, anatomy, SITES),
        lambda: capture(model, anatomy, SITES, detach=False),
        lambda: ablate_direction(model, anatomy, direction),
        lambda: add_direction(model, anatomy, direction, layer=1),
        lambda: ablate_heads(model, anatomy, [(0, 1), (1, 0)]),
        lambda: ablate_heads(model, anatomy, [(0, 1)], mode="mean"),
        lambda: ablate_heads(model, anatomy, [(0, 1)], mode=torch.ones(anatomy.d_head)),
        lambda: patch_heads(model, anatomy, {(1, 1): torch.ones(anatomy.d_head)}),
    ]


class BodyFailed(Exception):
    pass


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_and_editing_leave_the_model_as_it_was(tiny, family):
    model, _ = tiny(family, fresh=True)
    model.train()
    model.get_submodule(describe(model).mlp[0]).eval()
    model.get_submodule(describe(model).attention[0]).requires_grad_(False)
    batch = left_padded_batch((4, 9))
    with torch.random.fork_rng(), torch.no_grad():
        model(
            **batch, output_hidden_states=True
        )  # transformers installs its own hooks at the first such call
    before = module_print(model)
    anatomy = describe(model)
    check(model, anatomy)
    residual_means(model, anatomy, [batch], [-1, -2])
    residual_means(model, anatomy, [batch], [-1], layers=[0], site="attn_out")
    read_positions(model, anatomy, [batch], [-1])
    head_means(model, anatomy, [batch])
    assert differences(before, module_print(model)) == []
    for make in contexts(model, anatomy):
        with torch.random.fork_rng(), make():  # the body's own dropout draws numbers
            model(**batch)
        assert differences(before, module_print(model)) == []


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_raising_body_or_forward_pass_detaches_everything(tiny, family):
    model, _ = tiny(family, fresh=True)
    anatomy, batch = describe(model), left_padded_batch((4, 9))
    with torch.no_grad():
        plain = model(**batch, output_hidden_states=True).logits
    before = module_print(model)

    def explode(*args):
        raise BodyFailed

    for make in contexts(model, anatomy):
        with pytest.raises(BodyFailed), make():
            raise BodyFailed
        assert differences(before, module_print(model)) == []
        handle = model.get_submodule(anatomy.mlp[1]).register_forward_hook(explode)
        with pytest.raises(BodyFailed), make():
            model(**batch)
        handle.remove()
        assert differences(before, module_print(model)) == []
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_afterwards_are_the_same_bits(tiny, family):
    model, _ = tiny(family)
    batch = left_padded_batch((4, 9))
    with torch.no_grad():
        before = model(**batch).logits
    anatomy = describe(model)
    for make in contexts(model, anatomy):
        with torch.no_grad(), make():
            inside = model(**batch).logits
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, before)
        del inside
    with torch.no_grad(), capture(model, anatomy, SITES):
        assert torch.equal(model(**batch).logits, before)  # reading changes nothing even inside


def test_a_failing_prompt_batch_leaves_flags_and_hooks(tiny):
    model, _ = tiny("llama", fresh=True)
    model.train()
    before = module_print(model)
    bad = {"input_ids": torch.tensor([[5, 999]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
    for function in (residual_means, read_positions):
        with pytest.raises(IndexError):
            function(model, batches=[bad], positions=[-1])
        assert differences(before, module_print(model)) == []


def test_contexts_nest_and_end_in_any_order(tiny):
    model, _ = tiny("phi3")
    anatomy, batch = describe(model), left_padded_batch((6,))
    before = module_print(model)
    first = ablate_direction(model, anatomy, torch.linspace(-1, 1, 48))
    second = add_direction(model, anatomy, torch.ones(48), layer=0)
    with torch.no_grad():
        first.__enter__()
        second.__enter__()
        both = model(**batch).logits
        first.__exit__(None, None, None)
        only_second = model(**batch).logits
        second.__exit__(None, None, None)
        with add_direction(model, anatomy, torch.ones(48), layer=0):
            torch.testing.assert_close(model(**batch).logits, only_second, rtol=0, atol=0)
    assert not torch.equal(both, only_second)
    assert differences(before, module_print(model)) == []


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_stays(tiny, implementation):
    model, _ = tiny("llama", attn_implementation=implementation)
    anatomy, batch = describe(model), left_padded_batch((6, 9))
    check(model, anatomy)
    with torch.no_grad(), capture(model, anatomy, SITES) as tape:
        model(**batch)
    assert model.config._attn_implementation == implementation
    reference, _ = tiny("llama")
    with torch.no_grad(), capture(reference, anatomy, SITES) as other:
        reference(**batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(tape["final"][real], other["final"][real], atol=1e-5, rtol=1e-4)
