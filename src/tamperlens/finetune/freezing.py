"""Frozen weights in fine-tuning, and the rewinding that the published code does instead.

Freezing holds entries still while the rest trains around them. Rewinding trains freely and puts the entries
back afterwards. They are different interventions: Wei et al. 2024 (arXiv 2402.05162) describe the first and
their code does the second.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel, ModelLike, as_chat_model, share_parameters_copy
from tamperlens_hooks import stored_parameter
from tamperlens_hooks.freeze import FrozenValues, freeze_adapter


class Restoring(TrainerCallback):  # type: ignore[misc]
    """Puts frozen entries of a fully fine-tuned model back after every optimizer step."""

    def __init__(self, module: nn.Module, freeze: WeightMask, originals: nn.Module) -> None:
        self.module, self.freeze, self.originals = module, freeze, originals
        self.values: FrozenValues | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hold the entries; sharding has replaced the parameters by now."""
        self.values = FrozenValues(self.module, self.freeze, self.originals)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the update: decay and momentum move entries whose gradient is zero."""
        if self.values is not None:
            self.values.restore()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the gradient hooks off."""
        if self.values is not None:
            self.values.remove()


def check_freeze(model: ChatModel, freeze: Any, config: LoraConfig | FullConfig | None = None) -> None:
    """Refuse what is no mask, a mask of another model, or DoRA, before anything slow.

    Raises:
        InputError: the message names both models.
    """
    if freeze is None:
        return
    if not isinstance(freeze, WeightMask):
        raise InputError(
            f"freeze is a {type(freeze).__name__}; give a WeightMask, such as scores.top(0.01), or "
            "WeightMask.from_tensors(model, {name: flags})"
        )
    freeze.check(model)
    _refuse_dora(config)


def _refuse_dora(config: LoraConfig | FullConfig | None) -> None:
    if isinstance(config, LoraConfig) and config.dora:
        raise InputError(
            "DoRA rescales whole rows of the merged weight at every step, so none of their entries can be "
            "held at the base's value; use LoRA or rsLoRA (dora=False) with frozen weights"
        )


def apply_freeze(
    model: ChatModel, base: ChatModel, config: LoraConfig | FullConfig, freeze: WeightMask
) -> list[TrainerCallback]:
    """Freeze entries of the copy in training; callbacks that the Trainer needs for it."""
    if isinstance(config, LoraConfig):
        freeze_adapter(model.module, freeze)
        return []
    return [Restoring(model.module, freeze, base.module)]


def rewind(tuned: TunedModel, base: ModelLike, mask: WeightMask) -> TunedModel:
    """The tuned model with chosen weights put back to what they were; neither model is changed.

    After LoRA the adapter stays attached and its update is switched off at these entries (they read W0 bit
    for bit); after full fine-tuning they are copied from the base.

    Args:
        tuned: what `finetune.run` gave back.
        base: the model that was fine-tuned.
        mask: the weights to put back.

    Raises:
        InputError: a mask of another model, or another base than the tuned model's.
    """
    base = as_chat_model(base, what="base")
    if not isinstance(mask, WeightMask):
        raise InputError(f"mask is a {type(mask).__name__}; give a WeightMask, such as scores.top(0.01)")
    mask.check(base)
    _refuse_dora(tuned.config)
    if base.fingerprint != tuned.base.fingerprint:
        raise InputError(f"{tuned.model.name} was tuned from {tuned.base.name}, not from {base.name}")
    name = f"{tuned.model.name}, rewound"
    if isinstance(tuned.config, LoraConfig):
        module = share_parameters_copy(tuned.model).module
        frozen = mask if tuned.frozen is None else tuned.frozen | mask
        freeze_adapter(module, frozen)
        model = tuned.model.with_module(module, name=name)
        return dataclasses.replace(tuned, model=model, frozen=frozen, recordings=())
    module = copy.deepcopy(tuned.model.module)
    with torch.no_grad():
        for parameter, flags in mask.items():
            held, old = stored_parameter(module, parameter), stored_parameter(base.module, parameter)
            held.copy_(torch.where(flags.to(held.device), old.to(held.device, held.dtype), held))
    model = tuned.model.with_module(module, name=name)
    return dataclasses.replace(tuned, model=model, frozen=mask, recordings=())
