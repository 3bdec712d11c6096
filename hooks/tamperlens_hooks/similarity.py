"""How far each example's gradient points along given gradients, without building any example's gradient.

For a linear map the gradient of one example is GᵀX, with X [seq, in] what the map read and G [seq, out] the
gradient at its output. Its product with a matrix D is Σ_t G_t · D X_t, and its squared norm is
Σ_tt' (G_t · G_t')(X_t · X_t'), which needs no matrix of the weight's size where the sequence is short
(Goodfellow 2015, arXiv 1510.01799, for one position; Li et al. 2022, arXiv 2110.05679, for sequences).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.gradients import refuse_shared, tapped


@dataclass(eq=False)
class ProductTape:
    """Products of per-example gradients with given ones, filled by `backward`.

    Attributes:
        along: name of a direction to parameter name to the matrix, shaped like the parameter as stored.
    """

    along: Mapping[str, Mapping[str, Tensor]]
    _asked: str | None = None
    _shares: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def backward(
        self, losses: Float[Tensor, " batch"], along: str, *, again: bool = False
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """One backward pass over a batch of losses, one per example.

        Args:
            losses: [batch], from a forward pass inside the `with` block; examples must not depend on each
                other.
            along: which direction.
            again: whether another backward pass of the same forward pass will follow.

        Returns:
            (⟨∂L_b/∂W, D⟩, ‖∂L_b/∂W‖) over all maps together.

        Raises:
            HookError: no such direction, no gradient reached a map, or a map was used twice in the forward
                pass.
        """
        if along not in self.along:
            raise HookError(f"no direction {along!r}; there are {', '.join(self.along)}")
        self._asked, self._shares, self._seen = along, [], set()
        losses.sum().backward(retain_graph=again)  # type: ignore[no-untyped-call]
        idle = [name for name in self.along[along] if name not in self._seen]
        if idle:
            raise HookError(
                f"no gradient reached {idle[0]}; compute the losses from a forward pass inside the block"
            )
        products, squares = (torch.stack(one).sum(0) for one in zip(*self._shares, strict=True))
        return products, squares.clamp_min(0).sqrt()

    def _add(self, name: str, transposed: bool, x: Tensor, g: Tensor) -> None:
        """Add one map's share for one batch: x [batch, seq, in], g [batch, seq, out]."""
        assert self._asked is not None
        if name in self._seen:
            raise HookError(
                f"{name} is used more than once in a forward pass; |gradient| of shared weights is not "
                "supported"
            )
        if x.ndim == 2:
            raise HookError(f"{name} was called without a batch axis, so examples cannot be told apart")
        matrix = self.along[self._asked][name].to(x)
        self._seen.add(name)
        moved = x @ (matrix if transposed else matrix.T)
        product = (g.float() * moved.float()).sum((1, 2))
        wide_x, wide_g = x.float(), g.float()
        if x.shape[1] * (x.shape[2] + g.shape[2]) < x.shape[2] * g.shape[2]:
            squares = ((wide_x @ wide_x.mT) * (wide_g @ wide_g.mT)).sum((1, 2))
        else:
            squares = (wide_g.mT @ wide_x).square().sum((1, 2))
        self._shares.append((product, squares))


@on_model
@contextmanager
def project_gradients(
    model: nn.Module,
    anatomy: Anatomy,
    along: Mapping[str, Mapping[str, Tensor]],
    projections: Iterable[Projection] | None = None,
    *,
    checkpoint: bool = False,
) -> Iterator[ProductTape]:
    """Products of every example's gradient with given gradients, over the backward passes inside the block.

    Args:
        model: module and anatomy, or one object with both; with an adapter attached the gradient is that of
            the merged weight.
        anatomy: of the module.
        along: name to gradients by parameter, such as a `GradientTape`'s sums.
        projections: the maps concerned; all by default. Each direction must have them all.
        checkpoint: recompute blocks in the backward pass.

    Raises:
        HookError: no projection, a direction that lacks one, or a parameter that two modules share.

    Examples:
        >>> import tamperlens, torch
        >>> from tamperlens import hooks
        >>> model = tamperlens.load("organism:tiny")
        >>> ids = torch.tensor([model.tokenizer("Name a tree.")["input_ids"]])
        >>> def loss():
        ...     return -model.module(input_ids=ids).logits[:, -2].log_softmax(-1)[:, 5]
        >>> with hooks.accumulate_gradients(model, reduction="signed") as tape:
        ...     _ = tape.backward(loss())
        >>> with hooks.project_gradients(model, {"itself": tape.sums}) as read:
        ...     product, norm = read.backward(loss(), "itself")
        >>> bool(torch.isclose(product, norm**2, rtol=1e-3))
        True
    """
    wanted = list(anatomy.projections() if projections is None else projections)
    if not wanted:
        raise HookError("no projections to take gradients of; name at least one")
    modules = {part.module: part for part in wanted}
    refuse_shared(model, modules.values())
    for name, matrices in along.items():
        missing = [part.parameter for part in modules.values() if part.parameter not in matrices]
        if missing:
            raise HookError(f"direction {name!r} has no matrix for {missing[0]}")
    needed = {part.parameter for part in modules.values()}
    tape = ProductTape({name: {k: v for k, v in of.items() if k in needed} for name, of in along.items()})
    with tapped(model, anatomy, modules, tape, checkpoint=checkpoint):
        yield tape
