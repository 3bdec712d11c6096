"""What `run` was given: brought into one form, and refused where it does not fit the model."""

from __future__ import annotations

import dataclasses

import torch

from tamperlens.base.errors import InputError
from tamperlens.finetune.attacks import Attack
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.defending import is_quantised
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts, warn_of_language
from tamperlens_hooks import unwrap

Config = LoraConfig | FullConfig

SPARE_RANK = 4096
"""No rank above this and above the widest matrix: it could teach nothing more, and takes the memory."""


def settle(
    model: ChatModel, data: PromptsLike | Attack, config: Config | None, seed: int | None
) -> tuple[PromptSet, Config]:
    """The prompts and the settings, whatever way they were given."""
    if isinstance(data, Attack):
        config = data.config_for(model) if config is None else config
        data = data.data
    data = as_prompts(data, what="data")
    warn_of_language(model, data, "which it is trained on")
    if config is None:
        raise InputError(
            "no config given; pass finetune.LoraConfig(...), finetune.FullConfig(...) or an Attack"
        )
    if not isinstance(config, (LoraConfig, FullConfig)):
        raise InputError(f"config is a {type(config).__name__}; give a LoraConfig or a FullConfig")
    return data, config if seed is None else dataclasses.replace(config, seed=seed)


def check_fit(model: ChatModel, config: Config) -> None:
    """Refuse what cannot be trained, before anything slow.

    Raises:
        InputError: an adapter, offloaded or quantised weights, a precision that the model
            or its device cannot give.
    """
    if unwrap(model.module) is not model.module or any(
        hasattr(part, "lora_A") for part in model.module.modules()
    ):
        raise InputError(
            f"{model.name} carries an adapter; fine-tune its base, or go on from TunedModel.merged_model()"
        )
    away = next((name for name, p in model.module.named_parameters() if p.is_meta), None)
    if away is not None:
        raise InputError(
            f"{away} of {model.name} is offloaded and cannot be trained through; load the model with a "
            "device_map whose devices hold it whole, or with quantization='4bit' for LoRA"
        )
    if config.precision == "float16" and model.device.type != "cuda":
        raise InputError(
            f"precision='float16' needs a CUDA device, {model.name} is on {model.device}; use bfloat16"
        )
    widest = max((max(p.shape) for p in model.module.parameters() if p.dim() > 1), default=0)
    if isinstance(config, LoraConfig) and config.rank > max(widest, SPARE_RANK):
        raise InputError(
            f"rank={config.rank} is above every matrix of {model.name} ({widest}); give a smaller one"
        )
    half = model.dtype in (torch.float16, torch.bfloat16)
    if isinstance(config, LoraConfig) and config.precision == "float32" and half:
        raise InputError(
            f"precision='float32' on {model.name}, which is held in "
            f"{str(model.dtype).removeprefix('torch.')}; load it with dtype='float32'"
        )
    if model.dtype == torch.float16 and model.device.type != "cuda":
        raise InputError(f"{model.name} is held in float16 on {model.device}; load it in float32 or bfloat16")
    if isinstance(config, FullConfig) and is_quantised(model):
        raise InputError(f"{model.name} is quantised; load it without quantization, or use LoraConfig")
