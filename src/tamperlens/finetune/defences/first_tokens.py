"""Constrained fine-tuning: the first answer tokens may not move far from the base's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.finetune.defending import Defence, During, Training, forward


@dataclass(eq=False)
class FirstTokens(Defence):
    """Token t's loss is −(2/β_t) log σ(β_t log(p(y_t)/p_base(y_t))) in place of −log p (Qi et al. 2024).

    Its gradient is that of −log p times 2(1 − σ(β_t log(p/p_base))): a token that has become more likely than
    in the base is pulled less, the more so the larger β. Published: β .5 for the first answer token, 2 for
    the next four, .1 behind them (arXiv 2406.05946, §4; the authors' code: beta .1, bias factors 5 and 20,
    length 5), with full fine-tuning at 2e-5. Published direction: less harm after the same attack.

    Attributes:
        strength: factor on all β; towards 0 the gradient becomes the plain one, while the loss
            grows by a constant.
        first: β of the first token.
        early: β of the tokens behind it, up to `length`.
        late: β of the rest.
        length: tokens that count as early, the first included.
    """

    first: float = 0.5
    early: float = 2.0
    late: float = 0.1
    length: int = 5

    name: ClassVar[str] = "first tokens"
    source: ClassVar[str] = "Qi et al. 2024 (arXiv 2406.05946), constrained fine-tuning"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.first, self.early, self.late) <= 0 or self.length < 1:
            raise InputError(f"{self.name}: every beta must be above 0, and length at least 1")

    def during(self, training: Training) -> During:
        """The other loss."""
        return _Constrained(training, self)

    def betas(self, labels: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """β by position of a label; what counts is its place in its own answer, in every turn anew."""
        kept = labels != -100
        place = torch.cumsum(kept, 1)
        begins = kept & ~torch.nn.functional.pad(kept, (1, 0))[:, :-1]
        before = torch.where(begins, place - 1, 0).cummax(1).values
        nth = place - before  # 1 for the first token of an answer
        late = torch.full(labels.shape, self.late, device=labels.device)
        found = torch.where(nth <= self.length, self.early, late)
        return torch.where(nth == 1, self.first, found) * self.strength


class _Constrained(During):
    def __init__(self, training: Training, defence: FirstTokens) -> None:
        super().__init__(training)
        self.defence = defence

    def loss(self, loss: Tensor, logits: Tensor, inputs: Mapping[str, Tensor], share: Tensor) -> Tensor:
        labels = inputs["labels"]
        with torch.no_grad():
            base = log_likelihoods(forward(self.training.base, inputs), labels)
        kept = labels[:, 1:] != -100
        beta = self.defence.betas(labels)[:, 1:][kept]
        gained = log_likelihoods(logits, labels) - base
        terms = -2 / beta * torch.nn.functional.logsigmoid(beta * gained)
        return terms.sum() / max(len(terms), 1) * share  # 0 for a batch without labels, as the plain loss


def log_likelihoods(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " tokens"]:
    """log p of every labelled token in fp32, in the order of rows."""
    targets = labels[:, 1:]
    kept = targets != -100
    return -torch.nn.functional.cross_entropy(logits[:, :-1][kept].float(), targets[kept], reduction="none")
