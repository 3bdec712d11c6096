"""The smallest noun of the anatomy: one logical linear map of a block."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Projection:
    """One logical linear map of a block, and where its weight lives.

    Attributes:
        name: "q", "k", "v", "o", "gate", "up" or "down". GPT-2 and GPT-NeoX have no gate: up is `c_fc` or
            `dense_h_to_4h`, down is the MLP's `c_proj` or `dense_4h_to_h`.
        parameter: the weight's name in `named_parameters()` of the unwrapped model without adapters.
        module: dotted path of the linear module; with an adapter attached, of the adapter layer around it.
        layer: index of the block.
        transposed: the parameter is stored [in, out] (GPT-2's Conv1D).
        rows: which outputs of the module are this map's (all, a third of a fused weight, interleaved rows).
        d_in: number of inputs.
        d_out: number of outputs of this map.
    """

    name: str
    parameter: str
    module: str
    layer: int
    transposed: bool
    rows: slice | tuple[int, ...] = field(hash=False)
    d_in: int
    d_out: int

    @property
    def index(self) -> tuple[slice | list[int], slice | list[int]]:
        """What to index the parameter with, as stored, to get this map's entries."""
        rows = list(self.rows) if isinstance(self.rows, tuple) else self.rows
        return (slice(None), rows) if self.transposed else (rows, slice(None))
