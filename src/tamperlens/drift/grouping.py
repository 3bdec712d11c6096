"""Groups of weights to watch, each with a control that is matched on where it sits and how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.base.nouns import Noun
from tamperlens.base.parts import by_parameter, parts_of
from tamperlens.models import ModelLike, as_chat_model
from tamperlens_hooks import module_and_anatomy, stored_parameter

Flags = npt.NDArray[np.bool_]
TOP_SAFETY, CRITICAL, TOP_UTILITY, RANDOM = "top safety", "safety-critical", "top utility", "random"


@dataclass(frozen=True, eq=False)
class Groups(Noun, Mapping[str, WeightMask]):
    """Named sets of weights of one model, in order; a mapping from name to `WeightMask`.

    Attributes:
        masks: name to set.
        controls: name of a group to the name of its matched control.
        matching: one row per control and projection: group, layer, module, n, and mean |w0| of the group and
            of the control (mean_group, mean_control).
    """

    masks: Mapping[str, WeightMask] = field(repr=False)
    controls: Mapping[str, str]
    matching: pd.DataFrame = field(repr=False)

    def __getitem__(self, name: str) -> WeightMask:
        return self.masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def to_frame(self) -> pd.DataFrame:
        """One row per group: group, count, density, control, definition."""
        return pd.DataFrame(
            [
                {
                    "group": name,
                    "count": mask.count,
                    "density": mask.density,
                    "control": self.controls.get(name, ""),
                    "definition": mask.definition,
                }
                for name, mask in self.masks.items()
            ]
        )


@runtime_checkable
class HasTop(Protocol):
    """Scores of weights, of which the highest can be taken, such as what `neurons.snip` returns."""

    def top(self, fraction: float) -> WeightMask:
        """The highest-scored share."""
        ...


def groups(
    model: ModelLike,
    *,
    safety: WeightMask | HasTop,
    utility: WeightMask | HasTop | None = None,
    critical: WeightMask | None = None,
    fraction: float = 0.01,
    critical_fractions: tuple[float, float] = (0.1, 0.1),
    bins: int = 32,
    seed: int = 0,
) -> Groups:
    """The groups of the drift question, with controls matched on module × |w0| bin × count.

    "top safety" and "top utility" are the top `fraction` of each matrix by score; "safety-critical" is the
    set difference (Wei et al. 2024), top q of safety without top p of utility; "random" has as many weights
    in every matrix as "top safety", drawn evenly. Each of the first three has a control: weights of the same
    matrix that are in none of them, as many in every bin of |w0|, bins being quantiles of the group's own
    |w0|. A bin that runs out of candidates is filled with those nearest in size; `Groups.matching` shows how
    well it went.

    Args:
        model: the ChatModel that the groups are of.
        safety: scores (`neurons.snip(...)`, anything with `.top(fraction)`) or a mask.
        utility: the same for utility; without it there is no "top utility", and "safety-critical" only if
            given.
        critical: the safety-critical set, instead of the set difference of the two scores.
        fraction: share of every matrix in the top groups, in (0, 1).
        critical_fractions: (p, q) of the set difference.
        bins: bins of |w0|, fewer where a group has less than 8 weights a bin.
        seed: of the draws.

    Raises:
        InputError: neither scores nor a mask, a set of another model, an empty set, a fraction out of range.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import drift, neurons
        >>> model = tamperlens.load('organism')
        >>> safety, utility = neurons.random(model, seed=0), neurons.random(model, seed=1)
        >>> found = drift.groups(model, safety=safety, utility=utility)
        >>> sorted(found.masks)[:2]
        ['control of safety-critical', 'control of top safety']
    """
    model = as_chat_model(model)
    if not 0 < fraction < 1:
        raise InputError(f"fraction={fraction} must lie between 0 and 1")
    named = {TOP_SAFETY: _as_mask("safety", safety, fraction)}
    if critical is None and utility is not None and hasattr(safety, "top") and hasattr(utility, "top"):
        p, q = critical_fractions
        critical = safety.top(q) - utility.top(p)
    if critical is not None:
        named[CRITICAL] = _as_mask("critical", critical, fraction)
    if utility is not None:
        named[TOP_UTILITY] = _as_mask("utility", utility, fraction)
    for name, mask in named.items():
        mask.check(model)
        if mask.count == 0:
            raise InputError(f"the group {name!r} is empty; take a larger fraction")
    return _with_controls(model, named, bins, seed)


def _with_controls(model: Any, named: Mapping[str, WeightMask], bins: int, seed: int) -> Groups:
    module, _ = module_and_anatomy(model)
    wanted = [*named, *(f"control of {name}" for name in named), RANDOM]
    flags: dict[str, dict[str, torch.Tensor]] = {name: {} for name in wanted if name not in named}
    rows = []
    rng = np.random.default_rng(seed)
    for parameter, parts in by_parameter(parts_of(model)).items():
        weight = stored_parameter(module, parameter).detach()
        held = {name: mask[parameter] for name, mask in named.items() if parameter in mask}
        made = {name: torch.zeros(tuple(weight.shape), dtype=torch.bool) for name in flags}
        for part in parts:
            size = part.read(weight).float().abs().cpu().contiguous().numpy().ravel()
            inside = {name: part.read(h).contiguous().numpy().ravel() for name, h in held.items()}
            taken = np.zeros(size.size, dtype=np.bool_)
            for chosen in inside.values():
                taken |= chosen
            for name, chosen in inside.items():
                control = matched(size, chosen, ~taken, bins, rng)
                _put(part, made[f"control of {name}"], control)
                n = int(chosen.sum())
                rows.append(
                    {
                        "group": name,
                        "layer": part.layer,
                        "module": part.projection,
                        "n": n,
                        "mean_group": float(size[chosen].mean()) if n else float("nan"),
                        "mean_control": float(size[control].mean()) if control.any() else float("nan"),
                    }
                )
            drawn = np.zeros(size.size, dtype=np.bool_)
            count = int(inside[TOP_SAFETY].sum()) if TOP_SAFETY in inside else 0
            drawn[rng.choice(size.size, count, replace=False, shuffle=False)] = True
            _put(part, made[RANDOM], drawn)
        for name, tensor in made.items():
            flags[name][parameter] = tensor
    masks = dict(named)
    for name, tensors in flags.items():
        words = (
            f"as many weights of every matrix as {TOP_SAFETY!r}, drawn evenly, seed {seed}"
            if name == RANDOM
            else f"matched to {name.removeprefix('control of ')!r} on matrix × |w0| bin × count, seed {seed}"
        )
        masks[name] = WeightMask.from_tensors(model, tensors, definition=words)
    return Groups(masks, {name: f"control of {name}" for name in named}, pd.DataFrame(rows))


def matched(
    size: npt.NDArray[np.float32], chosen: Flags, eligible: Flags, bins: int, rng: np.random.Generator
) -> Flags:
    """As many eligible entries in every bin of `size` as are chosen there.

    Args:
        size: |w0| of every weight of a matrix, flat.
        chosen: the group.
        eligible: where controls may be drawn.
        bins: quantiles of the group's sizes; at most one for 8 weights.
        rng: source of the draws.
    """
    wanted = size[chosen]
    found = np.zeros(size.size, dtype=np.bool_)
    if wanted.size == 0:
        return found
    n_bins = max(1, min(bins, wanted.size // 8))
    edges = np.quantile(wanted, np.linspace(0, 1, n_bins + 1))
    need = np.bincount(_bin(edges, wanted), minlength=n_bins)  # type: ignore[arg-type]
    pool = np.flatnonzero(eligible & (size >= edges[0]) & (size <= edges[-1]))
    rng.shuffle(pool)
    where = _bin(edges, size[pool])  # type: ignore[arg-type]
    order = np.argsort(where, kind="stable")
    have = np.bincount(where, minlength=n_bins)
    starts = np.cumsum(have) - have
    rank = np.arange(pool.size) - starts[where[order]]
    found[pool[order[rank < need[where[order]]]]] = True
    missing = np.maximum(need - have, 0)
    for place in np.flatnonzero(missing):
        centre = (edges[place] + edges[place + 1]) / 2
        left = np.flatnonzero(eligible & ~found)
        count = min(int(missing[place]), left.size)
        if count:
            nearest = np.argpartition(np.abs(size[left] - centre), count - 1)[:count]
            found[left[nearest]] = True
    return found


def _bin(edges: npt.NDArray[np.float64], size: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.searchsorted(edges[1:-1], size, side="right").astype(np.int64)
    return found


def _put(part: Any, into: torch.Tensor, flat: Flags) -> None:
    part.write(into, torch.from_numpy(flat).reshape(part.d_out, part.d_in))


def _as_mask(name: str, given: Any, fraction: float) -> WeightMask:
    if isinstance(given, WeightMask):
        return given
    if not hasattr(given, "top"):
        raise InputError(f"{name} is a {type(given).__name__}; give scores (neurons.snip) or a WeightMask")
    mask = given.top(fraction)
    assert isinstance(mask, WeightMask)
    return mask
