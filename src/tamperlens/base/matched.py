"""Random control sets matched to a mask: same count in every matrix, same distribution of |w|."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tamperlens.base import bits as packed
from tamperlens.base.masks import WeightMask
from tamperlens.base.parts import by_parameter


def matched_random(
    mask: WeightMask, weight: Callable[[str], Tensor], *, seed: int, bins: int = 20, disjoint: bool = True
) -> WeightMask:
    """A random set with the count of `mask` in every bin of |w| of every projection.

    Bins hold equal numbers of weights (quantiles of |w| inside the projection). A control of a set of large
    weights is then itself made of large weights, so that a difference between them is not one of size.

    Args:
        mask: the set to match.
        weight: parameter name to its values, shaped like the parameter.
        seed: of the draw.
        bins: number of bins per projection.
        disjoint: draw from outside the set as far as a bin has enough; the rest comes from inside it (a bin
            that the set fills by more than half has no other weights to offer).
    """
    generator = np.random.default_rng(seed)
    made, shared = {}, 0
    for name, parts in by_parameter(mask.parts).items():
        flags, values = mask[name], weight(name).detach().abs().float().cpu()
        drawn = torch.zeros_like(flags)
        for part in parts:
            inside = part.read(flags).reshape(-1).numpy()
            if not inside.any():
                continue
            order = np.argsort(part.read(values).reshape(-1).numpy(), kind="stable")
            chosen = np.zeros(inside.size, dtype=bool)
            for members in np.array_split(order, min(bins, order.size)):
                wanted = int(inside[members].sum())
                pool = members[~inside[members]] if disjoint else members
                picks = generator.permutation(pool)[:wanted]
                chosen[picks] = True
                if picks.size < wanted:
                    rest = generator.permutation(members[inside[members]])[: wanted - picks.size]
                    chosen[rest] = True
                    shared += rest.size
            part.write(drawn, torch.from_numpy(chosen.reshape(part.d_out, part.d_in)))
        made[name] = packed.pack(drawn)
    note = f", {shared} weights shared with it" if shared else ""
    words = f"random, matched to [{mask.definition}] on projection and |w| bin, seed {seed}{note}"
    return replace(mask, bits=made, definition=words)
