"""From scores to sets: top fractions, set differences, and sweeps over their fractions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tamperlens.base import bits as packed
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask, joined_prompts
from tamperlens.base.parts import by_parameter
from tamperlens.neurons.choosing import Chooser, Group, values_of
from tamperlens.neurons.scores import WeightScores, require_same


def set_difference(
    safety: WeightScores,
    utility: WeightScores,
    p: float,
    q: float,
    group: Group = "matrix",
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
    group: Group = "matrix",
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
    require_same(safety, utility)
    spared, taken = sorted({p for p, _ in points}), sorted({q for _, q in points})
    from_utility = Chooser(utility.parts, utility.tensors, "p", spared, group)
    from_safety = Chooser(safety.parts, safety.tensors, "q", taken, group)
    made: list[dict[str, Tensor]] = [{} for _ in points]
    shapes = safety.shapes
    for name, parts in by_parameter(safety.parts).items():
        one, other = safety.tensors[name], utility.tensors[name]
        if one.shape != other.shape:
            raise InputError(f"the two scores of {name} have the shapes {one.shape} and {other.shape}")
        flags = [torch.zeros(shapes[name], dtype=torch.bool) for _ in points]
        for part in parts:
            wanted = dict(zip(taken, from_safety.choose(values_of(part, one)), strict=True))
            kept = dict(zip(spared, from_utility.choose(values_of(part, other)), strict=True))
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
        masks.append((p, q, safety.mask(bits, words, prompts)))
    return masks


def _names(prompts: Mapping[str, str]) -> str:
    return ", ".join(prompts) or "no prompts"
