"""An adapter of every tuner and initialisation that the installed PEFT offers, trained a little and saved."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoftQConfig,
    LoraConfig,
    LoraGAConfig,
    PeftModel,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn

# What each tuner needs to be small enough for a tiny llama; the rest takes these two targets as it is.
TUNERS: dict[str, dict[str, Any]] = {
    "ADALORA": {"init_r": 4, "target_r": 2, "total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "PVERA": {"r": 8},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6], "target_modules": ["embed_tokens"]},
    "VBLORA": {"num_vectors": 16, "vector_length": 4, "topk": 2, "r": 2},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 20},
}
# These change no weight, or need more than tokens.
OTHERS = (
    "ADAPTION_PROMPT",
    "CARTRIDGE",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "POLY",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
    "SHADOW",
    "XLORA",
)
# Settings of LoRA: every initialisation, and what it carries beside its factors.
LORAS: dict[str, dict[str, Any]] = {
    "gaussian": {"init_lora_weights": "gaussian"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "corda": {"init_lora_weights": "corda"},
    "lora_ga": {"init_lora_weights": "lora_ga"},
    "loftq": {"init_lora_weights": "loftq"},
    "bias=all": {"bias": "all"},
    "bias=lora_only": {"bias": "lora_only"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "lora_bias": {"lora_bias": True},
    "modules_to_save": {"modules_to_save": ["up_proj"]},
    "modules_to_save=head": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 6]},
    "embeddings targeted": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    "parameters": {"target_parameters": ["mlp.up_proj.weight"]},
}


def tuner_names() -> list[str]:
    """Every tuner of the installed PEFT that changes weights."""
    return [kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind.value not in OTHERS]


def lora_names() -> list[str]:
    """Every setting of LoRA that can run here."""
    have = importlib.util.find_spec("bitsandbytes") is not None
    return [name for name in LORAS if have or name != "loftq"]


def tuner_config(name: str) -> Any:
    kinds = {kind.value: made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return kinds[name](
        **{"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"], **TUNERS.get(name, {})}
    )


def lora_config(name: str) -> LoraConfig:
    settings: dict[str, Any] = dict(LORAS[name])
    if name == "loftq":
        settings["loftq_config"] = LoftQConfig(loftq_bits=4)
    if name == "corda":
        settings["corda_config"] = CordaConfig(corda_method="kpm")
    if name == "lora_ga":
        settings["lora_ga_config"] = LoraGAConfig()
    return LoraConfig(
        **{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"]}
        | settings
    )


def save_trained(
    module: nn.Module, config: Any, folder: Path, *, seed: int, embeddings: bool = False
) -> None:
    """What training leaves: PEFT around a copy of the module, every trained number moved, saved by PEFT."""
    own: Any = copy.deepcopy(module)
    config = copy.deepcopy(config)
    tokens = torch.arange(5, 45).reshape(1, 40)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        kind = getattr(config, "init_lora_weights", None)
        if kind == "corda":
            preprocess_corda(own, config, run_model=lambda: own(tokens))
        if kind == "lora_ga":
            preprocess_loraga(own, config, lambda: own(tokens, labels=tokens).loss.backward())
        torch.manual_seed(seed)
        wrapped: Any = get_peft_model(own, config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in sorted(wrapped.named_parameters()):
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            if embeddings:
                wrapped.get_input_embeddings().weight.add_(0.05)
        wrapped.save_pretrained(folder, save_embedding_layers=embeddings)


def plain_peft(module: nn.Module, folder: Path) -> nn.Module:
    """The reference: PEFT alone, on a base of its own."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return PeftModel.from_pretrained(copy.deepcopy(module), folder).eval()
