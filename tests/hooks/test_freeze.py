"""Frozen entries: the merged weight is W0 there, bit for bit; the rest trains as the definition says."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tamperlens_hooks import HookError, describe, effective_weight, unwrap
from tamperlens_hooks.freeze import FrozenValues, freeze_adapter, held_delta
from tamperlens_hooks.lowrank import update_of

INTS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(INTS[tensor.dtype])


def adapted(model, family: str, **settings):
    names = list(dict.fromkeys(p.module.rpartition(".")[2] for p in describe(model).projections(0)))
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=names, fan_in_fan_out=family == "gpt2", **settings)
    return get_peft_model(model, config)


def random_flags(model, share: float, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for part in describe(model).projections():
        weight = unwrap(model).get_parameter(part.parameter)
        found.setdefault(part.parameter, torch.rand(weight.shape, generator=generator) < share)
    return found


def train(model, steps: int = 3, accumulation: int = 2) -> None:
    model.train()
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=2e-2, weight_decay=0.1)
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for _ in range(accumulation):
            ids = torch.randint(5, 200, (2, 12), generator=generator)
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3", "qwen2"])
def test_merged_is_bitwise_the_original(tiny, family: str, dtype: torch.dtype) -> None:
    model, _ = tiny(family, dtype=dtype)
    with torch.no_grad():  # negative zeros are bits too
        for part in describe(model).projections():
            model.get_parameter(part.parameter)[:2, ::3] = -0.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flags = random_flags(model, 0.3)
    first = next(iter(flags))
    flags[first] = torch.rand(flags[first].shape, generator=torch.Generator().manual_seed(5)) < 0.01
    peft = adapted(model, family)
    peft.enable_input_require_grads()
    peft.gradient_checkpointing_enable({"use_reentrant": False})
    handle = freeze_adapter(peft, flags)
    assert set(handle.paths.values()) == {"sparse", "blocks"}
    assert handle.count == sum(int(f.sum()) for f in flags.values())
    train(peft)
    anatomy = describe(peft)
    for part in anatomy.projections():  # as the rest of the library reads it
        mine = effective_weight(peft, part)
        held = flags[part.parameter][part.index]
        held = held.T if part.transposed else held
        old = anatomy.logical_weight(peft, part).detach()
        assert torch.equal(bits(mine)[held], bits(old)[held])
        assert not torch.equal(mine[~held], old[~held])
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        unmerged = peft(input_ids=ids).logits.float()
        merged = peft.merge_and_unload()
        after = dict(merged.named_parameters())
        if dtype == torch.float32:
            torch.testing.assert_close(merged(input_ids=ids).logits.float(), unmerged, rtol=1e-3, atol=2e-4)
    for name, held in flags.items():
        assert torch.equal(bits(after[name].detach())[held], bits(before[name])[held])
        assert (after[name].detach()[~held] != before[name][~held]).float().mean() > 0.3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99, 1.0, "rows and columns"])
@pytest.mark.parametrize("path", ["auto", "sparse", "blocks"])
def test_forward_and_gradients_are_those_of_the_definition(tiny, share, path: str) -> None:
    """Literal: autograd through x (W0 + (1 − M) ⊙ sBA)ᵀ."""
    model, _ = tiny("llama", fresh=True)
    peft = adapted(model, "llama").double()
    layer = unwrap(peft).model.layers[1].mlp.up_proj
    torch.manual_seed(1)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    b.data.normal_()
    weight = layer.base_layer.weight
    if share == "rows and columns":
        flags = torch.zeros(weight.shape, dtype=torch.bool)
        flags[::5] = flags[:, 3::7] = True
    else:
        flags = torch.rand(weight.shape) < share
    handle = freeze_adapter(peft, {"model.layers.1.mlp.up_proj.weight": flags}, path)
    if path == "auto":
        free = share in (0.0, 1.0, "rows and columns")
        expected = "free" if free else "blocks" if share == 0.3 else "sparse"
        assert list(handle.paths.values()) == [expected]
    x = torch.randn(2, 7, weight.shape[1], dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 7, weight.shape[0], dtype=torch.float64)
    found = layer(x)
    mine = torch.autograd.grad(found, [x, a, b], g)
    literal = x @ (weight + (b @ a * 2.0) * ~flags).T
    theirs = torch.autograd.grad(literal, [x, a, b], g)
    torch.testing.assert_close(found, literal)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_is_that_of_plain_lora(tiny) -> None:
    """The same random state drops the same inputs, with or without (empty) flags."""
    model, _ = tiny("llama", fresh=True)
    peft = adapted(model, "llama", lora_dropout=0.5)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    peft.train()
    ids = torch.randint(5, 200, (2, 9))
    torch.manual_seed(4)
    plain = peft(input_ids=ids).logits
    freeze_adapter(peft, random_flags(model, 0.0), "blocks")
    torch.manual_seed(4)
    torch.testing.assert_close(peft(input_ids=ids).logits, plain, rtol=1e-4, atol=1e-4)


def test_save_and_load(tiny, tmp_path) -> None:
    """PEFT's own format; with the flags put back the loaded model is the same, without them it is not."""
    model, _ = tiny("gpt2", fresh=True)
    original = copy.deepcopy(model)
    flags = random_flags(model, 0.2)
    peft = adapted(model, "gpt2")
    freeze_adapter(peft, flags)
    train(peft)
    peft.save_pretrained(tmp_path)
    ids = torch.randint(5, 200, (1, 9))
    with torch.no_grad():
        expected = peft(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(original, tmp_path).eval()
        assert (loaded(input_ids=ids).logits - expected).abs().max() > 1e-3
        handle = freeze_adapter(loaded, flags)
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected)
        handle.remove()
        assert (loaded(input_ids=ids).logits - expected).abs().max() > 1e-3


