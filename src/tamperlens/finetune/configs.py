"""How to fine-tune: frozen settings, checked when they are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tamperlens.base.boundary import hold_fields
from tamperlens.base.errors import InputError
from tamperlens.base.kinds import Range
from tamperlens.base.results import Result

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
TARGET_GROUPS = ("all-linear", "attention", "qkv")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Result):
    """What LoRA and full fine-tuning have in common.

    Attributes:
        steps: optimizer steps; exclusive with `epochs`. With neither, one epoch.
        epochs: passes over the data.
        learning_rate: peak learning rate of AdamW (betas .9, .999, eps 1e-8).
        batch_size: examples per forward pass, in each process if several were launched.
        accumulation: forward passes per optimizer step.
        warmup: steps over which the learning rate rises, or a fraction below 1 of all steps.
        schedule: of the learning rate after the warm-up.
        weight_decay: decoupled, on matrices only.
        max_length: turns are cut to this many tokens; None for the whole turn.
        max_grad_norm: gradients are clipped to this norm; 0 for no clipping.
        seed: of initialisation, data order and dropout.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        precision: of the computation. "auto" computes in the model's own type; "bfloat16" and "float16" run
            under autocast. What is trained is kept in fp32 in every case.
        log_every: steps between rows of the log.
        save_every: steps between checkpoints when `run` is given a folder; None for ten in all.

    Raises:
        InputError: a value out of range; the message names the field.
    """

    steps: int | None = None
    epochs: float | None = None
    learning_rate: float = 2e-4
    batch_size: int = 4
    accumulation: int = 1
    warmup: float = 0
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    max_length: int | None = None
    max_grad_norm: float = 1.0
    seed: int = 0
    gradient_checkpointing: bool = False
    precision: Precision = "auto"
    log_every: int = 1
    save_every: int | None = None

    def __post_init__(self) -> None:
        hold_fields(self, alpha=Range(0, 1e9, True), epochs=Range(0, 1e6, True, True), warmup=Range(0, 1e9))
        if self.steps is not None and self.epochs is not None:
            raise InputError(
                f"steps={self.steps} and epochs={self.epochs} exclude each other; give one of them"
            )
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise InputError(f"warmup={self.warmup} must be a number of steps, or a fraction below 1")

    @property
    def kind(self) -> str:
        """ "lora" or "full"."""
        raise InputError("use LoraConfig or FullConfig; TrainingConfig is what they share")

    def describe(self) -> dict[str, object]:
        """All settings with the kind, in JSON terms, as manifests store them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class LoraConfig(TrainingConfig):
    """Low-rank adaptation (Hu et al. 2021): W + s·B·A with A drawn at random and B zero at the start.

    Attributes:
        rank: rank r of the update.
        alpha: s = alpha / rank, or alpha / sqrt(rank) with `rslora`.
        dropout: on the input of the adapters.
        targets: "all-linear" (every matrix of every block: attention and MLP), "attention" (q, k, v and o),
            "qkv", or names of modules: last parts ("q_proj") or whole paths.
        rslora: rank-stabilised scale (Kalajdzievski 2023).
        dora: DoRA (Liu et al. 2024), W = m · (W0 + s·B·A) / its norm by output. No weight can be frozen under
            it, since a new norm moves every entry of a row, and it has no factors.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: str | tuple[str, ...] | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.targets, str):
            if self.targets not in TARGET_GROUPS:
                raise InputError(
                    f"targets={self.targets!r} is not one of {', '.join(TARGET_GROUPS)}; to name modules "
                    f"give a list: targets=[{self.targets!r}]"
                )
            return
        if not self.targets or not all(self.targets):
            raise InputError(f"targets={self.targets!r} must be a group or a list of module names")
        # A tuple, so that equal settings compare and hash alike.
        object.__setattr__(self, "targets", tuple(self.targets))

    @property
    def kind(self) -> str:
        """ "lora"."""
        return "lora"

    @property
    def scale(self) -> float:
        """s of W + s·B·A."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))


@dataclass(frozen=True)
class FullConfig(TrainingConfig):
    """Every weight is trained, on a copy in fp32.

    Models in bf16 or fp16 compute under autocast in that type when `precision` is "auto"; the copy stays
    fp32, because updates of the usual size vanish in half precision.

    Attributes:
        train_embeddings: whether the token embedding (and an unembedding of its own) is trained too.
    """

    train_embeddings: bool = True

    @property
    def kind(self) -> str:
        """ "full"."""
        return "full"
