"""The numeric check passes where the anatomy is right, and names the module where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fingerprints import differences, module_print
from tiny_models import FAMILIES, POST_NORM_FAMILIES, make_model
from torch import nn

from tamperlens_hooks import AnatomyError, check, describe

NAMES = {"heads", "weights", "values", "mlp", "norms", "residual", "final"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_and_is_left_as_it_was(tiny, family):
    model, _ = tiny(family, fresh=True)
    model.train()
    model.get_submodule(describe(model).blocks[1]).eval()  # a mixed state must come back mixed
    before = module_print(model)
    errors = check(model, describe(model))
    assert differences(before, module_print(model)) == []
    assert set(errors) == NAMES
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_passes(tiny, family):
    model, _ = tiny(family, dtype=torch.bfloat16)
    assert max(check(model, describe(model)).values()) < 0.05


def tampered(anatomy, **changes):
    """The same anatomy with every projection of the given names changed."""
    return replace(
        anatomy, maps=tuple(replace(p, **changes[p.name]) if p.name in changes else p for p in anatomy.maps)
    )


def test_gpt_neox_read_as_three_thirds(tiny):
    model, _ = tiny("gpt_neox")
    anatomy = describe(model)
    thirds = {"q": slice(0, 48), "k": slice(48, 96), "v": slice(96, 144)}
    with pytest.raises(AnatomyError, match=r"gpt_neox\.layers\.0\.attention\.query_key_value .*values"):
        check(model, tampered(anatomy, **{name: {"rows": rows} for name, rows in thirds.items()}))


def test_gpt2_read_as_linear(tiny):
    model, _ = tiny("gpt2")
    with pytest.raises(AnatomyError, match=r"transformer\.h\.0\.attn\.c_proj\.weight .*weights"):
        check(model, tampered(describe(model), o={"transposed": False}))


def test_phi3_halves_swapped(tiny):
    model, _ = tiny("phi3")
    wrong = tampered(describe(model), gate={"rows": slice(80, 160)}, up={"rows": slice(0, 80)})
    with pytest.raises(AnatomyError, match=r"model\.layers\.0\.mlp .*\(mlp:"):
        check(model, wrong)


def test_grouped_values_read_with_the_wrong_head_width(tiny):
    model, _ = tiny("llama")
    anatomy = replace(describe(model), n_heads=3, d_head=16, n_kv_heads=1)
    with pytest.raises(AnatomyError, match=r"model\.layers\.0\.self_attn\.v_proj .*values"):
        check(model, anatomy)


@pytest.mark.parametrize("family", POST_NORM_FAMILIES)
def test_a_post_norm_ignored(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    with pytest.raises(AnatomyError, match=r"model\.layers\.0 .*residual"):
        check(model, replace(anatomy, attention_writes=anatomy.attention))
    with pytest.raises(AnatomyError, match=r"model\.layers\.0 .*residual"):
        check(model, replace(anatomy, mlp_writes=anatomy.mlp))


@pytest.mark.parametrize("family", ["gpt_neox", "gpt_neox_sequential", "llama"])
def test_parallel_and_sequential_confused(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    with pytest.raises(AnatomyError, match=r"post_attention_layernorm .*norms"):
        check(model, replace(anatomy, parallel=not anatomy.parallel))


def test_a_scaled_residual_stream_is_noticed():
    """Granite multiplies what it writes: structure alone cannot see that, the numbers do."""
    from transformers import GraniteConfig, GraniteForCausalLM

    config = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 9,
    }
    model = GraniteForCausalLM(
        GraniteConfig(**config, num_key_value_heads=2, residual_multiplier=0.25)
    ).eval()
    with pytest.raises(AnatomyError, match=r"model\.layers\.0 does not compute .*residual"):
        check(model, describe(model))


def test_nan_weights_are_named(tiny):
    model, _ = tiny("qwen2", fresh=True)
    anatomy = describe(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    before = module_print(model)
    with pytest.raises(AnatomyError, match=r"model\.layers\.1\.mlp\S* computes NaN or infinity"):
        check(model, anatomy)
    assert differences(before, module_print(model)) == []


def test_a_block_that_does_not_run_is_named(tiny):
    model, _ = tiny("llama", fresh=True)
    model.config.num_hidden_layers = 2  # transformers runs layers[:num_hidden_layers]
    with pytest.raises(AnatomyError, match=r"model\.layers\.2\S* did not run"):
        check(model, describe(model))


def test_a_module_that_does_more_than_its_weight_is_named(tiny):
    class Doubling(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model, _ = tiny("llama", fresh=True)
    model.model.layers[2].mlp.up_proj = Doubling(48, 80, bias=False)
    with pytest.raises(AnatomyError, match=r"model\.layers\.2\.mlp\.up_proj\.weight .*weights"):
        check(model, describe(model))


@pytest.mark.parametrize("positions", [1, 11])
def test_models_of_few_positions_are_checked_within_them(positions):
    model = make_model("gpt2", n_positions=positions)
    assert check(model, describe(model))["heads"] < 1e-4
