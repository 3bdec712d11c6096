"""What a defence is, and how it takes part in a training: in `finetune.run`, or in anyone's Trainer.

A defence may act before the training (on the model that it starts from, or on its data), during it (on the
batch, the loss, the forward pass or the update), and after it (on the result). It says nothing of which it
is; what it does not do is left as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from tamperlens.base.errors import InputError
from tamperlens.base.files import sha256_bytes
from tamperlens.base.masks import WeightMask
from tamperlens.finetune import processes
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.data import Collator, encode
from tamperlens.finetune.tuned import TunedModel
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts
from tamperlens_hooks import sharing_copy, unwrap


@dataclass(frozen=True, eq=False)
class Training:
    """What a defence may look at while a model is in training.

    Attributes:
        model: the model in training.
        base: the model that training started from, untouched.
        seed: of the training; a defence that draws does so from a generator of its own, made of it.
    """

    model: ChatModel
    base: ChatModel
    seed: int


class During(TrainerCallback):  # type: ignore[misc]
    """A defence's part in one training: a callback of the Trainer with three places more.

    Override what is needed. `on_pre_optimizer_step` is the place for gradients, `on_optimizer_step` (after
    the update) for weights.
    """

    def __init__(self, training: Training) -> None:
        self.training = training

    def batch(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch to train on in place of the one that is due, with its weight in the optimiser step."""
        return inputs

    @contextmanager
    def around(self) -> Iterator[None]:
        """Around the forward and backward pass of a batch."""
        yield

    def loss(self, loss: Tensor, logits: Tensor, inputs: Mapping[str, Tensor], share: Tensor) -> Tensor:
        """The loss to descend in place of the plain one.

        Args:
            loss: the plain loss of the batch, over all labelled tokens of the optimiser step.
            logits: `[batch, seq, vocab]`.
            inputs: the batch with its labels.
            share: the batch's share of the step's labelled tokens; a term that is a mean over this batch
                is multiplied by it, so that accumulated batches add up to a mean.
        """
        return loss


@dataclass(eq=False)
class Defence:
    """Base of all defences: each method does nothing unless a defence overrides it.

    Attributes:
        strength: how strongly it acts, in the unit that the defence says; 0 is off, and training is then bit
            for bit what it is without a defence.
    """

    strength: float = 1.0

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "plain training"
    changes_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise InputError(f"{self.name}: strength is {self.strength}; it must be 0 (off) or more")

    def check(self, model: ChatModel, config: LoraConfig | FullConfig) -> None:
        """Refuse a tuner that the defence cannot work with, before anything slow."""

    def start(self, model: ChatModel) -> ChatModel:
        """The model that training should start from."""
        return model

    def data(self, data: PromptSet, model: ChatModel) -> PromptSet:
        """What to train on."""
        return data

    @property
    def freeze(self) -> WeightMask | None:
        """Weights that must not move."""
        return None

    def during(self, training: Training) -> During | None:
        """The part in one training, if any."""
        return None

    def finish(self, tuned: TunedModel) -> TunedModel:
        """The result to hand out in place of the tuned model."""
        return tuned

    def describe(self) -> dict[str, object]:
        """Name and settings in JSON terms; models, prompts, masks and directions by their hashes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
        return {"name": self.name, **{name: _plain(value) for name, value in fields.items()}}


def is_on(defence: Defence | None) -> bool:
    """Whether there is a defence that does anything.

    Raises:
        InputError: something else in its place.
    """
    if defence is not None and not isinstance(defence, Defence):
        raise InputError(
            f"defence is a {type(defence).__name__}; make one with finetune.defences, such as KL(safe=...)"
        )
    return defence is not None and defence.strength > 0


def check_defence(defence: Defence, model: ChatModel, config: LoraConfig | FullConfig) -> None:
    """What must hold before a training under a defence.

    Raises:
        InputError: a tuner that the defence cannot honour, or quantised weights that it would have to change.
    """
    if (acts_before(defence) or acts_after(defence)) and is_quantised(model):
        raise InputError(
            f"{defence.name} changes whole weights, and those of {model.name} are quantised; load it without "
            "quantization"
        )
    defence.check(model, config)


def acts_before(defence: Defence) -> bool:
    """Whether a defence changes the model that training starts from."""
    return type(defence).start is not Defence.start


def acts_after(defence: Defence) -> bool:
    """Whether a defence changes the result."""
    return type(defence).finish is not Defence.finish


def attach(trainer: Trainer, defence: Defence, *, base: ChatModel | None = None) -> None:
    """Let a defence take part in a training by transformers' Trainer (TRL's too); call before `train()`.

    Its part before training is `defence.start(model)`, on the model that the Trainer is made with, and its
    part after it `defence.finish(finetune.TunedModel.wrap(trainer.model, base))`.

    Args:
        trainer: with a causal language model, its tokenizer as `processing_class`, and batches that carry
            `input_ids`, `attention_mask` and `labels`. It is changed: callbacks, data, loss and step.
        defence: what to add.
        base: the model that training starts from; for LoRA the model without its adapter, and else a copy
            made now, by default.

    Raises:
        InputError: no tokenizer, several processes, a tuner that the defence cannot honour, or a defence
            that does nothing during training. One that acts before or after it too is warned of.

    """
    if not is_on(defence):
        return
    if defence.changes_data:
        raise InputError(
            f"{defence.name} changes the data, which the Trainer holds already: make the Trainer with what "
            "defence.data(prompts, model) gives"
        )
    rest = [
        *(["make the Trainer with defence.start(model)"] if acts_before(defence) else []),
        *(["call defence.finish(finetune.TunedModel.wrap(trainer.model, base)) after it"]
          if acts_after(defence) else []),
    ]  # fmt: skip
    if rest:
        todo = ", and ".join(rest)
        if type(defence).during is Defence.during and defence.freeze is None:
            raise InputError(f"{defence.name} does not act during training, so it cannot be attached: {todo}")
        words = f"tamperlens: {defence.name} does not act during training alone: {todo}"
        warnings.warn(words, UserWarning, stacklevel=2)
    module: Any = trainer.model
    if base is None:
        tokenizer = getattr(trainer, "processing_class", None)
        if tokenizer is None:
            raise InputError(f"{defence.name}: the Trainer has no tokenizer; pass processing_class= to it")
        base = ChatModel.from_parts(_untuned(module), tokenizer, name="base", check_anatomy=False)
    live = base.with_module(module, name=f"{base.name} in training")
    config = TunedModel.wrap(live, base).config
    check_defence(defence, base, config)
    callbacks: list[TrainerCallback] = []
    if defence.freeze is not None:
        from tamperlens.finetune.freezing import apply_freeze

        callbacks += apply_freeze(live, base, config, defence.freeze)
    for one in callbacks:
        trainer.add_callback(one)
    join(trainer, defence, Training(live, base, int(trainer.args.seed)))


def join(trainer: Trainer, defence: Defence, training: Training) -> None:
    """Put a defence's part during training into a Trainer."""
    part = defence.during(training)
    if part is None:
        return
    if processes.count() > 1:
        raise InputError(f"{defence.name} works in one process; start the training without torchrun")
    plain_step, plain_loss = trainer.training_step, trainer.compute_loss

    def training_step(
        model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None, **named: Any
    ) -> Tensor:
        due, inputs = inputs, part.batch(inputs)
        if inputs is not due and num_items_in_batch is not None:
            # Counted on the batches that were due: another one takes over the share of its place.
            num_items_in_batch = num_items_in_batch * (_labelled(inputs) / _labelled(due))
        with part.around():
            done: Tensor = plain_step(model, inputs, num_items_in_batch, **named)
        return done

    def compute_loss(
        model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **named: Any
    ) -> Any:
        given = dict(inputs)  # the Trainer takes the labels out of its own
        loss, outputs = plain_loss(model, inputs, return_outputs=True, **named)
        if model.training:
            whole = named.get("num_items_in_batch")
            share = _labelled(given) / whole if whole is not None else torch.ones((), device=loss.device)
            logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
            loss = part.loss(loss, logits, given, share.to(loss.device))
        return (loss, outputs) if return_outputs else loss

    trainer.training_step, trainer.compute_loss = training_step, compute_loss
    trainer.add_callback(part)


