"""The fingerprint sees every weight of a small model and nothing that does not matter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import FAMILIES

from tamperlens.models import (
    ChatModel,
    base_fingerprint_of,
    fingerprint,
    fingerprint_of,
    share_parameters_copy,
)


def lora(module: Any, seed: int = 0, **settings: Any) -> Any:
    wrapped = get_peft_model(module, LoraConfig(r=2, target_modules="all-linear", **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(wrapped.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return wrapped


def test_same_weights_same_fingerprint(tiny: Any) -> None:
    one, _ = tiny("llama", seed=1)
    two, _ = tiny("llama", seed=1)
    other, _ = tiny("llama", seed=2)
    assert len(fingerprint_of(one)) == 64
    assert fingerprint_of(one) == fingerprint_of(two) != fingerprint_of(other)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi3"])
def test_any_single_weight_counts(family: str, tiny: Any) -> None:
    module, _ = tiny(family, fresh=True)
    start = fingerprint_of(module)
    seen = {start}
    generator = torch.Generator().manual_seed(0)
    for _, parameter in module.named_parameters():
        flat = parameter.data.view(-1)
        index = int(torch.randint(len(flat), (1,), generator=generator))
        kept = flat[index].clone()
        flat[index] = torch.nextafter(kept, torch.tensor(9.0))  # the smallest change there is
        seen.add(fingerprint_of(module))
        flat[index] = kept
    assert len(seen) == 1 + len(list(module.parameters()))
    assert fingerprint_of(module) == start


def test_permuted_weights_and_moved_values_count(tiny: Any) -> None:
    module, _ = tiny("llama", fresh=True)
    start = fingerprint_of(module)
    layers = module.model.layers
    a, b = layers[0].self_attn.q_proj.weight.data, layers[1].self_attn.q_proj.weight.data
    a.copy_(b), b.copy_(a)
    swapped = fingerprint_of(module)
    assert swapped != start


def test_config_counts_and_bookkeeping_does_not(tiny: Any) -> None:
    module, _ = tiny("llama", fresh=True)
    start = fingerprint_of(module)
    module.config.use_cache = False
    module.config.architectures = ["LlamaForCausalLM"]
    module.config._name_or_path = "/somewhere/else"
    module.config.pad_token_id = 3
    module.train()
    module.requires_grad_(False)
    assert fingerprint_of(module) == start
    module.config.rms_norm_eps *= 10
    assert fingerprint_of(module) != start


def test_dtype_counts(tiny: Any) -> None:
    module, _ = tiny("llama", fresh=True)
    assert fingerprint_of(module) != fingerprint_of(copy.deepcopy(module).bfloat16())


def test_tied_weights_count_once(tiny: Any) -> None:
    tied, _ = tiny("llama", tie_word_embeddings=True)
    names = [name for name, *_ in fingerprint._tensors(tied)]
    assert sum("embed" in name or "lm_head" in name for name in names) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters(family: str, tiny: Any) -> None:
    module, _ = tiny(family, fresh=True)
    start = fingerprint_of(module)
    wrapped = lora(copy.deepcopy(module))
    assert base_fingerprint_of(wrapped) == start
    assert fingerprint_of(wrapped) != start
    again = lora(copy.deepcopy(module))
    assert fingerprint_of(again) == fingerprint_of(wrapped)
    assert fingerprint_of(lora(copy.deepcopy(module), seed=1)) != fingerprint_of(wrapped)
    merged = again.merge_and_unload()
    assert fingerprint_of(merged) not in (start, fingerprint_of(wrapped))


def test_adapter_scale_and_state_count(tiny: Any) -> None:
    module, _ = tiny("llama", fresh=True)
    wrapped = lora(copy.deepcopy(module), lora_alpha=4)
    louder = lora(copy.deepcopy(module), lora_alpha=8)
    assert fingerprint_of(wrapped) != fingerprint_of(louder)
    on = fingerprint_of(wrapped)
    with wrapped.disable_adapter():
        assert fingerprint_of(wrapped) != on
    assert fingerprint_of(wrapped) == on


def test_merging_in_place_is_noticed(tiny: Any) -> None:
    """PEFT merges through `.data`, which no version counter sees."""
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    tuned = model.with_module(lora(share_parameters_copy(model).module))
    before = tuned.fingerprint
    wrapped: Any = tuned.module
    kept = {name: p.detach().clone() for name, p in module.named_parameters()}
    wrapped.merge_adapter()
    assert tuned.fingerprint != before
    assert not all(torch.equal(p, kept[name]) for name, p in module.named_parameters()), "memory is shared"


def test_order_of_wrapping_does_not_count(tiny: Any) -> None:
    module, _ = tiny("llama", fresh=True)

    def both(order: list[str]) -> str:
        base = copy.deepcopy(module)
        settings = {
            "left": LoraConfig(r=2, target_modules=["q_proj"]),
            "right": LoraConfig(r=3, target_modules=["v_proj"]),
        }
        wrapped = get_peft_model(base, settings[order[0]], adapter_name=order[0])
        wrapped.add_adapter(order[1], settings[order[1]])
        wrapped.base_model.set_adapter(sorted(order))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.fill_(0.1)
        return fingerprint_of(wrapped)

    assert both(["left", "right"]) == both(["right", "left"])


def test_sampled_fingerprint_of_large_models(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limits lowered, a small model takes the path of a large one."""
    module, _ = tiny("llama", fresh=True)
    whole = fingerprint_of(module)
    monkeypatch.setattr(fingerprint, "WHOLE", 0)
    monkeypatch.setattr(fingerprint, "SAMPLE", 64)
    start = fingerprint_of(module)
    assert start != whole
    assert fingerprint_of(copy.deepcopy(module)) == start
    weight = module.model.layers[0].mlp.up_proj.weight
    assert weight.numel() > 64
    for index in (0, weight.numel() - 1):
        kept = weight.data.view(-1)[index].clone()
        weight.data.view(-1)[index] += 1
        assert fingerprint_of(module) != start
        weight.data.view(-1)[index] = kept
    weight.data.add_(1e-3)
    assert fingerprint_of(module) != start


