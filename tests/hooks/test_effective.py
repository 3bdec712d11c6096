"""Effective weights and biases, and their difference to W0, under every adapter of the installed PEFT.

The reference is PEFT's own `merge_and_unload` of the whole model, and a forward pass that agrees with it.
"""

from __future__ import annotations

import re
from pathlib import Path

import peft
import pytest
import torch
from tiny_models import make_model
from tuners import LORA, LORA_REFUSED, REFUSED, attached, config_of, kinds, merged

from tamperlens_hooks import (
    HookError,
    TamperlensError,
    describe,
    effective_bias,
    effective_weight,
    logical_bias,
    logical_weight,
    merged_parameters,
    merged_weight,
    stored_parameter,
    unwrap,
    update_of,
    zeroed_entries,
)

IDS = torch.arange(5, 25)[None]
EXACT = [kind for kind in kinds() if kind not in REFUSED]


def family_of(kind):
    return "qwen2" if kind == "BEFT" else "llama"  # BEFT moves biases only


def settings_of(kind):
    return {"target_modules": ["q_proj", "v_proj"]} if kind == "BEFT" else {}


def assert_as_merged(base, model, *, rewritten=False):
    """Weights, biases, differences to the base, and every other parameter, as in the merged model."""
    truth = merged(model)
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=IDS).logits, truth(input_ids=IDS).logits, atol=2e-4, rtol=1e-3
        )
    anatomy = describe(model)
    assert anatomy == describe(base)
    for part in anatomy.projections():
        after, before = logical_weight(truth, part).detach(), logical_weight(base, part).detach()
        torch.testing.assert_close(effective_weight(model, part), after, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(
            merged_weight(model, part), truth.get_parameter(part.parameter).detach(), atol=2e-6, rtol=1e-5
        )
        update = update_of(model, part, base)
        assert torch.equal(update.weight, before)
        torch.testing.assert_close(update.delta(), after - before, atol=2e-6, rtol=1e-4)
        if not rewritten:
            assert torch.equal(update_of(model, part).delta(), update.delta())
        found, bias = effective_bias(model, part), logical_bias(truth, part)
        assert (found is None) == (bias is None)
        if bias is not None:
            torch.testing.assert_close(found, bias.detach(), atol=2e-6, rtol=1e-5)
    for name, parameter in truth.named_parameters():
        path, _, leaf = name.rpartition(".")
        found = merged_parameters(model, path)
        torch.testing.assert_close(found[leaf], parameter.detach(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", EXACT)
def test_every_kind_reads_as_its_merged_model(kind):
    base = make_model(family_of(kind))
    model = attached(base, config_of(kind, family_of(kind), **settings_of(kind)))
    with torch.no_grad():
        assert (model(input_ids=IDS).logits - base(input_ids=IDS).logits).abs().max() > 1e-2
    assert_as_merged(base, model)


# The kinds that PEFT puts on GPT-2's transposed maps.
TRANSPOSED = [
    "ADALORA",
    "DEFT",
    "FOURIERFT",
    "FROD",
    "GRALORA",
    "HIRA",
    "IA3",
    "LORA",
    "OSF",
    "PVERA",
    "RANDLORA",
]
TRANSPOSED += ["TINYLORA", "UNILORA", "VBLORA", "VERA", "WAVEFT"]


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_fused_and_transposed_weights_too(kind):
    base = make_model("gpt2")
    assert_as_merged(base, attached(base, config_of(kind, "gpt2", fan_in_fan_out=True)))


@pytest.mark.parametrize("name", LORA)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_every_variant_of_lora_reads_as_its_merged_model(name, family):
    if family == "gpt2" and name in ("target_parameters", "OLoRA"):
        pytest.skip("PEFT: for weights stored [out, in]")
    base = make_model(family, tie_word_embeddings=False)
    model = attached(base, config_of("LORA", family, **LORA[name]))
    assert_as_merged(base, model, rewritten=name in ("PiSSA", "PiSSA, fast", "OLoRA"))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_biases_of_adapters_count_also_where_the_layer_has_none(family):
    base = make_model(family)
    model = attached(base, config_of("LORA", family, lora_bias=True))
    for part in describe(model).projections():
        layer = unwrap(model).get_submodule(part.module)
        x = torch.randn(4, part.d_in, generator=torch.Generator().manual_seed(3))
        rows = list(part.rows) if isinstance(part.rows, tuple) else part.rows
        with torch.no_grad():
            found = torch.nn.functional.linear(x, effective_weight(model, part), effective_bias(model, part))
            torch.testing.assert_close(found, layer(x)[:, rows], atol=1e-5, rtol=1e-5)
    assert effective_bias(model, describe(model).projection("q", 0)).abs().max() > 0


@pytest.mark.parametrize("name", ["PiSSA", "PiSSA, fast", "OLoRA"])
def test_a_base_that_the_adapter_has_rewritten_is_no_origin(name):
    base = make_model("llama")
    model = attached(base, config_of("LORA", "llama", **LORA[name]))
    part = describe(model).projection("q", 0)
    with pytest.raises(HookError, match=r"has rewritten the base weight.*give the model before as base"):
        update_of(model, part)
    assert update_of(model, part, base).row_squares().sum() > 0
    assert update_of(model, describe(model).projection("k", 0)).row_squares().sum() == 0


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_without_a_fixed_weight_are_refused_in_one_line(kind, tmp_path):
    base = make_model("llama")
    model = xlora(base, str(tmp_path)) if kind == "XLORA" else attached(base, config_of(kind, "llama"))
    for read in (update_of, effective_weight, effective_bias, merged_weight):
        with pytest.raises(TamperlensError, match=r"prompt-learning adapter|no effective weight") as caught:
            read_all(model, read)
        assert "\n" not in str(caught.value)


def read_all(model, read):
    for part in describe(model).projections():
        read(model, part)


def xlora(base, folder):
    base.config.use_cache = False
    attached(base, config_of("LORA", "llama")).save_pretrained(folder)
    return attached(base, peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=48, adapters={"one": folder}))


@pytest.mark.parametrize("name", LORA_REFUSED)
def test_variants_that_depend_on_the_prompt_are_refused(name):
    model = attached(make_model("llama"), config_of("LORA", "llama", **LORA_REFUSED[name]))
    part = describe(model).projection("q", 0)
    for read in (update_of, effective_weight, effective_bias, merged_weight):
        with pytest.raises(HookError, match="no effective weight"):
            read(model, part)


def test_an_adapter_whose_merge_is_not_what_it_computes_is_refused(monkeypatch):
    model = attached(make_model("llama"), config_of("VERA", "llama"))
    part = describe(model).projection("q", 0)
    layer = unwrap(model).get_submodule(part.module)
    right = type(layer).get_delta_weight
    monkeypatch.setattr(type(layer), "get_delta_weight", lambda self, name: 1.1 * right(self, name))
    with pytest.raises(HookError, match="no fixed linear map"):
        effective_weight(model, part)


@pytest.mark.parametrize("first", ["LORA", "IA3"])
def test_several_adapters_and_those_switched_off(first):
    base = make_model("llama")
    config = config_of(first, "llama")
    model = attached(base, config)
    model.add_adapter("second", config_of(first, "llama", target_modules=["o_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".second" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    for active in ("default", "second", ["default", "second"]):
        model.base_model.set_adapter(active)
        assert_as_merged(base, model)
    with model.disable_adapter():
        for part in describe(model).projections():
            assert torch.equal(effective_weight(model, part), logical_weight(base, part))
            assert update_of(model, part).row_squares().sum() == 0
    model.merge_adapter()
    part = describe(model).projection("o", 1)
    with pytest.raises(HookError, match="has its adapter merged"):
        update_of(model, part)
    merged_delta = update_of(model, part, base).delta()
    model.unmerge_adapter()
    torch.testing.assert_close(merged_delta, update_of(model, part, base).delta(), atol=2e-6, rtol=1e-4)


def test_beside_a_merged_adapter_no_other_counts():
    """PEFT computes a layer with a merged adapter by its weight alone, whatever else is active."""
    model = attached(make_model("llama"), config_of("LORA", "llama"))
    model.add_adapter("second", config_of("LORA", "llama", init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])
    model.merge_adapter(["default"])
    part = describe(model).projection("o", 1)
    layer = model.base_model.model.get_submodule(part.module)
    x = torch.randn(3, layer.in_features)
    torch.testing.assert_close(x @ effective_weight(model, part).T, layer(x), atol=1e-5, rtol=1e-5)


def test_adapters_of_different_kinds_at_once():
    base = make_model("llama")
    model = peft.get_peft_model(make_model("llama"), config_of("LOHA", "llama"), mixed=True)
    model.add_adapter("second", config_of("LORA", "llama", init_lora_weights=False))
    model.set_adapter(["default", "second"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    assert_as_merged(base, model.eval())


def test_reading_leaves_the_model_and_its_hooks_alone():
    base = make_model("llama")
    model = attached(base, config_of("OFT", "llama"))
    part = describe(model).projection("o", 0)
    layer = unwrap(model).get_submodule(part.module)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    held = {name: value.clone() for name, value in model.state_dict().items()}
    effective_weight(model, part), update_of(model, part, base), effective_bias(model, part)
    assert calls == [] and not layer.merged
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())


def test_a_small_difference_in_half_precision_is_not_rounded_away():
    base = make_model("llama").to(torch.bfloat16)
    model = attached(base, config_of("LOHA", "llama"))
    part = describe(model).projection("up", 0)
    layer = unwrap(model).get_submodule(part.module)
    delta = layer.get_delta_weight("default").detach().float()
    torch.testing.assert_close(update_of(model, part, base).delta(), delta, atol=1e-6, rtol=2e-2)
    coarse = (
        effective_weight(model, part).float() - logical_weight(base, part).float() - delta
    ).norm() / delta.norm()
    fine = (update_of(model, part, base).delta() - delta).norm() / delta.norm()
    assert fine < 0.1 * coarse


@pytest.mark.parametrize("kind", ["LORA", "IA3", "OFT", "LOHA"])
def test_entries_of_the_merged_weight_are_set_to_zero(kind):
    base = make_model("llama")
    model = attached(base, config_of(kind, "llama", modules_to_save=["k_proj"]))
    anatomy = describe(model)
    parts = [anatomy.projection(name, 1) for name in ("q", "k", "down")]
    flags = {
        part.parameter: torch.rand(
            stored_parameter(model, part.parameter).shape, generator=torch.Generator().manual_seed(2)
        )
        < 0.3
        for part in parts
    }
    truth = merged(model)
    with torch.no_grad():
        for name, chosen in flags.items():
            truth.get_parameter(name).masked_fill_(chosen, 0)
        before = model(input_ids=IDS).logits
        with zeroed_entries(model, flags):
            found = model(input_ids=IDS).logits
        torch.testing.assert_close(found, truth(input_ids=IDS).logits, atol=1e-4, rtol=1e-3)
        assert (found - before).abs().max() > 0.05
        assert torch.equal(model(input_ids=IDS).logits, before)


def test_the_page_lists_every_kind_of_the_installed_peft():
    page = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
    rows = {
        line.split("|")[1].strip(): line
        for line in page.splitlines()
        if line.startswith(("| exact |", "| ref"))
    }
    for kind in kinds():
        row = rows["refused by name" if kind in REFUSED else "exact"]
        assert re.search(rf"\b{kind}\b", row), f"definitions.md does not list {kind}"
