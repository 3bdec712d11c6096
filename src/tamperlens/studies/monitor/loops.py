"""Where a monitor sits: among a Trainer's callbacks with its trackers, or in a loop of somebody's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import FrameType, SimpleNamespace
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from tamperlens.base.errors import InputError
from tamperlens.finetune import processes

Arguments: TypeAlias = TrainingArguments | SimpleNamespace
State: TypeAlias = TrainerState | SimpleNamespace
Control: TypeAlias = TrainerControl | SimpleNamespace
"""What a Trainer tells its callbacks, or a loop of somebody's own."""


def trackers_beside(callback: Any) -> list[Any]:
    """The trackers (TensorBoard, W&B, …) of the Trainer that is calling a callback now.

    A Trainer tells its callbacks everything but who stands beside them; the list is that of the handler that
    is calling, whatever the order in it.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_callback import CallbackHandler

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        handler = frame.f_locals.get("self")
        if isinstance(handler, CallbackHandler) and callback in handler.callbacks:
            return [
                one for one in handler.callbacks if isinstance(one, tuple(INTEGRATION_TO_CALLBACK.values()))
            ]
        frame = frame.f_back
    return []


def send(
    trackers: Sequence[Any], args: Any, state: Any, control: Any, numbers: Mapping[str, float], model: Any
) -> None:
    """Numbers to each tracker, at the Trainer's step."""
    for one in trackers:
        one.on_log(args, state, control, logs=dict(numbers), model=model)


class Loop:
    """Stands for a Trainer where there is none: what a callback is told by one.

    Attributes:
        args: of which process this is, and the seed.
        state: steps made, losses logged.
        control: whether training is to stop.
    """

    def __init__(self, module: nn.Module, seed: int) -> None:
        """See the class."""
        rank = dist.get_rank() if processes.count() > 1 else 0
        device = next(module.parameters()).device
        self.args = SimpleNamespace(process_index=rank, device=device, seed=seed)
        self.state = SimpleNamespace(global_step=0, max_steps=-1, log_history=[], total_flos=0.0)
        self.control = SimpleNamespace(should_training_stop=False)


def module_of(model: Any) -> nn.Module:
    """The module of a chat model, of a compiled one, or inside data parallelism."""
    module = getattr(model, "chat_model", model)
    module = getattr(module, "module", module) if not isinstance(module, nn.Module) else module
    while type(module).__name__ in ("DistributedDataParallel", "DataParallel", "OptimizedModule"):
        module = getattr(module, "module", None) or module._orig_mod
    found: nn.Module = module
    return found


class OwnLoop:
    """What `Monitor` offers to a loop of somebody's own, by its callback's methods."""

    reference: Any
    stopped_at: int | None
    _loop: Loop | None = None
    on_train_begin: Any
    on_step_end: Any
    on_train_end: Any

    def step(self, model: Any, step: int) -> bool:
        """Measure a model in a loop of your own, where it is due.

        Args:
            model: the model in training: a module, PEFT-wrapped or not, also inside DistributedDataParallel
                or torch.compile; or a ChatModel around it.
            step: optimizer steps made. The first call, with 0, must come before training.

        Returns:
            Whether a rule says stop; the loop should then end, and `finish` puts the last good weights back.

        Raises:
            InputError: no tokenizer, or a first call that comes after training began and no `reference`.
        """
        module = module_of(model)
        if self._loop is None:
            if step > 0 and self.reference is None:
                raise InputError(
                    "the first call must be monitor.step(model, 0), before training: the base is the model "
                    "as it is then; or pass reference= to Monitor"
                )
            self._loop = Loop(module, torch.initial_seed() % 2**31)
            self._loop.state.global_step = int(step)
            told = getattr(model, "tokenizer", None)
            about = (self._loop.args, self._loop.state, self._loop.control)
            self.on_train_begin(*about, model=module, processing_class=told)
            if step == 0:
                return False
        self._loop.state.global_step = int(step)
        self.on_step_end(self._loop.args, self._loop.state, self._loop.control)
        return self.stopped_at is not None

    def finish(self) -> None:
        """The end of a loop of your own: the last record, the cost, and the last good weights after a stop.

        Raises:
            InputError: `step` was never called.
        """
        if self._loop is None:
            raise InputError("nothing to finish: monitor.step(model, 0) was not called before training")
        self.on_train_end(self._loop.args, self._loop.state, self._loop.control)
