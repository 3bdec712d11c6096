"""The training loop: transformers' Trainer with an exact loss, a meter, and a guard against divergence."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import TrainerCallback

from tamperlens.base.errors import NumericsError
from tamperlens.finetune import processes
from tamperlens.finetune.checkpoints import SafeCheckpoints
from tamperlens.finetune.compute import Meter
from tamperlens_hooks.shards import local

EXPLODED = 5.0
"""A loss beyond this multiple of ln(vocabulary), the loss of a uniform guess, has exploded."""
REMEMBER = 2**31
"""Trained weights of up to so many bytes are copied at every step, to go back to when the next step fails."""


class DivergenceError(NumericsError):
    """Training stopped because the loss or a gradient was NaN, infinite or exploded.

    Attributes:
        step: the step that failed.
        good_step: the step whose weights were kept, or None when they are lost.
        tuned: the model at `good_step` (a `TunedModel`), or None.
    """

    def __init__(self, message: str, step: int, good_step: int | None) -> None:
        super().__init__(message)
        self.step = step
        self.good_step = good_step
        self.tuned: Any = None


class Guard(TrainerCallback):  # type: ignore[misc]
    """Stops a run that diverges before the bad update is made, and goes back to the last good weights.

    The loss at a step judges the update before it. So the weights before each update are kept until the next
    loss is known to be good.
    """

    def __init__(self, module: nn.Module, n_vocab: int) -> None:
        self.module = module
        self.trained: dict[str, nn.Parameter] = {}
        self.small = False
        self.limit = EXPLODED * math.log(n_vocab)
        self.before: dict[str, Tensor] | None = None
        self.step = 0

    def check_loss(self, loss: float) -> None:
        """Check one batch's mean loss per token."""
        finite = math.isfinite(loss)
        if self.step == 0 and finite:
            self.limit = max(self.limit, 3 * loss)
        if finite and loss <= self.limit:
            return
        if self.step == 0:
            raise DivergenceError(
                f"the loss is {loss} at step 1, before any update; check data, weights and precision",
                1,
                0,
            )
        what = f"exploded to {loss:.3g}" if finite else f"became {loss}"
        good = None
        if self.before is not None:
            with torch.no_grad():
                for name, value in self.before.items():
                    self.trained[name].copy_(value)
            good = self.step - 1
        raise self._error(f"the loss {what}", good)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Know the weights; sharding has replaced the parameters by now."""
        self.trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        held = [local(p) for p in self.trained.values()]
        self.small = sum(p.numel() * p.element_size() for p in held) <= REMEMBER

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Know the step."""
        self.step = int(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the gradients, and keep the weights that gave a good loss."""
        gradients = [local(p.grad) for p in self.trained.values() if p.grad is not None]
        # Under fp16 the scaler skips steps with infinite gradients by itself.
        if gradients and not args.fp16:
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])
            finite = bool(torch.isfinite(norms).all())
            # Slices of a gradient differ; the processes must stop together.
            if not all(one for (one,) in processes.numbers([finite], norms.device)):
                raise self._error("a gradient became NaN or infinite", self.step)
        if self.small:
            self.before = {name: p.detach().clone() for name, p in self.trained.items()}

    def _error(self, what: str, good: int | None) -> DivergenceError:
        kept = (
            "the last good weights are lost" if good is None else f"the weights after step {good} were kept"
        )
        return DivergenceError(
            f"{what} at step {self.step + 1}; {kept}; lower learning_rate, or set warmup and max_grad_norm",
            self.step + 1,
            good,
        )


class ResponseLoss:
    """Mean −log p per labelled token, over all batches of an optimizer step together."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The Trainer's `compute_loss_func`."""
        total, n = summed_nats(outputs.logits, labels)
        # All processes judge the worst share alike, and so stop together.
        losses = [one for (one,) in processes.numbers([float(total.detach()) / max(n, 1)], total.device)]
        self.guard.check_loss(next((one for one in losses if not math.isfinite(one)), max(losses)))
        if num_items_in_batch is None:
            num_items_in_batch = n
        return total / torch.as_tensor(num_items_in_batch, device=total.device).clamp_min(1)


def summed_nats(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, ""], int]:
    """Summed −log p of labelled tokens in fp32, and their number; logits at t predict the label at t + 1."""
    targets = labels[:, 1:]
    kept = targets != -100
    # Only labelled positions become fp32 log-probabilities: the vocabulary is what takes memory.
    scored = logits[:, :-1][kept].float()
    return torch.nn.functional.cross_entropy(scored, targets[kept], reduction="sum"), len(scored)


class ResponseTrainer(SafeCheckpoints):
    """The Trainer that counts what it computes."""

    def __init__(self, *, meter: Meter, **settings: Any) -> None:
        super().__init__(meter=meter, **settings)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **named: Any) -> Tensor:
        """One batch forward and backward; the batches of all processes are counted."""
        rows, length = inputs["input_ids"].shape
        tokens, labels = inputs["attention_mask"].sum(), (inputs["labels"][:, 1:] != -100).sum()
        mine = [rows, length, int(tokens), int(labels)]
        for share in processes.numbers(mine, self.args.device):
            self.meter.add(*map(int, share))
        loss: Tensor = super().training_step(model, inputs, *rest, **named)
        return loss
