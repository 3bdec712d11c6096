"""Putting an adapter on a copy that shares the model's weights, and reading its factors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import LoraConfig
from tamperlens.finetune.targets import is_transposed, resolve_targets, shortest_names
from tamperlens.models import ChatModel, share_parameters_copy
from tamperlens_hooks import base_layer, unwrap
from tamperlens_hooks.effective import merged_parameters, plain_lora
from tamperlens_hooks.freeze import frozen_flags, held_delta


def add_adapter(model: ChatModel, config: LoraConfig) -> tuple[ChatModel, list[str]]:
    """A copy of the model with a fresh LoRA adapter of PEFT, and the paths of the adapted modules.

    The copy shares the weights; the model that was handed in is left as it is. A is drawn from torch's global
    generator (seed it before), B is zero, both in fp32.

    Raises:
        InputError: a target that matches nothing or cannot be adapted.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    paths = resolve_targets(model, config.targets)
    transposed = {is_transposed(model, path) for path in paths}
    if len(transposed) > 1:
        raise InputError(
            f"targets of {model.name} mix matrices stored as [out, in] and [in, out]; adapt one kind"
        )
    settings = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=shortest_names(model, paths),
        use_rslora=config.rslora,
        use_dora=config.dora,
        fan_in_fan_out=transposed.pop(),
        bias="none",
        task_type="CAUSAL_LM",
    )
    copy = share_parameters_copy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: nn.Module = get_peft_model(copy.module, settings)
    return copy.with_module(wrapped, name=f"{model.name} + LoRA"), paths


@dataclass(frozen=True, eq=False)
class Factors:
    """The update of one stored parameter, as factors: s·B·A.

    Attributes:
        parameter: name of the weight in the base model.
        a: first factor.
        b: second factor.
        scale: s, which is alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        transposed: the parameter is stored [in, out].
        frozen: entries of the stored parameter at which the update is off, or None.
    """

    parameter: str
    a: Float[Tensor, "rank d_in"]
    b: Float[Tensor, "d_out rank"]
    scale: float
    transposed: bool
    frozen: Bool[Tensor, "rows columns"] | None = None

    def delta(self) -> Float[Tensor, "rows columns"]:
        """s·B·A in fp32, in the orientation in which the parameter is stored; minus zero where frozen."""
        product = self.b.float() @ self.a.float()
        update = (product.T if self.transposed else product) * self.scale
        return update if self.frozen is None else held_delta(update, self.frozen)


def factors_of(module: nn.Module) -> list[Factors]:
    """The factors of every adapted matrix, in the model's order; detached views of the live factors.

    Raises:
        InputError: DoRA, whose update is no product of factors.
    """
    found = []
    for path, layer in unwrap(module).named_modules():
        part: Any = layer
        if not isinstance(getattr(part, "lora_A", None), nn.ModuleDict):
            continue
        for name in part.active_adapters:
            if name in part.lora_A:
                if plain_lora(part) is None:
                    raise InputError(
                        f"{path} carries DoRA or another variant, which has no factors s·B·A; read the "
                        "merged weights"
                    )
                found.append(
                    Factors(
                        f"{path}.weight",
                        part.lora_A[name].weight.detach(),
                        part.lora_B[name].weight.detach(),
                        float(part.scaling[name]),
                        bool(part.fan_in_fan_out),
                        frozen_flags(part),
                    )
                )
    return found


def base_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the model without adapters, by their names in the base; tied ones once."""
    inside = unwrap(module)
    adapters = {
        id(parameter)
        for part in inside.modules()
        for added in getattr(part, "adapter_layer_names", ())
        if isinstance(getattr(part, added, None), nn.Module)
        for parameter in getattr(part, added).parameters()
    }
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): parameter
        for name, parameter in inside.named_parameters()
        if id(parameter) not in adapters
    }


@torch.no_grad()
def merged_weights(module: nn.Module) -> dict[str, Tensor]:
    """The merged weight for every adapted weight, W0 for every other, in fp32; new tensors.

    Raises:
        InputError: a quantised weight, which has no entries to add to.
    """
    merged = {}
    for name, parameter in base_parameters(module).items():
        if not parameter.is_floating_point():
            raise InputError(
                f"{name} is quantised ({parameter.dtype}); load the model without quantization to merge it"
            )
        merged[name] = parameter.detach().float().clone()
    inside = unwrap(module)
    for path, layer in inside.named_modules():
        if base_layer(layer) is not layer and ".base_layer" not in path:
            merged |= {f"{path}.{name}": value for name, value in merged_parameters(inside, path).items()}
    return merged
