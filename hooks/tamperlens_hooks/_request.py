"""What a traced forward pass is asked for, in plain values that can travel, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tamperlens_hooks._sites import place
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.capture import Tape
from tamperlens_hooks.edit import Head
from tamperlens_hooks.errors import HookError

Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Trace:
    """What `trace` found. Tensors are on the CPU and carry no graph.

    Attributes:
        reads: site to activations, shaped as `Tape` has them: [layer, batch, (pos,) d], "head_z"
            [layer, batch, (pos,) head, d_head], "final" [batch, (pos,) d]. Behind the edits where both meet.
        logits: of the last position, [batch, vocab].
        metric: the metric of each example, [batch]; None where none was given.
        gradients: site to the gradient of the metric's sum, shaped as the reads; empty without a metric.
        backend: "hooks" or "nnsight".
    """

    reads: dict[str, Tensor]
    logits: Float[Tensor, "batch vocab"]
    metric: Float[Tensor, " batch"] | None
    gradients: dict[str, Tensor]
    backend: str


@dataclass(frozen=True)
class Request:
    """A checked request, in plain values that can travel.

    Attributes:
        anatomy: of the model.
        sites: to read.
        layers: to read.
        columns: negative positions, or None for all.
        last: whether the position axis is dropped.
        values: (layer, head) to the z to put there.
        unit: direction to remove everywhere, of length 1, or None.
        metric: function of all logits [batch, pos, vocab], or None.
    """

    anatomy: Anatomy
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    columns: tuple[int, ...] | None
    last: bool
    values: dict[Head, Tensor]
    unit: Tensor | None
    metric: Metric | None

    def places(self) -> list[tuple[str, bool, str, int]]:
        """(module path, whether its input is meant, site, layer) of every read."""
        return [
            (*place(self.anatomy, site, layer), site, layer)
            for site in self.sites
            for layer in (self.layers if site != "final" else (-1,))
        ]

    def shaped(self, found: Mapping[tuple[str, int], Tensor]) -> dict[str, Tensor]:
        """Activations or gradients by (site, layer), stacked as `Tape` stacks them."""
        tape = Tape(self.anatomy, self.sites, self.layers, last=self.last)
        for (site, layer), value in found.items():
            tape._store(site, layer, value.cpu())
        return {site: tape[site] for site in self.sites}


def check_metric(value: Any, n: int) -> None:
    """Refuse a metric that is not one number per example.

    Raises:
        HookError: it is not.
    """
    if value is None:
        return
    shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if shape != [n]:
        raise HookError(
            f"the metric must give one number per example, a tensor of shape [{n}]; got {shape}. From logits "
            "[batch, pos, vocab] read for instance logits[:, -1, a] - logits[:, -1, b]"
        )


def assemble(
    request: Request,
    keys: Sequence[tuple[str, int]],
    nodes: Sequence[Tensor],
    slopes: Sequence[Tensor],
    logits: Tensor,
    value: Tensor | None,
    backend: str,
) -> Trace:
    """A `Trace` of tensors in the order of the places, cut to the positions already."""
    return Trace(
        request.shaped(dict(zip(keys, nodes, strict=True))),
        logits.detach().cpu(),
        None if value is None else value.detach().cpu(),
        request.shaped(dict(zip(keys, slopes, strict=True))) if slopes else {},
        backend,
    )
