"""The Monitor among several processes: the first one measures, and all take part in what needs all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.finetune import processes
from tamperlens.finetune.sharding import Mirror, trained
from tamperlens.models import ChatModel, share_parameters_copy
from tamperlens_hooks import describe, stored_parameter, unwrap
from tamperlens_hooks.lowrank import rewritten
from tamperlens_hooks.shards import fill, is_sharded
from tamperlens_hooks.state import preserved_randomness


class ProcessGroup:
    """What one process knows of the others.

    Attributes:
        first: whether this is the one that measures and writes.
        sharded: whether weights lie in slices (FSDP2); the first process then measures a whole copy.
    """

    def __init__(self, args: Any, module: nn.Module) -> None:
        """See the class.

        Raises:
            InputError: weights that are sharded in a way that hides them (FSDP's first version, ZeRO-3).
        """
        plan = getattr(args, "deepspeed_plugin", None)
        flat = any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules())
        if flat or (plan is not None and getattr(plan, "zero_stage", 0) == 3):
            raise InputError(
                "weights are sharded by FSDP's first version or ZeRO-3, which hide them; use FSDP2 "
                "(fsdp_version 2), or monitor checkpoints afterwards"
            )
        self.module, self.device = module, args.device
        self.first = int(args.process_index) == 0
        self.sharded = any(is_sharded(parameter) for parameter in module.parameters())
        self.mirror = Mirror(None, module)

    def measured_module(self, reference: ChatModel | None) -> nn.Module:
        """The module to measure: the one in training, or the first process's whole copy built on a reference.

        Raises:
            InputError: sharded weights and no reference to build the copy on; raised in all processes.
        """
        if not self.sharded:
            return self.module
        if not self.agree(int(reference is not None)):
            raise InputError(
                "weights are sharded over processes; pass reference=tamperlens.load(...), the whole base, to "
                "the Monitor of the first process"
            )
        if not self.first or reference is None:
            self.refresh()
            return self.module
        with preserved_randomness():
            whole = _like(reference, self.module)
        names = trained(self.module)
        for name, parameter in whole.named_parameters():
            parameter.requires_grad_(name in names)
        self.mirror = Mirror(reference.with_module(whole), self.module)
        self.refresh()
        return whole

    def refresh(self) -> None:
        """Bring the slices to the first process's copy; a call that every process must make."""
        if self.sharded:
            self.mirror.refresh()

    def agree(self, number: int | None) -> int | None:
        """The first process's number, in all of them."""
        if processes.count() == 1:
            return number
        said = processes.numbers([-1 if number is None else number], self.device)[0][0]
        return None if said < 0 else int(said)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Write the first process's whole values into the trained weights of all."""
        for name, weight in trained(self.module).items():
            value = values[name].to(self.device) if self.first else None
            if processes.count() > 1:
                if value is None:
                    value = torch.empty(weight.shape, dtype=weight.dtype, device=self.device)
                dist.broadcast(value, src=0)
            assert value is not None
            fill(weight, value)


def _like(reference: ChatModel, module: nn.Module) -> nn.Module:
    """A whole module with the names and adapters of a sharded one."""
    adapters: Any = getattr(module, "peft_config", None)
    if adapters:
        from peft import PeftModel

        inside: Any = share_parameters_copy(reference).module
        made: Any = None
        for name, config in adapters.items():
            plain = copy.deepcopy(config)
            if made is None:
                made = PeftModel(inside, plain, adapter_name=name)
            else:
                made.add_adapter(name, plain)
        wanted: Any = module
        made.set_adapter(wanted.active_adapter)
        result: nn.Module = made.eval()
        return result
    kinds = {weight.dtype for weight in trained(module).values()}
    kind = kinds.pop() if len(kinds) == 1 else reference.dtype
    return copy.deepcopy(reference.module).to(kind).eval()


def own_weights_move(module: nn.Module) -> bool:
    """Whether base weights of a model with adapters are not W0, or will not be: rewritten, or trained too."""
    parts = describe(unwrap(module)).projections()
    return rewritten(module) is not None or any(
        stored_parameter(module, part.parameter).requires_grad for part in parts
    )


def before_training(module: nn.Module) -> nn.Module:
    """A copy of what the model computes with now, without adapters."""
    made: Any = copy.deepcopy(module)
    return made if unwrap(module) is module else made.merge_and_unload()  # type: ignore[no-any-return]
