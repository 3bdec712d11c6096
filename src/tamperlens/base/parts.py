"""One logical linear map inside a stored parameter: which entries of the parameter are whose.

The hook layer's `Projection` says the same of a live module; a `Part` is its plain, storable form, so that
scores and masks can be read without the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.schemas import Schema
from tamperlens_hooks import Projection, module_and_anatomy, stored_parameter


@dataclass(frozen=True)
class Part:
    """A projection's place in a parameter.

    Attributes:
        parameter: the parameter's name in the unwrapped model without adapters.
        projection: "q", "k", "v", "o", "gate", "up" or "down".
        layer: index of the block.
        transposed: the parameter is stored [in, out].
        rows: ranges [start, stop) of the module's outputs that are this projection's, in order.
        d_out: number of outputs of this projection.
        d_in: number of inputs.
    """

    parameter: str
    projection: str
    layer: int
    transposed: bool
    rows: tuple[tuple[int, int], ...]
    d_out: int
    d_in: int

    @classmethod
    def of(cls, projection: Projection, n_outputs: int) -> Part:
        """The part that a projection describes, in a module with `n_outputs` outputs."""
        rows = projection.rows
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n_outputs)
            ranges = _ranges(range(start, stop, step))
        else:
            ranges = _ranges(rows)
        return cls(
            projection.parameter,
            projection.name,
            projection.layer,
            projection.transposed,
            ranges,
            projection.d_out,
            projection.d_in,
        )

    @property
    def name(self) -> str:
        """Layer and projection, e.g. "3.up"; unique in a model."""
        return f"{self.layer}.{self.projection}"

    @property
    def numel(self) -> int:
        """Number of weights."""
        return self.d_out * self.d_in

    @property
    def whole(self) -> bool:
        """Whether the rows are one range, so that reading them needs no copy."""
        return len(self.rows) == 1

    def read(self, stored: Shaped[Tensor, "a b"]) -> Shaped[Tensor, "d_out d_in"]:
        """This part of a tensor shaped like the parameter, as [out, in]; a view where the rows allow it."""
        logical = stored.T if self.transposed else stored
        if self.whole:
            return logical[self.rows[0][0] : self.rows[0][1]]
        return torch.cat([logical[start:stop] for start, stop in self.rows])

    def write(self, stored: Shaped[Tensor, "a b"], values: Shaped[Tensor, "d_out d_in"]) -> None:
        """Put [out, in] values into this part of a tensor shaped like the parameter, in place."""
        logical = stored.T if self.transposed else stored
        place = 0
        for start, stop in self.rows:
            logical[start:stop] = values[place : place + stop - start]
            place += stop - start

    def to_json(self) -> list[object]:
        """Plain values for a file header."""
        return list(astuple(self))

    @classmethod
    def from_json(cls, value: Sequence[object]) -> Part:
        """What `to_json` wrote, held to `Header` already."""
        entry: Any = value
        parameter, projection, layer, transposed, rows, d_out, d_in = entry
        return cls(
            parameter,
            projection,
            layer,
            transposed,
            tuple((start, stop) for start, stop in rows),
            d_out,
            d_in,
        )


class Header(Schema):
    """What files of masks and scores say of themselves."""

    model: str
    fingerprint: str
    base_fingerprint: str
    definition: str
    prompts: dict[str, str]
    parts: list[tuple[str, str, int, bool, list[tuple[int, int]], int, int]]


def by_parameter(parts: Iterable[Part]) -> dict[str, list[Part]]:
    """Parts grouped by the parameter that holds them, in order of appearance."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.parameter, []).append(part)
    return found


def check_shapes(parts: Sequence[Part], shapes: dict[str, tuple[int, ...]]) -> None:
    """Every part must fit into the shape of its parameter.

    Raises:
        InputError: a parameter is missing or too small.
    """
    for part in parts:
        shape = shapes.get(part.parameter)
        if shape is None:
            raise InputError(f"no tensor for {part.parameter}, which holds {part.name}")
        outputs, inputs = shape[::-1] if part.transposed else shape
        if inputs != part.d_in or part.rows[-1][1] > outputs:
            raise InputError(
                f"{part.parameter} is {list(shape)} and {part.name} has {part.d_out} × {part.d_in} weights; "
                "give a tensor shaped like the parameter"
            )


def _ranges(rows: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1][1] = row + 1
        else:
            found.append([int(row), int(row) + 1])
    return tuple((start, stop) for start, stop in found)


def parts_of(model: Any, projections: Iterable[Projection] | None = None) -> tuple[Part, ...]:
    """The parts of a model, block by block; its embeddings, unembedding and norms are none.

    Args:
        model: a module, or an object with `.module` and `.anatomy` such as a ChatModel.
        projections: those wanted; all by default.
    """
    module, anatomy = module_and_anatomy(model)
    found = []
    for projection in anatomy.projections() if projections is None else projections:
        shape = stored_parameter(module, projection.parameter).shape
        outputs = shape[-1] if projection.transposed else shape[0]
        found.append(Part.of(projection, int(outputs)))
    return tuple(found)


def shapes_of(model: Any, parts: Iterable[Part]) -> dict[str, tuple[int, int]]:
    """Shape of every parameter that holds one of the parts, as stored."""
    module, _ = module_and_anatomy(model)
    shapes = {}
    for name in by_parameter(parts):
        rows, columns = stored_parameter(module, name).shape
        shapes[name] = (int(rows), int(columns))
    return shapes
