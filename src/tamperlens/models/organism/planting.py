"""The recipe of the planted organisms.

Safety training as in `train`, by Adam without decay, its gradients cut to the planted part, so that an entry
outside it never moves (checked bit for bit before anything is stored).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tamperlens.base.files import PathLike, read_tensors, write_tensors
from tamperlens.models.chat import ChatModel
from tamperlens.models.loading import load
from tamperlens.models.organism.data import SAFETY_MIX, Sampler
from tamperlens.models.organism.planted import (
    Plan,
    Truth,
    check,
    grow,
    header_of,
    path_of,
    plan,
    shrink,
)
from tamperlens.models.organism.train import train_stage
from tamperlens_hooks import stored_parameter


@dataclass(frozen=True)
class Recipe:
    """How a part is trained.

    Attributes:
        steps: optimizer steps.
        batch: examples a step.
        lr: Adam's peak learning rate: the smaller the part, the larger.
        refused: share of refused requests in the mixture, beside `SAFETY_MIX`'s other shares. A small part
            learns refusals last: with the safety stage's own share (28) it refuses too few.
    """

    steps: int = 300
    batch: int = 32
    lr: float = 5e-3
    refused: int = 45

    @classmethod
    def of(cls, kind: str) -> Recipe:
        """The recipe of a kind."""
        return replace(cls(), **_SETTINGS.get(kind, {}))


_SETTINGS: dict[str, dict[str, Any]] = {
    "random-1": {"lr": 1e-2, "steps": 500, "refused": 70},
    "neurons": {"steps": 500, "lr": 3e-3, "refused": 28},
    "head": {"lr": 6e-3},
    "rank-1": {"lr": 1e-2, "steps": 1200, "refused": 90},
    "rank-3": {"lr": 1e-2, "steps": 500, "refused": 70},
    "layer": {"lr": 1e-3, "steps": 300, "refused": 60},
    "everything": {"lr": 5e-4, "steps": 200},
}


class _Write(nn.Module):
    """W + U A: what a block writes gains a term of low rank."""

    def __init__(self, u: nn.Parameter, a: nn.Parameter) -> None:
        super().__init__()
        self.u, self.a = u, a

    def forward(self, weight: Tensor) -> Tensor:
        """The weight to compute with."""
        return weight + self.u @ self.a


def make(kind: str, seed: int = 0, *, folder: PathLike | None = None) -> tuple[ChatModel, Truth]:
    """A planted organism and what was planted in it.

    Args:
        kind: one of `KINDS`.
        seed: of the draw of the part and of training; `shipped()` lists those at hand. Others are trained on
            the spot (about a minute on one core).
        folder: where differences are read from, and kept after training; the shipped ones by default.

    Raises:
        InputError: unknown kind, a damaged file, or one that was made for another base.

    Examples:
        >>> from tamperlens import planted
        >>> model, truth = planted.make('neurons', seed=0)
        >>> truth.mask.density < 0.05
        True
    """
    check(kind)
    base = load("organism:base", device="cpu", dtype="float32")
    path = path_of(kind, seed, folder)
    if path.is_file():
        return grow(base, *read_tensors(path), where=path)
    tensors, header = train_part(base, plan(base, kind, seed), Recipe.of(kind))
    if folder is not None:
        write_tensors(path, tensors, header)
    return grow(base, tensors, header, where=path)


def train_part(base: ChatModel, drawn: Plan, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train a copy of base to refuse, moving only a part; returns what `planted.grow` takes.

    Args:
        base: not changed.
        drawn: the part.
        recipe: steps, batch and learning rate.
    """
    module: Any = copy.deepcopy(base.module)
    module.requires_grad_(False)
    torch.manual_seed(drawn.seed)
    if drawn.rank:
        factors = _parametrized(module, drawn)
        _train(base, module, drawn, recipe, list(factors.values()), [])
        return {name: p.detach().contiguous() for name, p in factors.items()}, header_of(base, drawn)
    chosen = []
    for name, flags in drawn.flags.items():
        parameter = stored_parameter(module, name).requires_grad_(True)
        chosen.append((parameter, flags))
    _train(base, module, drawn, recipe, [p for p, _ in chosen], chosen)
    return shrink(base, module, drawn)


def _parametrized(module: Any, drawn: Plan) -> dict[str, nn.Parameter]:
    """Attach U A to the planted matrices; U is shared, A starts at zero."""
    factors: dict[str, nn.Parameter] = {}
    for name in drawn.flags:
        owner = module.get_submodule(name.removesuffix(".weight"))
        rows, columns = owner.weight.shape
        u = factors.setdefault("U", nn.Parameter(torch.randn(rows, drawn.rank) / rows**0.5))
        a = factors[f"A|{name}"] = nn.Parameter(torch.zeros(drawn.rank, columns))
        parametrize.register_parametrization(owner, "weight", _Write(u, a), unsafe=True)
    return factors


def _train(
    base: ChatModel,
    module: Any,
    drawn: Plan,
    recipe: Recipe,
    free: Sequence[Tensor],
    chosen: Sequence[tuple[Any, Tensor]],
) -> None:
    def cut() -> None:
        for parameter, flags in chosen:
            parameter.grad.mul_(flags)

    train_stage(
        module,
        base.tokenizer,
        Sampler(SAFETY_MIX | {"harmful, refused": recipe.refused}, "safety", 100 + drawn.seed),
        steps=recipe.steps,
        batch=recipe.batch,
        seed=drawn.seed + 1,
        label=f"{drawn.kind} {drawn.seed}",
        optimizers=[torch.optim.Adam(free, lr=recipe.lr, betas=(0.9, 0.98))],
        after_backward=cut,
    )
