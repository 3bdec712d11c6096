"""How much two sets of weights share, beside chance, and beside how much one set shares with itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.masks import Jaccard, WeightMask
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts


@dataclass(frozen=True)
class NoiseFloor(Result):
    """How stable a way of choosing weights is on one and the same model.

    Attributes:
        halves: Jaccard between the sets chosen on two disjoint halves of the data; mean over random halvings
            with their range.
        halves_chance: mean chance level of those.
        other: Jaccard between the set of this data and the set of another data set; NaN without one.
        other_chance: its chance level.
        table: one row per comparison and projection: comparison, split, layer, module, count_a, count_b,
            shared, jaccard, chance; layer −1 and module "all" for the whole model.
        definition: of the set chosen on all the data.
    """

    halves: Estimate
    halves_chance: float
    other: Estimate
    other_chance: float
    table: pd.DataFrame
    definition: str

    def summary(self) -> str:
        """How alike the sets of two halves of the data are."""
        return f"{self} ({self.definition})."

    def __str__(self) -> str:
        other = "" if math.isnan(self.other.value) else f"; other data {self.other.value:.3f}"
        return f"Jaccard of halves {self.halves.value:.3f} (chance {self.halves_chance:.3f}){other}"


@dataclass(frozen=True)
class Overlap(Result):
    """What two sets share: before and after, or of two definitions.

    Attributes:
        before: definition of the first set, with its model.
        after: of the second.
        jaccard: |A ∩ B| / |A ∪ B|.
        chance: of random sets with the same counts per projection.
        kept: |A ∩ B| / |A|.
        kept_chance: likewise.
        floor: Jaccard of the same model re-scored on another half of the data; undefined when not measured.
        table: one row per projection: layer, module, count_a, count_b, shared, jaccard, chance; layer −1 and
            module "all" for the whole model.
    """

    before: str
    after: str
    jaccard: float
    chance: float
    kept: float
    kept_chance: float
    floor: Estimate
    table: pd.DataFrame

    def summary(self) -> str:
        """How much the sets share, beside chance."""
        return (
            f"{self}; of the first set {self.kept:.1%} are in the second (chance {self.kept_chance:.1%}). "
            f"First: {self.before}. Second: {self.after}."
        )

    def by_layer(self) -> pd.DataFrame:
        """One row per layer: layer, count_a, count_b, shared, jaccard, chance."""
        return _grouped(self.table[self.table["layer"] >= 0], "layer")

    def by_module(self) -> pd.DataFrame:
        """One row per projection name: module, count_a, count_b, shared, jaccard, chance."""
        return _grouped(self.table[self.table["layer"] >= 0], "module")

    def __str__(self) -> str:
        beside = f", the same model on other halves {self.floor.value:.3f}" if self.floor.n else ""
        return f"Jaccard {self.jaccard:.3f} (chance {self.chance:.3f}{beside})"


def overlap(before: WeightMask, after: WeightMask, *, floor: NoiseFloor | None = None) -> Overlap:
    """Overlap of two sets, of one model or of two models of the same shape (before and after tuning).

    Args:
        before: first set.
        after: second set, over the same projections.
        floor: `noise_floor` of the first, to put beside the number: an overlap at the floor says nothing
            about what changed.

    Raises:
        InputError: the sets cover different projections.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons
        >>> model = tamperlens.load('organism')
        >>> one, other = neurons.random(model, seed=0).top(0.1), neurons.random(model, seed=1).top(0.1)
        >>> found = neurons.overlap(one, other)
        >>> round(found.jaccard, 2)
        0.05
    """
    table = _table(before, after)
    whole = table[table["layer"] < 0].iloc[0]
    expected = whole["chance"] * (whole["count_a"] + whole["count_b"]) / (1 + whole["chance"])
    return Overlap(
        f"{before.definition} ({before.model})",
        f"{after.definition} ({after.model})",
        float(whole["jaccard"]),
        float(whole["chance"]),
        float(whole["shared"] / whole["count_a"]) if whole["count_a"] else math.nan,
        float(expected / whole["count_a"]) if whole["count_a"] else math.nan,
        undefined("no noise floor was given") if floor is None else floor.halves,
        table,
    )


compare = overlap
"""The name that comparing two results has in every subpackage."""


def noise_floor(
    choose: Callable[..., WeightMask],
    *data: PromptsLike,
    other: Sequence[PromptsLike] = (),
    splits: int = 3,
    seed: int = 0,
) -> NoiseFloor:
    """Choose the same kind of set on other data of the same model, and see how much of it stays.

    ```python
    floor = neurons.noise_floor(lambda d: neurons.snip(model, d).top(0.01), safety, other=[english])
    floor = neurons.noise_floor(
        lambda s, u: neurons.set_difference(neurons.snip(model, s), neurons.snip(model, u), p=0.03, q=0.03),
        safety, utility)
    ```

    Halves hold half as many examples as the data, so the floor is a lower bound on the stability of the full
    set. Published sets overlap little across data sets (arXiv 2602.17696); this says how stable these are.

    Args:
        choose: makes a set from the prompt sets.
        data: its arguments.
        other: replacements for the data, one each, for the comparison with another data set.
        splits: random halvings; two scorings each.
        seed: of the halvings.

    Raises:
        InputError: no data, a set too small to halve, `other` of another length, no mask from `choose`.
    """
    given, others = [as_prompts(one) for one in data], [as_prompts(one) for one in other]
    if not given or splits < 1:
        raise InputError("noise_floor needs at least one prompt set and one split")
    if others and len(others) != len(given):
        raise InputError(f"other= needs one set for each of the {len(given)} prompt sets; got {len(others)}")
    for one in given:
        if len(one) < 2:
            raise InputError(f"prompt set {one.name!r} has {len(one)} rows; it cannot be halved")

    def chosen(*sets: PromptSet) -> WeightMask:
        mask = choose(*sets)
        if not isinstance(mask, WeightMask):
            raise InputError(f"choose= must give a WeightMask, and gave a {type(mask).__name__}")
        return mask

    frames, halves = [], []
    for split in range(splits):
        sides = [one.split([len(one) // 2, len(one) // 2], seed=seed + split) for one in given]
        first, second = (chosen(*(side[i] for side in sides)) for i in (0, 1))
        halves.append(first.jaccard(second))
        frames.append(_table(first, second).assign(comparison="halves", split=split))
    whole = chosen(*given)
    elsewhere: Jaccard | None = None
    if others:
        foreign = chosen(*others)
        elsewhere = whole.jaccard(foreign)
        frames.append(_table(whole, foreign).assign(comparison="other data", split=0))
    table = pd.concat(frames, ignore_index=True)
    first_columns = ["comparison", "split"]
    table = table[[*first_columns, *(column for column in table.columns if column not in first_columns)]]
    values = np.array([float(value) for value in halves])
    spread = Estimate(
        float(values.mean()),
        float(values.min()),
        float(values.max()),
        splits,
        "range over random halvings",
        "both halves chose nothing" if np.isnan(values).any() else "",
    )
    return NoiseFloor(
        spread,
        float(np.mean([value.chance for value in halves])),
        undefined("no other data set was given")
        if elsewhere is None
        else Estimate(float(elsewhere), math.nan, math.nan, 1, "one comparison"),
        math.nan if elsewhere is None else elsewhere.chance,
        table,
        whole.definition,
    )


def _table(one: WeightMask, other: WeightMask) -> pd.DataFrame:
    if one.parts != other.parts:
        raise InputError("the sets cover different projections; score both with the same modules=")
    rows = []
    for part in one.parts:
        mine, theirs = one.part(part), other.part(part)
        a, b, both = int(mine.sum()), int(theirs.sum()), int((mine & theirs).sum())
        rows.append((part.layer, part.projection, a, b, both, a * b / part.numel))
    frame = pd.DataFrame(rows, columns=["layer", "module", "count_a", "count_b", "shared", "expected"])
    sums = frame[["count_a", "count_b", "shared", "expected"]].sum()
    whole = pd.DataFrame([{"layer": -1, "module": "all", **sums.to_dict()}])
    return _with_jaccard(pd.concat([whole, frame], ignore_index=True)).drop(columns="expected")


def _with_jaccard(frame: pd.DataFrame) -> pd.DataFrame:
    total = frame["count_a"] + frame["count_b"]
    union = (total - frame["shared"]).replace(0, np.nan)
    chance = frame["expected"] / (total - frame["expected"]).replace(0, np.nan)
    counts = {name: frame[name].astype(int) for name in ("count_a", "count_b", "shared")}
    return frame.assign(jaccard=frame["shared"] / union, chance=chance, **counts)


def _grouped(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    # chance = E / (|A| + |B| − E), so the expected intersections can be had back and added
    expected = frame["chance"] * (frame["count_a"] + frame["count_b"]) / (1 + frame["chance"])
    sums = (
        frame.assign(expected=expected.fillna(0.0))
        .groupby(key, sort=False)[["count_a", "count_b", "shared", "expected"]]
        .sum()
        .reset_index()
    )
    return _with_jaccard(sums).drop(columns="expected")
