"""What training a cell needs, before it is tried: a cell that cannot fit is skipped and named."""

from __future__ import annotations

from typing import Any

import torch

from tamperlens.finetune import FullConfig, LoraConfig, resolve_targets
from tamperlens.models import ChatModel, available_bytes

OPTIMISER_BYTES = 16
"""Bytes per trained weight: fp32 value, gradient, and AdamW's two moments."""
GB = 1e9


def training_bytes(model: ChatModel, config: LoraConfig | FullConfig, length: int) -> float:
    """Bytes that training needs beside the loaded model: what is trained, activations, logits.

    Activations by Korthikanti et al. 2022 (arXiv 2205.05198, eq. 2): s·b·h·(34 + 5·a·s/h) bytes a layer in
    half precision, twice that in fp32; a fifth where blocks are recomputed. Logits thrice in fp32.

    Args:
        model: the loaded base.
        config: of the training.
        length: tokens of the longest turn.
    """
    anatomy = model.anatomy
    b, s, h = config.batch_size, length, anatomy.d_model
    wide = 2 if model.module.dtype == torch.float32 or isinstance(config, FullConfig) else 1
    layer = s * b * h * (34 + 5 * anatomy.n_heads * s / h) * wide
    activations = anatomy.n_layers * layer * (0.2 if config.gradient_checkpointing else 1.0)
    logits = 3.0 * 4 * s * b * anatomy.d_vocab
    return trained_weights(model, config) * OPTIMISER_BYTES + activations + logits


def trained_weights(model: ChatModel, config: LoraConfig | FullConfig) -> int:
    """How many weights the training moves."""
    if isinstance(config, FullConfig):
        return int(model.n_parameters)
    matrices: list[Any] = [model.module.get_submodule(p) for p in resolve_targets(model, config.targets)]
    return sum(config.rank * sum(map(int, one.weight.shape)) for one in matrices)


def model_bytes(model: ChatModel) -> float:
    """Bytes of the loaded weights."""
    return float(sum(p.numel() * p.element_size() for p in model.module.parameters()))


def too_large(model: ChatModel, config: LoraConfig | FullConfig, length: int, limit: float | None) -> str:
    """Why a cell cannot fit, or "".

    Args:
        model: the loaded base.
        config: of the training.
        length: tokens of the longest turn.
        limit: GB that a worker may use in all; None for what is free now.
    """
    need, there = training_bytes(model, config, length), available_bytes(model.device)
    if limit is not None and need + model_bytes(model) > limit * GB:
        return (
            f"cannot fit: about {(need + model_bytes(model)) / GB:.3g} GB for weights and training, and the "
            f"limit is {limit:g} GB; use a smaller batch_size, rank or max_length"
        )
    if need > there:
        return (
            f"cannot fit: training needs about {need / GB:.3g} GB beside the model and {there / GB:.3g} GB "
            "are free; use a smaller batch_size, rank or max_length, or gradient_checkpointing"
        )
    return ""
