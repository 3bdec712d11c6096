"""From scores to sets: top fractions, set differences, and sweeps over their fractions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from tamperlens.base import bits as packed
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask, joined_prompts
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
from tamperlens.neurons.scores import Group, WeightScores, require_same


def top(scores: WeightScores, fraction: float, group: Group | str = "matrix") -> WeightMask:
    """See `WeightScores.top`."""
    check_fraction("fraction", fraction)
    _check_group(group)
    _check_not_empty(scores, {"fraction": float(fraction)}, group)
    chooser = _Chooser(scores, [float(fraction)], group)
    bits = _pack(scores, lambda part, values: chooser.choose(values)[0])
    return _mask(scores, bits, f"top {fraction:g} per {group} of {scores.definition}", scores.prompts)


def set_difference(
    safety: WeightScores,
    utility: WeightScores,
    p: float,
    q: float,
    group: Group | str = "matrix",
) -> WeightMask:
    """S(p, q): the top q of the safety scores without the top p of the utility scores.

    Wei et al. 2024 (arXiv 2402.05162, §3.2). Their paper ranks inside each output row, their code of the set
    difference inside each whole matrix: `group="matrix"`, the default, reproduces the code, "row" the paper.

    Args:
        safety: scores on safety data (harmful prompts with refusals).
        utility: scores on utility data, of the same model.
        p: fraction of utility weights to spare, in (0, 1).
        q: fraction of safety weights to take, in (0, 1).
        group: ranked inside what.

    Raises:
        InputError: p or q out of range, scores of different models or projections.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons
        >>> model = tamperlens.load('organism')
        >>> safety, utility = neurons.random(model, seed=0), neurons.random(model, seed=1)
        >>> critical = neurons.set_difference(safety, utility, p=0.1, q=0.1)
        >>> critical == safety.top(0.1) - utility.top(0.1)
        True
    """
    [(_, _, mask)] = sweep(safety, utility, [(p, q)], group)
    return mask


def sweep(
    safety: WeightScores,
    utility: WeightScores,
    grid: Iterable[tuple[float, float]],
    group: Group | str = "matrix",
) -> list[tuple[float, float, WeightMask]]:
    """The set difference for every (p, q) of a grid, from one reading of the two scores.

    Returns:
        (p, q, mask) in the order of the grid. The masks together take one bit a weight and point.

    Raises:
        InputError: see `set_difference`.
    """
    points = [(float(p), float(q)) for p, q in grid]
    if not points:
        raise InputError("the grid has no points; give pairs (p, q)")
    for p, q in points:
        check_fraction("p", p)
        check_fraction("q", q)
    _check_group(group)
    require_same(safety, utility)
    for p, q in points:
        _check_not_empty(safety, {"p": p, "q": q}, group)
    spared, taken = sorted({p for p, _ in points}), sorted({q for _, q in points})
    from_utility, from_safety = _Chooser(utility, spared, group), _Chooser(safety, taken, group)
    made: list[dict[str, Tensor]] = [{} for _ in points]
    shapes = safety.shapes
    for name, parts in by_parameter(safety.parts).items():
        one, other = safety.tensors[name], utility.tensors[name]
        if one.shape != other.shape:
            raise InputError(f"the two scores of {name} have the shapes {one.shape} and {other.shape}")
        flags = [torch.zeros(shapes[name], dtype=torch.bool) for _ in points]
        for part in parts:
            wanted = dict(zip(taken, from_safety.choose(_values(part, one)), strict=True))
            kept = dict(zip(spared, from_utility.choose(_values(part, other)), strict=True))
            for place, (p, q) in enumerate(points):
                part.write(flags[place], torch.from_numpy(wanted[q] & ~kept[p]))
        for place, flag in enumerate(flags):
            made[place][name] = packed.pack(flag)
    prompts = joined_prompts(safety.prompts, utility.prompts)
    masks = []
    for (p, q), bits in zip(points, made, strict=True):
        words = (
            f"set difference per {group}: top {q:g} of [{safety.definition}; {_names(safety.prompts)}] "
            f"without top {p:g} of [{utility.definition}; {_names(utility.prompts)}]"
        )
        masks.append((p, q, _mask(safety, bits, words, prompts)))
    return masks


class _Chooser:
    """Applies fractions to the parts of some scores, one part after the other, in order."""

    def __init__(self, scores: WeightScores, fractions: Sequence[float], group: str) -> None:
        self.group = group
        self.fractions = list(fractions)
        self._left: list[Cutoff] = []
        if group == "global":
            self._left, _ = cutoffs_over_all(lambda: _checked(scores), self.fractions)

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


def _values(part: Part, stored: Tensor) -> np.ndarray:
    values: np.ndarray = part.read(stored).float().cpu().contiguous().numpy()
    check_finite(values, part.name)
    return values


def _checked(scores: WeightScores) -> Iterator[np.ndarray]:
    for part, values in scores.by_part():
        check_finite(values, part.name)
        yield values


def _pack(scores: WeightScores, choose: object) -> dict[str, Tensor]:
    """Packed flags per parameter from a function (part, values [out, in]) -> flags [out, in]."""
    assert callable(choose)
    bits, shapes = {}, scores.shapes
    for name, parts in by_parameter(scores.parts).items():
        stored = scores.tensors[name]
        flags = torch.zeros(shapes[name], dtype=torch.bool)
        for part in parts:
            part.write(flags, torch.from_numpy(choose(part, _values(part, stored))))
        bits[name] = packed.pack(flags)
    return bits


def _mask(
    scores: WeightScores, bits: Mapping[str, Tensor], definition: str, prompts: Mapping[str, str]
) -> WeightMask:
    return WeightMask(
        bits,
        scores.shapes,
        scores.parts,
        scores.fingerprint,
        scores.base_fingerprint,
        scores.model,
        definition,
        dict(prompts),
    )


def _check_group(group: str) -> None:
    if group not in get_args(Group):
        raise InputError(f"group is {group!r}; it must be one of {', '.join(get_args(Group))}")


def _check_not_empty(scores: WeightScores, fractions: Mapping[str, float], group: str) -> None:
    """A fraction that chooses nothing anywhere is a mistake, not an empty set."""
    for name, fraction in fractions.items():
        sizes = {
            "matrix": [part.numel for part in scores.parts],
            "row": [part.d_in for part in scores.parts],
            "global": [scores.total],
        }[group]
        if all(quota(fraction, size) == 0 for size in sizes):
            raise InputError(
                f"{name} = {fraction:g} chooses nothing: a {group} has at most {max(sizes)} weights; "
                f"use at least {1 / max(sizes):.3g}, or group='global'"
            )


def _names(prompts: Mapping[str, str]) -> str:
    return ", ".join(prompts) or "no prompts"
