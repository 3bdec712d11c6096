"""Sparse experts, linear attention and other newer architectures, small and random; what works on them."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import make_tokenizer, spread_weights
from transformers import AutoConfig, AutoModelForCausalLM

from tamperlens import heads, hooks, neurons, prompts
from tamperlens.directions.candidates import mean_activations
from tamperlens.models import ChatModel
from tamperlens.neurons.experts import expert_parameters
from tamperlens_hooks.errors import HookError

_S: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
    "pad_token_id": 0, "eos_token_id": 4, "bos_token_id": 1,
}  # fmt: skip
_LATENT = {name: value for name, value in _S.items() if name != "head_dim"}
_E = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GROUPED = {**_E, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "num_hidden_layers": 4,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip
_CONV = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
NEWER: dict[str, dict[str, Any]] = {
    "mixtral": {**_S, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**_S, **_E, "num_experts": 4, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**_S, **_E, "num_experts": 4},
    "gpt_oss": {**_S, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 24},
    "olmoe": {**_S, "num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {**_S, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {**_S, "num_local_experts": 4, "num_experts_per_tok": 2},
    "hunyuan_v1_moe": {**_S, "num_experts": 4, "moe_topk": 2},
    "minimax_m2": {**_S, "num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 8},
    "ernie4_5_moe": {**_S, **_E, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "glm4_moe": {**_S, **_GROUPED, "n_shared_experts": 1},
    "dots1": {**_S, **_GROUPED, "n_shared_experts": 1},
    "deepseek_v3": {
        **_LATENT, **_GROUPED, "num_key_value_heads": 6, "q_lora_rank": 16, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 8,
        "qk_nope_head_dim": 4,
    },
    "lfm2": {**_S, **_CONV, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {**_S, **_E, **_CONV, "num_experts": 4, "num_dense_layers": 1},
    "qwen3_next": {**_S, **_E, **_LINEAR, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "qwen3_5_text": {**_S, **_LINEAR},
    "qwen3_5_moe_text": {**_S, **_E, **_LINEAR, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "jamba": {
        **_S, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4,
        "num_experts_per_tok": 2, "use_mamba_kernels": False, "mamba_d_state": 8,
    },
    "bamba": {
        **_S, "num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_n_heads": 6, "mamba_d_head": 16,
        "mamba_d_state": 8, "mamba_n_groups": 1,
    },
    **dict.fromkeys(
        ("apertus", "arcee", "cohere2", "exaone4", "glm4", "granite", "helium", "nanochat", "nemotron",
         "olmo",
         "olmo3", "phi", "seed_oss", "smollm3", "stablelm", "starcoder2"), _S,
    ),
    "gptj": {"vocab_size": 264, "n_embd": 48, "n_layer": 2, "n_head": 6, "rotary_dim": 4, "n_positions": 512},
}  # fmt: skip
MEASURES = ("generation", "direction", "ablation", "SNIP", "SNIP of experts", "heads")
ASKED = ["Name a tree.", "What is 2 + 3, and why is it not 6?", "Hi"]


def make(family: str) -> ChatModel:
    """A small random model of a family, its anatomy checked by numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **NEWER[family])).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 3:  # stacks of experts, convolutions
                    parameter.normal_(0, 0.15)
            spread_weights(module)
    module.generation_config.pad_token_id, module.generation_config.eos_token_id = 0, 4
    return ChatModel.from_parts(module, make_tokenizer(), name=family)


def literal_experts(model: ChatModel, pairs: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """|W| ⊙ mean |dL/dW|: one example at a time, unpadded, `.grad` of every expert's stack."""
    sums = {name: torch.zeros_like(model.module.get_parameter(name)) for name in expert_parameters(model)}
    model.module.requires_grad_(True)
    for turn in model.encode_pairs(prompts.PromptSet.from_pairs(pairs, name="pairs")):
        model.module.zero_grad()
        ids, labels = torch.tensor([turn.input_ids]), torch.tensor(turn.labels)[1:]
        logits = model.module(input_ids=ids, use_cache=False).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100).backward()
        for name in sums:
            sums[name] += model.module.get_parameter(name).grad.abs()
    model.module.zero_grad()
    model.module.requires_grad_(False)
    return {n: s / len(pairs) * model.module.get_parameter(n).detach().abs() for n, s in sums.items()}


def last(logits: torch.Tensor) -> torch.Tensor:
    """One logit behind the last token."""
    return logits[..., 5].reshape(len(logits), -1)[:, -1]


def measured(model: ChatModel) -> dict[str, str]:
    """What each measure says on a model: "yes", or why not. Numbers that are wrong raise."""
    found = {}
    together = model.generate(ASKED, max_new_tokens=6)
    assert together == [model.generate([one], max_new_tokens=6)[0] for one in ASKED], "batched ≠ one by one"
    batch = model.encode(ASKED[:1])
    plain = model.module.generate(**batch, max_new_tokens=6, do_sample=False, eos_token_id=4, pad_token_id=0)
    new = plain[0, batch["input_ids"].shape[1] :].tolist()
    text = model.tokenizer.decode(new[: new.index(4)] if 4 in new else new, skip_special_tokens=True).strip()
    assert together[0] == text, "other text than transformers"
    found["generation"] = "yes"
    read = mean_activations(model, ASKED, positions=[-1])
    alone = torch.stack([mean_activations(model, [one], positions=[-1]) for one in ASKED]).mean(0)
    torch.testing.assert_close(read, alone, rtol=1e-3, atol=1e-3)
    found["direction"] = "yes"
    unit = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    unit = unit / unit.norm()
    with hooks.ablate_direction(model, unit), hooks.capture(model, ["resid_pre", "resid_post"]) as tape:
        model.module(**batch)
    seen = (tape["resid_pre"], tape["resid_post"])
    along = max(float((x @ unit).abs().max() / x.norm(dim=-1).max()) for x in seen)
    assert along < 1e-5, along
    found["ablation"] = "yes"
    pairs = [("Name a tree.", "An oak."), ("Hi", "Hello there."), ("And now?", "No.")]
    data = prompts.PromptSet.from_pairs(pairs, name="pairs")
    known = sorted({part.name for part in model.anatomy.projections()})
    try:
        neurons.snip(model, data)
        found["SNIP"] = "yes"
    except ValueError:
        found["SNIP"] = ", ".join(known) if known else "no"
        if known:
            neurons.snip(model, data, modules=known)
    if expert_parameters(model):
        scores = neurons.expert_snip(model, data).scores
        for name, wanted in literal_experts(model, pairs).items():
            torch.testing.assert_close(scores[name], wanted, rtol=1e-3, atol=1e-4 * float(wanted.max()))
        found["SNIP of experts"] = "yes"
    else:
        found["SNIP of experts"] = "–"
    try:
        heads.attribute(model, ASKED[:1], metric=last, method="ablate")
        found["heads"] = "yes"
    except HookError as error:
        if "has no heads here" not in str(error):
            raise
        some = [at for at, path in enumerate(model.anatomy.output_projections) if path]
        if some:
            with hooks.ablate_heads(model, [(some[0], 0)]):
                model.module(**batch)
        found["heads"] = f"ablation in {len(some)} of {model.n_layers} blocks" if some else "none"
    return found
