"""Muon in fp32. `torch.optim.Muon` works in bfloat16, which most CPUs emulate at a third of the speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), its size matched to AdamW's (Liu et al. 2025).

    The same update as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw", nesterov=True)`, with matrices of one
    shape orthogonalised together.

    Args:
        params: matrices.
        lr: learning rate.
        momentum: decay of the running gradient.
        weight_decay: decoupled, times lr.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                running = state.setdefault("momentum", torch.zeros_like(p))
                running.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(running, group["momentum"])
                by_shape.setdefault(p.shape, []).append((p, update))
            for shape, pairs in by_shape.items():
                whole = orthogonalise(torch.stack([update for _, update in pairs]))
                size = 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(pairs, whole, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * size)


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix; [n, rows, columns] to the same."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[1] > stack.shape[2]
    x: Tensor = stack.mT if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
