"""Every adapter that the installed PEFT offers, on tiny models, trained a little."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tiny_models import make_model

LINEAR = {
    "llama": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],  # biases on q, k and v
    "gpt2": ["c_attn", "c_proj", "c_fc"],  # fused, transposed, biases everywhere
}
PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")
VIRTUAL: dict[str, Any] = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}

# What a kind needs beside `target_modules`; other kinds take their defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "LORA": {"r": 4},
    "ADALORA": {"init_r": 6, "target_r": 4, "total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2, "target_modules": None},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "CARTRIDGE": VIRTUAL,
    "CPT": {"cpt_token_ids": [5, 6], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2], **VIRTUAL},
    "FOURIERFT": {"n_frequency": 50},
    "FROD": {},
    "HRA": {"r": 4},
    "IA3": {"feedforward_modules": ["down_proj", "c_fc"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm", "ln_1", "ln_f"]},
    "MISS": {"r": 8},
    "MULTITASK_PROMPT_TUNING": VIRTUAL,
    "OFT": {"oft_block_size": 8},
    "P_TUNING": VIRTUAL,
    "PREFIX_TUNING": VIRTUAL,
    "PROMPT_TUNING": VIRTUAL,
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "SHADOW": {"target_modules": None, "shadow_num_hidden_layers": 1},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens", "wte"], "token_indices": [1, 2, 7]},
    "VBLORA": {"num_vectors": 30, "vector_length": 4, "r": 2, "topk": 2},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 50},
}
# Kinds that change what a model computes by more than weights, or by weights that depend on the input.
REFUSED = (*PROMPTS, "ADAPTION_PROMPT", "LILY", "POLY", "SHADOW", "XLORA")

LORA: dict[str, dict[str, Any]] = {
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "PiSSA, fast": {"init_lora_weights": "pissa_niter_4"},
    "OLoRA": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "MiCA": {"init_lora_weights": "mica"},
    "EVA": {"init_lora_weights": "eva"},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "modules_to_save: a projection": {
        "modules_to_save": ["down_proj", "c_fc"],
        "target_modules": ["q_proj", "c_attn"],
    },
    "modules_to_save: an MLP": {"modules_to_save": ["mlp"], "target_modules": ["q_proj", "c_attn"]},
    "modules_to_save: the unembedding": {"modules_to_save": ["lm_head"]},
    "trainable tokens": {"trainable_token_indices": [1, 2, 7]},
    "embeddings": {"target_modules": ["embed_tokens", "wte", "q_proj", "c_attn"]},
    "target_parameters": {"target_modules": ["q_proj"], "target_parameters": ["down_proj.weight"]},
    "VeLoRA": {"velora_config": peft.VeloraConfig(num_groups=4)} if hasattr(peft, "VeloraConfig") else {},
}
LORA_REFUSED = {"aLoRA": {"alora_invocation_tokens": [5, 6]}}


def kinds() -> list[str]:
    """Names of every kind that the installed PEFT registers."""
    return sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


def config_of(kind: str, family: str, **settings: Any) -> Any:
    """A configuration for a tiny model."""
    cls = next(cls for one, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items() if one.value == kind)
    known = {"task_type": "CAUSAL_LM", "target_modules": LINEAR[family], **SETTINGS.get(kind, {}), **settings}
    names = cls.__dataclass_fields__
    known = {name: value for name, value in known.items() if name in names and value is not None}
    for name in ("target_modules", "modules_to_save", "feedforward_modules"):
        if isinstance(known.get(name), list):
            present = {part.rpartition(".")[2] for part, _ in make_model(family).named_modules()}
            known[name] = [one for one in known[name] if one in present]
    return cls(**known)


def attached(base: Any, config: Any, seed: int = 1) -> Any:
    """The base (a copy of it) with an adapter, every trainable number moved by 0.05 N(0, 1)."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = peft.get_peft_model(copy.deepcopy(base), config).eval()
        trained_a_little(model)
    return model


@torch.no_grad()
def trained_a_little(model: Any) -> None:
    """Move every trainable number by 0.05 N(0, 1)."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.05 * torch.randn_like(parameter))


def merged(model: Any) -> Any:
    """PEFT's own merge of a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(model).merge_and_unload()


if __name__ == "__main__":
    for kind in kinds():
        print(f"{kind:25}{'refused' if kind in REFUSED else 'exact'}")
