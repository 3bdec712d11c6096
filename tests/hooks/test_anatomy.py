"""Describing: sizes, places and maps of every family; refusals that name what could not be placed."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from tiny_models import CONFIGS, FAMILIES, POST_NORM_FAMILIES, left_padded_batch, make_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tamperlens_hooks import (
    AnatomyError,
    HookError,
    UnsupportedModelError,
    capture,
    check,
    describe,
    logical_bias,
    logical_weight,
    residual_means,
    unwrap,
)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
MOE = {
    "mixtral": {"num_local_experts": 4, "num_key_value_heads": 2},
    "qwen2_moe": {"num_experts": 4, "num_key_value_heads": 2, "moe_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 4, "num_key_value_heads": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "olmoe": {"num_experts": 4, "num_key_value_heads": 2},
    "gpt_oss": {"num_local_experts": 4, "num_key_value_heads": 2, "head_dim": 8},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "moe_intermediate_size": 16,
    },
}


def from_config(kind: str, auto=AutoModelForCausalLM, **settings):
    with torch.random.fork_rng(devices=[]):
        return auto.from_config(AutoConfig.for_model(kind, pad_token_id=0, **settings)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_configuration(tiny, family):
    model, _ = tiny(family)
    anatomy, config = describe(model), model.config
    assert anatomy.family == CONFIGS[family][0]
    assert (anatomy.n_layers, anatomy.d_model) == (config.num_hidden_layers, config.hidden_size)
    assert anatomy.n_heads == config.num_attention_heads
    assert anatomy.n_kv_heads == (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert anatomy.d_head == d_head
    assert anatomy.d_mlp == (getattr(config, "intermediate_size", None) or config.n_inner)
    assert anatomy.d_vocab == config.vocab_size
    assert anatomy.post_norm == (family in POST_NORM_FAMILIES)
    assert anatomy.parallel == (family == "gpt_neox")
    assert model.get_submodule(anatomy.unembedding) is model.get_output_embeddings()
    assert model.get_submodule(anatomy.embedding) is model.get_input_embeddings()
    assert model.get_submodule(anatomy.decoder) is model.get_decoder()


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_name_parameters_and_cover_each_block_matrix_once(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    parameters = dict(model.named_parameters())
    counted = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for part in anatomy.projections():
        counted[part.parameter][part.index] += 1
        assert logical_weight(model, part).shape == (part.d_out, part.d_in)
    covered = {name for name, count in counted.items() if count.any()}
    assert covered == {
        name for name, p in parameters.items() if p.ndim == 2 and anatomy.blocks[0][:-1] in name
    }
    assert all((counted[name] == 1).all() for name in covered)
    names = [part.name for part in anatomy.projections(0)]
    gate = [] if family.startswith("gpt") else ["gate"]
    assert names == ["q", "k", "v", "o", *gate, "up", "down"]
    assert anatomy == describe(model)
    assert hash(anatomy) == hash(describe(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_are_what_attention_and_mlp_really_use(tiny, family, monkeypatch):
    """At position 0 RoPE turns nothing: what reaches the attention function is W x + b (or its norm)."""
    model, _ = tiny(family, attn_implementation="eager")
    anatomy = describe(model)
    source = importlib.import_module(type(model).__module__)
    plain, received = source.eager_attention_forward, []

    def recording(module, query, key, value, *args, **kwargs):
        received.append((query, key, value))
        return plain(module, query, key, value, *args, **kwargs)

    monkeypatch.setattr(source, "eager_attention_forward", recording)
    inputs = {}

    def keep(name):
        return lambda module, args: inputs.update({name: args[0]})

    for layer in range(anatomy.n_layers):
        for part in anatomy.projections(layer):
            model.get_submodule(part.module).register_forward_pre_hook(keep((part.name, layer)))
        mlp = model.get_submodule(anatomy.mlp[layer])
        for name in ("act_fn", "activation_fn", "act"):
            if hasattr(mlp, name):
                getattr(mlp, name).register_forward_pre_hook(keep(("activation", layer)))
                getattr(mlp, name).register_forward_hook(
                    lambda m, a, out, i=layer: inputs.update({("acted", i): out})
                )
    ids = torch.randint(5, 261, (2, 9), generator=torch.Generator().manual_seed(2))
    batch = {"input_ids": ids, "position_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), capture(model, anatomy, sites=["head_z"]) as tape:
        model(**batch, use_cache=False)
    assert len(received) == anatomy.n_layers

    for layer in range(anatomy.n_layers):

        def computed(name, layer=layer):
            part = anatomy.projection(name, layer)
            y = inputs[name, layer] @ logical_weight(model, part).T
            bias = logical_bias(model, part)
            return (y if bias is None else y + bias).detach()

        attention = model.get_submodule(anatomy.attention[layer])
        for name, got in zip("qkv", received[layer], strict=True):
            expected = computed(name)
            norm = getattr(attention, f"{name}_norm", None)
            heads = expected.unflatten(-1, (-1, anatomy.d_head))
            if norm is not None:  # OLMo-2 norms all heads together, Qwen3 and Gemma 3 each head
                heads = (
                    norm(heads) if norm.weight.numel() == anatomy.d_head else norm(expected).view_as(heads)
                )
            torch.testing.assert_close(got, heads.transpose(1, 2).detach(), atol=1e-5, rtol=1e-4)
        # GQA: the z of head h mixes the values of key/value head h // group, here with weights from q and k
        q, k, v = received[layer]
        group = anatomy.n_heads // anatomy.n_kv_heads
        cap = getattr(model.config, "attn_logit_softcapping", None)
        for head in range(anatomy.n_heads):
            scores = q[:, head] @ k[:, head // group].transpose(-1, -2) * attention.scaling
            scores = cap * torch.tanh(scores / cap) if cap else scores
            weights = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(-1)
            z = tape["head_z"][layer][:, :, head]
            torch.testing.assert_close(z, weights @ v[:, head // group], atol=1e-5, rtol=1e-4)
        first = "up" if family.startswith("gpt") else "gate"
        torch.testing.assert_close(inputs["activation", layer], computed(first), atol=1e-5, rtol=1e-4)
        product = inputs["acted", layer] * (1 if first == "up" else computed("up"))
        torch.testing.assert_close(inputs["down", layer], product, atol=1e-5, rtol=1e-4)
        z = tape["head_z"][layer].flatten(-2)
        torch.testing.assert_close(inputs["o", layer], z)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3"])
def test_tempting_wrong_readings_of_fused_weights_differ(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    v = anatomy.projection("v", 0)
    right = logical_weight(model, v)
    stored = dict(model.named_parameters())[v.parameter]
    if family == "gpt2":
        wrong = stored.T[96:].T.reshape(48, 48)  # Conv1D not transposed
    elif family == "gpt_neox":
        wrong = stored[96:]  # the last third, as if q, k, v lay one after another
    else:
        wrong = stored.view(anatomy.n_heads + 2 * anatomy.n_kv_heads, anatomy.d_head, -1)[2::3].flatten(0, 1)
        wrong = wrong[: right.shape[0]]
    assert wrong.shape == right.shape
    assert (right - wrong).abs().max() > 0.1


def test_logical_weights_of_slices_are_views_and_carry_gradients(tiny):
    model, _ = tiny("phi3", fresh=True)
    part = describe(model).projection("k", 1)
    stored = dict(model.named_parameters())[part.parameter]
    assert logical_weight(model, part).untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()
    logical_weight(model, part).sum().backward()
    assert (stored.grad[part.index] == 1).all()
    assert stored.grad.sum() == part.d_out * part.d_in


@pytest.mark.parametrize("kind", MOE)
def test_sparse_experts_are_placed_and_have_no_dense_maps(kind):
    model = from_config(kind, **{**SMALL, **MOE[kind]})
    anatomy = describe(model)
    routed = [at for at in range(anatomy.n_layers) if "down" not in {p.name for p in anatomy.projections(at)}]
    assert routed
    for layer in routed:
        with pytest.raises(HookError, match="no projection 'down'"):
            anatomy.projection("down", layer)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: from_config("opt", ffn_dim=48, word_embed_proj_dim=32, **SMALL),
            r"MLP of model\.decoder\.layers\.0",
        ),
        (
            lambda: from_config("mamba", hidden_size=32, num_hidden_layers=1, vocab_size=64),
            r"blocks of Mamba",
        ),
        (
            lambda: from_config("llama", AutoModel, **SMALL),
            "unembedding of LlamaModel.*causal language model",
        ),
        (lambda: nn.Sequential(nn.Linear(3, 3)), "token embedding of Sequential"),
        (
            lambda: from_config(
                "t5",
                AutoModelForSeq2SeqLM,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=1,
                num_heads=4,
                vocab_size=64,
            ),
            "not supported yet: 't5' is an encoder-decoder",
        ),
    ],
)
def test_what_cannot_be_placed_is_named(make, words):
    with pytest.raises(AnatomyError, match=words) as error:
        describe(make())
    assert "\n" not in str(error.value)


def test_the_text_model_inside_a_multimodal_wrapper_is_found():
    text = dict(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=8)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    model = from_config("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    anatomy = describe(model)
    assert anatomy.family == "gemma3_text"
    assert anatomy.blocks == ("model.language_model.layers.0", "model.language_model.layers.1")
    assert anatomy.post_norm
    check(model, anatomy)
    batch = {key: value % 64 for key, value in left_padded_batch((5, 9)).items() if key != "position_ids"}
    with torch.no_grad(), capture(model, anatomy, ["resid_pre"], positions=[-1]) as tape:
        for row, length in ((0, 5), (1, 9)):
            model(input_ids=batch["input_ids"][row : row + 1, -length:])
    means, n = residual_means(model, anatomy, [batch], positions=[-1])
    assert n == 2
    torch.testing.assert_close(
        means, tape["resid_pre"].double().mean(1).transpose(0, 1), atol=1e-5, rtol=1e-4
    )


def test_wrappers_are_looked_through(tiny):
    model, _ = tiny("llama")
    assert unwrap(nn.DataParallel(model)) is model
    assert describe(nn.DataParallel(model)) == describe(model)


@pytest.mark.slow  # importing the compiler takes seconds
def test_compiled_models_are_looked_through(tiny):
    model, _ = tiny("llama")
    assert unwrap(torch.compile(model)) is model
    assert describe(torch.compile(model)) == describe(model)


def test_asking_for_what_is_not_there(tiny):
    model, _ = tiny("gpt2")
    anatomy = describe(model)
    with pytest.raises(HookError, match="no projection 'gate'; it has q, k, v, o, up, down"):
        anatomy.projection("gate", 0)
    with pytest.raises(HookError, match="layer 2 is out of range: the model has layers 0 to 1"):
        anatomy.projections(2)
    with pytest.raises(HookError, match="head 4 is out of range"):
        anatomy.head_slice(4)
    with pytest.raises(HookError, match=r"no parameter 'transformer.h.9.x.weight'"):
        logical_weight(model, replace(anatomy.projection("q", 0), parameter="transformer.h.9.x.weight"))


def test_uneven_blocks_are_refused():
    model = make_model("llama")
    model.model.layers[1].mlp.down_proj = nn.Linear(96, 48)
    model.model.layers[1].mlp.up_proj = nn.Linear(48, 96)
    model.model.layers[1].mlp.gate_proj = nn.Linear(48, 96)
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.1 has d_mlp 96, others 80"):
        describe(model)
    model.model.layers[1].mlp.gate_proj = nn.Linear(48, 80)
    with pytest.raises(AnatomyError, match=r"MLP maps of model\.layers\.1\.mlp"):
        describe(model)


class Packed(nn.Linear):
    """A quantised linear map as libraries build them: the weight is packed, `in_features` knows the shape."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.scale = linear.weight.abs().max() / 127
        packed = (linear.weight / self.scale).round().to(torch.int8).flatten()
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x):
        return x @ (self.weight.view(self.out_features, self.in_features).to(x) * self.scale).T


def test_quantised_weights_are_placed_and_read_but_not_shown(tiny):
    model, _ = tiny("llama", fresh=True)
    expected = describe(model)
    for block in model.model.layers:
        for parent, name in (
            (block.self_attn, "v_proj"),
            (block.self_attn, "o_proj"),
            (block.mlp, "up_proj"),
        ):
            setattr(parent, name, Packed(getattr(parent, name)))
    assert describe(model) == expected
    check(model, expected)
    with pytest.raises(
        HookError, match=r"v_proj\.weight is quantised \(torch\.int8\); load the model without"
    ):
        logical_weight(model, expected.projection("v", 0))
    logical_weight(model, expected.projection("q", 0))


def test_the_public_name_of_the_layer_is_complete():
    import tamperlens.hooks
    import tamperlens_hooks

    for name in tamperlens.hooks.__all__:
        assert getattr(tamperlens.hooks, name) is getattr(tamperlens_hooks, name)
    assert {"capture", "ablate_direction", "add_direction", "ablate_heads", "patch_heads"} <= set(
        tamperlens.hooks.__all__
    )
