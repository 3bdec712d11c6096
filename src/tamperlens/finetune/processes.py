"""Several processes that train one model together: data parallel, one whole copy of the model in each.

Every process takes its share of each batch, gradients are averaged by torch's DistributedDataParallel (or by
FSDP2, see `sharding`), and all make the same update. The first process alone writes to disk, draws the bar
and calls recorders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.models import ChatModel

T = TypeVar("T")
_SHARDING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def count() -> int:
    """How many processes were launched together (torchrun and accelerate say so in WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the process that writes."""
    return count() == 1 or os.environ.get("RANK") == "0"


def is_set(variable: str) -> bool:
    """Whether a switch of the launcher is on."""
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def join(model: ChatModel) -> None:
    """Meet the other processes; nothing to do where there are none.

    Raises:
        InputError: weights would be sharded by what is not FSDP2, the launcher is unknown, or the model lies
            on several devices or on that of another process.
    """
    for variable, name in _SHARDING.items():
        if is_set(variable):
            raise InputError(
                f"{variable} is set and finetune.run does not train with {name}; launch plain data parallel "
                "or FSDP2 (--use_fsdp --fsdp_version 2), or load(..., device_map='auto')"
            )
    if count() == 1:
        return
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"WORLD_SIZE is {count()} and RANK or MASTER_ADDR is not set; start with torchrun or "
            "accelerate launch, or unset WORLD_SIZE"
        )
    if getattr(model.module, "hf_device_map", None) is not None:
        raise InputError(
            f"{count()} processes were launched and {model.name} was loaded with a device_map; start it with "
            "python, or load it whole in every process"
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if model.device.type == "cuda" and (model.device.index or 0) != local:
        raise InputError(
            f"{model.name} is on {model.device} and this process trains on cuda:{local}; load it there: "
            "device=f\"cuda:{os.environ['LOCAL_RANK']}\""
        )
    from accelerate import PartialState

    # Accelerate keeps the first state that is made, so it must know here already that a CPU trains.
    device = trains_on(model)
    cpu = device.type == "cpu"
    PartialState(cpu=cpu)
    if not dist.is_initialized() or (cpu and dist.get_backend() == "nccl"):
        raise InputError(
            f"accelerate was used before finetune.run and set up no processes that train on {device}; "
            "call finetune.run first, or make accelerate.PartialState(cpu=True) yourself for a CPU"
        )


def trains_on(model: ChatModel) -> torch.device:
    """Where the weights are in training: the model's device; sharded ones leave the CPU if they can."""
    if is_set("ACCELERATE_USE_FSDP") and model.device.type == "cpu" and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return model.device


def check_same(**given: Any) -> None:
    """Refuse processes that were given different things: the first one's weights would overwrite the others'.

    Raises:
        InputError: names what differs; raised in all processes.
    """
    if count() == 1:
        return
    for name, values in ((name, everyone(value)) for name, value in given.items()):
        if any(value != values[0] for value in values):
            raise InputError(f"the {count()} processes were given another {name} each; give all the same")


def everyone(value: T) -> list[T]:
    """The value of every process, in order; a call that all must make."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def numbers(values: Sequence[float], device: torch.device) -> list[list[float]]:
    """`everyone` for numbers, quick enough for every batch."""
    if count() == 1:
        return [[float(value) for value in values]]
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    found = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(found, mine)
    return [one.tolist() for one in found]


def by_first(work: Callable[[], T]) -> T | None:
    """What `work` gives, done by the first process alone while the others wait; None in these.

    Raises:
        RunFolderError: in the others, when the first one failed, so that nobody waits for ever.
    """
    if count() == 1:
        return work()
    if not first():
        failed = everyone("")[0]
        if failed:
            raise RunFolderError(failed)
        return None
    try:
        made = work()
    except BaseException as error:
        everyone(str(error) or type(error).__name__)
        raise
    everyone("")
    return made
