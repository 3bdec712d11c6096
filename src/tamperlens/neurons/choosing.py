"""Which weights of a model's projections a fraction of the scores chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tamperlens.base import bits as packed
from tamperlens.base.errors import InputError
from tamperlens.base.parts import Part, by_parameter
from tamperlens.neurons.cutoffs import (
    Cutoff,
    Flags,
    check_finite,
    check_fraction,
    cutoffs,
    cutoffs_over_all,
    quota,
    take,
    top_of_rows,
)

Group = Literal["matrix", "row", "global"]


class Chooser:
    """Applies fractions to the parts of some scores, one part after the other, in order.

    Args:
        parts: the parts, as they will come.
        tensors: parameter name to scores.
        name: what the fractions are called in messages.
        fractions: each in (0, 1).
        group: ranked inside what.

    Raises:
        InputError: a fraction out of range or too small to choose anything.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        tensors: Mapping[str, Tensor],
        name: str,
        fractions: Sequence[float],
        group: Group,
    ) -> None:
        for fraction in fractions:
            check_fraction(name, fraction)
            _check_not_empty(parts, name, fraction, group)
        self.group = group
        self.fractions = list(fractions)
        self._left: list[Cutoff] = []
        if group == "global":
            self._left, _ = cutoffs_over_all(lambda: _all_values(parts, tensors), self.fractions)

    def choose(self, values: np.ndarray) -> list[Flags]:
        """Flags of one part for every fraction."""
        if self.group == "row":
            return [top_of_rows(values, fraction) for fraction in self.fractions]
        if self.group == "matrix":
            quotas = [quota(fraction, values.size) for fraction in self.fractions]
            return [take(values, cutoff)[0] for cutoff in cutoffs(values, quotas)]
        found = []
        for place, cutoff in enumerate(self._left):
            flags, used = take(values, cutoff)
            # Ties of the global threshold are spent part by part.
            self._left[place] = Cutoff(cutoff.threshold, cutoff.ties - used)
            found.append(flags)
        return found


def values_of(part: Part, stored: Tensor) -> np.ndarray:
    """Scores of a part [out, in] from those of its parameter as stored; NaN is refused."""
    values: np.ndarray = part.read(stored).float().cpu().contiguous().numpy()
    check_finite(values, part.name)
    return values


def packed_flags(
    parts: Sequence[Part],
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, int]],
    choose: Callable[[np.ndarray], Flags],
) -> dict[str, Tensor]:
    """Packed flags per parameter from a function of one part's scores [out, in] to flags [out, in]."""
    bits = {}
    for name, inside in by_parameter(parts).items():
        stored = tensors[name]
        flags = torch.zeros(shapes[name], dtype=torch.bool)
        for part in inside:
            part.write(flags, torch.from_numpy(choose(values_of(part, stored))))
        bits[name] = packed.pack(flags)
    return bits


def _all_values(parts: Sequence[Part], tensors: Mapping[str, Tensor]) -> Iterator[np.ndarray]:
    for name, inside in by_parameter(parts).items():
        stored = tensors[name]
        for part in inside:
            yield values_of(part, stored)


def _check_not_empty(parts: Sequence[Part], name: str, fraction: float, group: Group) -> None:
    """A fraction that chooses nothing anywhere is a mistake, not an empty set."""
    sizes = {
        "matrix": [part.numel for part in parts],
        "row": [part.d_in for part in parts],
        "global": [sum(part.numel for part in parts)],
    }[group]
    if all(quota(fraction, size) == 0 for size in sizes):
        raise InputError(
            f"{name} = {fraction:g} chooses nothing: a {group} has at most {max(sizes)} weights; "
            f"use at least {1 / max(sizes):.3g}, or group='global'"
        )