def test_drift_sees_the_frozen_entries(tiny) -> None:
    model, _ = tiny("phi3", fresh=True)
    flags = random_flags(model, 0.4)
    peft = adapted(model, "phi3")
    freeze_adapter(peft, flags)
    train(peft, steps=1)
    part = describe(peft).projection("v", 1)
    held = flags[part.parameter][part.index]
    delta = update_of(peft, part).delta()
    assert not delta[held].any()
    assert delta[~held].abs().min() >= 0
    assert delta[~held].any()


def test_copies_keep_their_freeze(tiny) -> None:
    model, _ = tiny("llama", fresh=True)
    peft = adapted(model, "llama")
    freeze_adapter(peft, random_flags(model, 0.3))
    train(peft, steps=1)
    ids = torch.randint(5, 200, (1, 9))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(peft)(input_ids=ids).logits, peft(input_ids=ids).logits)


def test_minus_zero_is_the_neutral_element() -> None:
    old = torch.tensor([[0.0, -0.0, 1.5, -2.5]])
    delta = held_delta(torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool))
    assert torch.equal(bits(old + delta), bits(old))


def test_full_training_with_decay_and_momentum(tiny) -> None:
    model, _ = tiny("gpt2", fresh=True)
    original = copy.deepcopy(model)
    flags = random_flags(model, 0.25)
    held = FrozenValues(model, flags, original)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    for step in range(3):
        ids = torch.randint(5, 200, (2, 10), generator=torch.Generator().manual_seed(step))
        model(input_ids=ids, labels=ids).loss.backward()
        for name, chosen in flags.items():
            assert not model.get_parameter(name).grad[chosen].any()
        optimizer.step()
        moved = any(
            not torch.equal(model.get_parameter(n)[f], original.get_parameter(n)[f]) for n, f in flags.items()
        )
        assert moved  # decay alone moves them: that is why they are restored
        held.restore()
        optimizer.zero_grad()
        for name, chosen in flags.items():
            new, old = model.get_parameter(name).detach(), original.get_parameter(name).detach()
            assert torch.equal(bits(new)[chosen], bits(old)[chosen])
            assert not torch.equal(new[~chosen], old[~chosen])
    held.remove()


def test_refusals(tiny) -> None:
    model, _ = tiny("llama", fresh=True)
    flags = random_flags(model, 0.1)
    with pytest.raises(HookError, match="no LoRA adapter"):
        freeze_adapter(model, flags)
    dora = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    with pytest.raises(HookError, match="DoRA"):
        freeze_adapter(dora, flags)
    peft = adapted(model, "llama")
    with pytest.raises(HookError, match="whole rows and columns"):
        freeze_adapter(peft, flags, "free")
    name = "model.layers.0.mlp.up_proj.weight"
    with pytest.raises(HookError, match="flags of"):
        freeze_adapter(peft, {name: flags[name].T})
    with pytest.raises(HookError, match="path is"):
        freeze_adapter(peft, flags, "fast")