def safe_prompts(data: PromptsLike | None, name: str) -> PromptSet:
    """The safe data of a defence.

    Raises:
        InputError: there are none, or none with answers.
    """
    if data is None:
        raise InputError(f"{name} needs safe data: pass safe=, prompts with the answers that are to stay")
    found = as_prompts(data, what="safe")
    if len(found) == 0 or found.responses is None:
        raise InputError(f"{name}: safe data {found.name!r} has no answers; pass prompts with responses")
    return found


class SafeBatches:
    """Batches of safe examples, drawn without touching the training's own random numbers.

    Args:
        model: for which they are encoded.
        data: prompts with answers.
        size: examples a batch.
        seed: of the draws.
    """

    def __init__(self, model: ChatModel, data: PromptSet, size: int, seed: int) -> None:
        self.turns, self.collate = encode(model, data), Collator(model.pad_id)
        self.size, self.device = min(size, len(data)), model.device
        self.draw = torch.Generator().manual_seed(seed)
        self.order: list[int] = []

    def next(self) -> dict[str, Tensor]:
        """The next batch, each example once an epoch."""
        if len(self.order) < self.size:
            self.order += torch.randperm(len(self.turns), generator=self.draw).tolist()
        rows, self.order = self.order[: self.size], self.order[self.size :]
        return {k: v.to(self.device) for k, v in self.collate([self.turns[row] for row in rows]).items()}


def forward(model: ChatModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits `[batch, seq, vocab]` of a batch, without a cache."""
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    logits: Tensor = model.module(**asked, use_cache=False).logits
    return logits


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights in training, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _labelled(inputs: Mapping[str, Tensor]) -> Tensor:
    """Tokens that a batch is trained on."""
    return (inputs["labels"][:, 1:] != -100).sum()


def is_quantised(model: ChatModel) -> bool:
    """Whether weights are stored in fewer bits than they are computed with."""
    return any(not p.is_floating_point() or hasattr(p, "quant_state") for p in model.module.parameters())


def _untuned(module: nn.Module) -> nn.Module:
    """A PEFT model without its adapter, on the same weights; or a copy of one that is trained itself.

    Weights of the base that PEFT trains too, such as biases, are copied.
    """
    if unwrap(module) is module:
        return copy.deepcopy(module).eval()
    bare: Any = sharing_copy(module)
    found: nn.Module = bare.unload().requires_grad_(False).eval()
    moving = {p.data_ptr() for p in trained(module).values()}
    for parameter in found.parameters():
        if parameter.data_ptr() in moving:
            parameter.data = parameter.detach().clone()
    return found


def _plain(value: Any) -> object:
    vector = getattr(value, "vector", value)  # first: a direction's fingerprint is its model's
    if isinstance(vector, Tensor):
        numbers = vector.detach().double().cpu().contiguous().numpy().tobytes()
        place = {name: getattr(value, name, None) for name in ("layer", "raw_norm")}
        return {"sha256": sha256_bytes(numbers), **place}
    if isinstance(value, TunedModel):
        return value.model.fingerprint
    if isinstance(value, LoraConfig | FullConfig):
        return value.describe()
    for name in ("sha256", "fingerprint"):
        if isinstance(found := getattr(value, name, None), str):
            return found
    return value