def test_sampled_indices_do_not_overflow() -> None:
    """Element numbers of a 7 B embedding times the sample size stay far below 2**63."""
    assert (fingerprint.SAMPLE - 1) * 262_144 * 16_384 < 2**63


# ---- as a property of ChatModel ----------------------------------------------------------------------------


def test_follows_training(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    start = model.fingerprint
    assert start == fingerprint_of(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    module(**model.encode(["hello"])).logits.square().mean().backward()
    optimizer.step()
    assert model.fingerprint == fingerprint_of(module) != start


def test_with_module_has_its_own(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    start = model.fingerprint
    wrapped = model.with_module(lora(share_parameters_copy(model).module))
    assert wrapped.fingerprint != start
    assert model.fingerprint == start


# ---- share_parameters_copy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_copy_shares_memory_and_nothing_else(family: str, tiny: Any) -> None:
    module, tokenizer = tiny(family, fresh=True)
    model = ChatModel.from_parts(module, tokenizer, name="original")
    before = {name: p.requires_grad for name, p in module.named_parameters()}
    paths = {name: type(part) for name, part in module.named_modules()}
    start = model.fingerprint
    answers = model.generate(["hello"], max_new_tokens=5)

    copied = share_parameters_copy(model)
    assert copied.module is not module
    here, there = dict(module.named_parameters()), dict(copied.module.named_parameters())
    assert here.keys() == there.keys()
    assert all(here[name].data_ptr() == there[name].data_ptr() for name in here)
    assert copied.fingerprint == start
    wrapped = lora(copied.module)
    wrapped.train()
    tuned = copied.with_module(wrapped)
    assert tuned.generate(["hello"], max_new_tokens=5) != answers

    assert {name: p.requires_grad for name, p in module.named_parameters()} == before
    assert {name: type(part) for name, part in module.named_modules()} == paths
    assert not module.training
    assert model.fingerprint == start
    assert model.generate(["hello"], max_new_tokens=5) == answers


def test_copy_keeps_ties(tiny: Any) -> None:
    module, tokenizer = tiny("llama", tie_word_embeddings=True)
    copied = share_parameters_copy(ChatModel.from_parts(module, tokenizer)).module
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
