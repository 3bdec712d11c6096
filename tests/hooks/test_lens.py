"""TransformerLens on shared parameters: same numbers, the original untouched, fused adapters refused."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_model, make_tokenizer

from tamperlens.hooks import HookError, capture, describe, patch_heads, to_transformer_lens

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2", "phi3")


def storages(module):
    return {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}


def tokens(seed=0, shape=(2, 9)):
    return torch.randint(5, 261, shape, generator=torch.Generator().manual_seed(seed))


def with_lora(family, targets):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(make_model(family), LoraConfig(r=4, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_same_numbers_shared_memory_and_the_original_bit_identical(family, tiny, tmp_path):
    module, tokenizer = tiny(family, fresh=True)
    ids, kept = tokens(), {name: value.clone() for name, value in module.state_dict().items()}
    attention, padding = module.config._attn_implementation, tokenizer.padding_side
    with torch.no_grad():
        before = module(ids).logits
    bridge = to_transformer_lens(module, tokenizer=tokenizer)
    with torch.no_grad():
        assert torch.allclose(bridge(ids), before, atol=2e-5)
        after = module(ids).logits
    assert torch.equal(after, before)
    assert list(module.state_dict()) == list(kept)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert module.config._attn_implementation == attention
    assert tokenizer.padding_side == padding
    assert storages(module) <= storages(bridge)  # nothing was copied away
    module.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(type(module).from_pretrained(tmp_path)(ids).logits, before)


def test_one_memory_a_write_to_the_original_is_seen_by_the_bridge(tiny):
    module, tokenizer = tiny("llama", fresh=True)
    bridge = to_transformer_lens(module, tokenizer=tokenizer)
    with torch.no_grad():
        module.lm_head.weight.mul_(2)
        assert torch.allclose(bridge(tokens()), module(tokens()).logits, atol=4e-5)


def test_gradients_through_the_bridge_do_not_land_on_the_original(tiny):
    module, tokenizer = tiny("llama", fresh=True)
    to_transformer_lens(module, tokenizer=tokenizer)(tokens()).sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_compatibility_mode_folds_weights_of_the_bridge_only(family, tiny):
    module, tokenizer = tiny(family, fresh=True)
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    bridge = to_transformer_lens(module, tokenizer=tokenizer)
    bridge.enable_compatibility_mode()
    with torch.no_grad():
        expected = module(tokens()).logits.log_softmax(-1)
        assert torch.allclose(bridge(tokens()).log_softmax(-1), expected, atol=5e-5)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_patching_agrees_with_plain_hooks(family, tiny):
    from transformer_lens import patching

    module, tokenizer = tiny(family)
    clean, corrupt = tokens(1), tokens(2)
    bridge = to_transformer_lens(module, tokenizer=tokenizer)

    def metric(logits):
        return (logits[:, -1, 7] - logits[:, -1, 11]).mean()

    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        table = patching.get_act_patch_attn_head_out_all_pos(bridge, corrupt, cache, metric)
    anatomy = describe(module)
    with torch.no_grad(), capture(module, sites="head_z") as tape:
        module(clean)
    for layer in range(anatomy.n_layers):
        for head in range(anatomy.n_heads):
            with torch.no_grad(), patch_heads(module, {(layer, head): tape["head_z"][layer, :, :, head]}):
                found = metric(module(corrupt).logits)
            assert abs(float(found - table[layer, head])) < 1e-5


def test_lora_on_maps_of_their_own_is_kept():
    model = with_lora("llama", ["q_proj", "v_proj", "down_proj"])
    with torch.no_grad():
        tuned = model(tokens()).logits
        with model.disable_adapter():
            plain = model(tokens()).logits
        through = to_transformer_lens(model, tokenizer=make_tokenizer())(tokens())
    assert torch.allclose(through, tuned, atol=2e-5)
    assert not torch.allclose(through, plain, atol=1e-2)  # dropping the adapter would give this


@pytest.mark.parametrize(
    ("family", "target"), [("gpt2", "c_attn"), ("gpt_neox", "query_key_value"), ("phi3", "gate_up_proj")]
)
def test_lora_on_fused_maps_is_refused_with_the_reason(family, target):
    with pytest.raises(HookError, match=rf"{target} holds .* in one weight .* adapter"):
        to_transformer_lens(with_lora(family, [target]), tokenizer=make_tokenizer())


def test_text_is_read_as_it_stands(tiny):
    module, tokenizer = tiny("llama")
    bridge = to_transformer_lens(module, tokenizer=tokenizer)
    assert bridge.to_tokens("ab").tolist() == tokenizer(["ab"], add_special_tokens=False)["input_ids"]


def test_without_a_tokenizer_the_error_says_so(tiny):
    with pytest.raises(HookError, match="needs the tokenizer"):
        to_transformer_lens(tiny("llama")[0])
