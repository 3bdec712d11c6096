"""Fully sharded data parallel (FSDP2): each process holds a slice of every weight in training.

Launched by `accelerate launch --use_fsdp --fsdp_version 2`, or by torchrun with ACCELERATE_USE_FSDP=true and
FSDP_VERSION=2; accelerate does the sharding. What needs whole weights gets them from a mirror: a whole copy
on the base's device, filled with the gathered trained weights when a recorder is due and at the end. For LoRA
only the factors travel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.finetune import processes
from tamperlens.models import ChatModel
from tamperlens_hooks.shards import fill, whole


def wanted() -> bool:
    """Whether the launcher asked for sharded weights."""
    return processes.is_set("ACCELERATE_USE_FSDP")


def check() -> None:
    """Refuse what cannot be sharded.

    Raises:
        InputError: one process, or FSDP's first version, which hides the parameters.
    """
    if not wanted():
        return
    if processes.count() == 1:
        raise InputError(
            "ACCELERATE_USE_FSDP is set and there is one process; start several with accelerate launch, or "
            "unset it"
        )
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError(
            "finetune.run shards with FSDP2 and FSDP_VERSION is not 2; launch with --fsdp_version 2"
        )


def allow_cpu(device: torch.device) -> None:
    """Let accelerate shard on a CPU too, which it would train unsharded; after TrainingArguments are made.

    FSDP2 runs on CPUs over gloo. Accelerate asks for FSDP only among kinds of processes with an accelerator.
    """
    if not wanted() or device.type != "cpu":
        return
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


class Mirror:
    """A whole copy of a model whose weights are sharded.

    Attributes:
        model: the copy, with the parameters of the sharded module by the same names; None in processes that
            give their slices and keep nothing.
    """

    def __init__(self, model: ChatModel | None, sharded: nn.Module) -> None:
        self.model, self.sharded = model, sharded
        self.places = {} if model is None else dict(model.module.named_parameters())

    @torch.no_grad()
    def refresh(self) -> None:
        """Fill the copy with the trained weights as they are now; a call that every process must make."""
        for name, value in trained(self.sharded).items():
            found = whole(value)
            if self.model is not None:
                fill(self.places[name], found.to(self.places[name].device))


def trained(module: nn.Module) -> dict[str, Tensor]:
    """The trained weights by name, whole or in slices."""
    return {
        name.replace("_checkpoint_wrapped_module.", ""): parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def gathered(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors, for the first process to write; the others keep none. A call that all must make."""
    found = {}
    for name, value in dict(tensors).items():
        one = whole(value)
        if one is value:
            found[name] = value
        elif processes.first():
            found[name] = one.cpu()
    return found
