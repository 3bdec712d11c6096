"""Instruments that read weights: what moved and how far, where the update points, whose weights matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tamperlens.base.measurement import Measurement
from tamperlens.base.stats import Estimate, undefined
from tamperlens.neurons import overlap
from tamperlens.studies.compare.bench import FRACTION, Bench
from tamperlens.studies.compare.readings import (
    CHANGE,
    CHANGED,
    SAME,
    UNSURE,
    WEIGHTS,
    Reading,
    of_values,
)
from tamperlens.studies.opening import Pair
from tamperlens_hooks import Projection, unwrap
from tamperlens_hooks.effective import merged_parameters
from tamperlens_hooks.lowrank import Update, effective_rank, update_of

RANDOM_SUBSPACES = 20
LARGEST = 1024
"""Side length up to which the singular values of an update without factors are computed."""
ARITHMETIC = 1e-6
"""Of a weight's row: what adding and subtracting in single precision leaves."""
SAME_WEIGHTS = "the weights are the same to the bit"
CASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SET_MARGIN = 0.05


@dataclass
class Moved:
    """What happened to the weights, summed over matrices.

    Attributes:
        rows: one per projection: layer, module, l2, relative_l2, one_minus_cosine, effective_rank, top_share
            (share of ‖Δ‖² in the largest singular value), rank_90 (singular values that hold 90 %).
        identical: no weight differs.
        arithmetic: no weight differs by more than single precision leaves.
        rounded: whether whole weights were read in half precision, and not the factors of an update.
        casts: types in which the tuned model is the base, rounded.
        others: other parameters that differ (embeddings, norms, unembedding, biases).
    """

    rows: list[dict[str, object]] = field(default_factory=list)
    identical: bool = True
    arithmetic: bool = True
    rounded: bool = False
    casts: set[str] = field(default_factory=lambda: set(CASTS))
    others: list[str] = field(default_factory=list)

    def see(self, before: Tensor, after: Tensor) -> bool:
        """Take in one parameter; whether it differs."""
        wide = before.float(), after.float()  # in half precision a small update would be rounded away
        if torch.equal(*wide):
            return False
        self.identical = False
        scale = wide[0].abs().amax().clamp_min(1e-30)
        self.arithmetic &= bool((wide[1] - wide[0]).abs().amax() <= ARITHMETIC * scale)
        for name in list(self.casts):
            kind = CASTS[name]
            if not torch.equal(wide[0].to(kind), wide[1].to(kind)):
                self.casts.discard(name)
        return True


@torch.no_grad()
def drift(pair: Pair) -> Reading:
    """Whether any weight moved, and how far, by layer and module; the spectrum of ΔW.

    No test: weights are not a sample. The same to the bit, within what single precision arithmetic leaves, or
    the base rounded to a half-precision type is "no change".
    """
    moved = Moved()
    total = [0.0, 0.0]
    for projection, update in _updates(pair):
        weight = update.weight.float()
        moved.see(update.weight, _after(update))
        moved.rounded |= not update.factored and update.weight.dtype.itemsize < 4
        found = update.row_moments().total()
        total[0] += float(found.moved)
        total[1] += float(found.size)
        moved.rows.append(
            {"layer": projection.layer, "module": projection.name, "l2": float(found.moved.sqrt()),
             "relative_l2": float(found.relative()), "one_minus_cosine": float(found.one_minus_cosine()),
             **_spectrum(update, max(weight.shape))}
        )  # fmt: skip
    _others(pair, moved)
    relative = math.sqrt(total[0] / total[1]) if total[1] else math.nan
    effect = Estimate(relative, math.nan, math.nan, len(moved.rows), "‖ΔW‖/‖W‖ over all projections")
    verdict, words = _said(pair, moved, relative)
    table = pd.DataFrame(moved.rows)
    rows = [Measurement.of("relative drift ‖ΔW‖/‖W‖", "all projections", CHANGE, effect)]
    for module, part in table.groupby("module", sort=False):
        size = float(np.sqrt((part["l2"] ** 2).sum() / ((part["l2"] / part["relative_l2"]) ** 2).sum())) \
            if (part["relative_l2"] > 0).all() else float(part["relative_l2"].mean())  # fmt: skip
        rows.append(
            Measurement.of(
                "relative drift ‖ΔW‖/‖W‖", str(module), CHANGE, Estimate(size, math.nan, math.nan, len(part))
            )
        )
    return Reading(
        "weights", WEIGHTS, effect, math.nan, math.nan,
        "no test: every weight is compared; no change: equal, or what rounding and arithmetic leave",
        tuple(rows), {"drift": table}, words, verdict=verdict,
    )  # fmt: skip


def _said(pair: Pair, moved: Moved, relative: float) -> tuple[str, tuple[str, ...]]:
    if moved.identical:
        return SAME, (f"{SAME_WEIGHTS}.".capitalize(),)
    if moved.casts:
        return SAME, (f"The tuned model is the base, rounded to {' or '.join(sorted(moved.casts))}.",)
    if moved.arithmetic:
        return SAME, ("No weight differs by more than single precision leaves (1e-6 of its matrix).",)
    words = []
    ranks = [float(str(row["effective_rank"])) for row in moved.rows]
    known = [rank for rank in ranks if rank == rank and rank > 0]
    if known:
        words.append(f"Effective rank of ΔW: median {np.median(known):.1f}, largest {max(known):.1f}.")
    if known and moved.rounded:
        words.append("The weights were read in half precision, and its rounding has full rank: read both in "
                     "float32 for the rank of the fine-tuning.")  # fmt: skip
    if moved.others:
        words.append(
            f"Besides the projections, {len(moved.others)} parameters moved: {', '.join(moved.others[:4])}."
        )
    if 0 < relative < 1e-7:
        return UNSURE, (*words, "The difference is within rounding, and not the same everywhere.")
    return CHANGED, tuple(words)


def _updates(pair: Pair) -> Iterator[tuple[Projection, Update]]:
    base, tuned = unwrap(pair.base.module), pair.tuned.module
    for projection in pair.base.anatomy.projections():
        yield projection, update_of(tuned, projection, base)


def _after(update: Update) -> Tensor:
    if update.trained is not None:
        return update.trained
    return update.weight.float() + update.delta()


def _spectrum(update: Update, side: int) -> dict[str, float]:
    if not (update.factored or side <= LARGEST):
        return dict.fromkeys(("effective_rank", "top_share", "rank_90"), math.nan)
    values = update.singular_values().double()
    squared = values.square()
    whole = float(squared.sum())
    if not whole:
        return {"effective_rank": 0.0, "top_share": math.nan, "rank_90": 0.0}
    held = squared.sort(descending=True).values.cumsum(0) / whole
    return {
        "effective_rank": float(effective_rank(values)),
        "top_share": float(squared.max()) / whole,
        "rank_90": float(int((held < 0.9).sum()) + 1),
    }


def _others(pair: Pair, moved: Moved) -> None:
    """Parameters that are no projection's weight: embeddings, norms, unembedding, biases."""
    base = unwrap(pair.base.module)
    taken = {f"{one.module}.weight" for one in pair.base.anatomy.projections()}
    cache: dict[str, dict[str, Tensor]] = {}
    for name, before in base.named_parameters():
        path, _, key = name.rpartition(".")
        if name in taken:
            continue
        if path not in cache:
            cache = {path: merged_parameters(pair.tuned.module, path)}
        after = cache[path].get(key)
        if after is None or after.shape != before.shape:
            continue  # a resized embedding; the notes say that vocabularies differ
        if moved.see(before, after.to(before.device)):
            moved.others.append(name)


@torch.no_grad()
def aimed(bench: Bench, pair: Pair) -> tuple[list[Measurement], pd.DataFrame, str]:
    """Share of ‖ΔW‖² inside the subspaces that matrices write on, beside random subspaces of that rank.

    Returns rows, a table by projection, and a sentence.
    """
    spaces = bench.subspaces
    generator = torch.Generator().manual_seed(bench.settings.seed)
    inside: dict[str, float] = dict.fromkeys(spaces, 0.0)
    randoms = np.zeros(RANDOM_SUBSPACES)
    whole, table = 0.0, []
    parts = {(part.layer, part.projection): part for part in next(iter(spaces.values())).parts}
    for projection, update in _updates(pair):
        part = parts[projection.layer, projection.name]
        delta = update.delta().double().cpu()
        size = float(delta.square().sum())
        whole += size
        row: dict[str, object] = {"layer": projection.layer, "module": projection.name, "size": size}
        for role, space in spaces.items():
            basis = space.bases[part.name].double()
            held = float((basis.T @ delta).square().sum())
            inside[role] += held
            row[role] = held / size if size else math.nan
            row["chance"] = basis.shape[1] / basis.shape[0]
        for draw in range(RANDOM_SUBSPACES if size else 0):
            drawn = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
            randoms[draw] += float((torch.linalg.qr(drawn).Q.T @ delta).square().sum())
        table.append(row)
    frame = pd.DataFrame(table)
    if not whole:
        nothing = undefined("the projections did not move")
        return (
            [Measurement.of("share of ‖ΔW‖² in the safety subspace", "projections", CHANGE, nothing)],
            frame,
            "",
        )
    low, high = np.quantile(randoms / whole, [0.025, 0.975])
    null = Estimate(
        float(randoms.mean() / whole), float(low), float(high), RANDOM_SUBSPACES, "random subspaces"
    )
    rows = [
        Measurement.of(
            f"share of ‖ΔW‖² in the {'safety' if role == 'harmful' else 'ordinary'} subspace",
            f"{role} prompts", CHANGE,
            Estimate(held / whole, math.nan, math.nan, len(frame), "all projections"), null=null,
        )
        for role, held in inside.items()
    ]  # fmt: skip
    share, other = (held / whole for held in inside.values())
    where = "more than" if share > null.high else "no more than"
    words = (
        f"{100 * share:.0f} % of ‖ΔW‖² lies in the subspace that matrices write on for harmful requests, "
        f"{where} in random subspaces of that rank ({100 * null.low:.1f} to {100 * null.high:.1f} %); for "
        f"harmless ones {100 * other:.0f} %."
    )
    return rows, frame, words


def safety_sets(bench: Bench, pair: Pair) -> Reading:
    """Overlap of the two models' top 1 % of SNIP scores, beside what halves of the data share in the base.

    Matrices are the units: per matrix, Jaccard of base and tuned minus that of random halves (base alone).
    Halves hold half the examples, so the floor is on the low side and a change must be clear to count.
    """
    before, floor = bench.base_set
    found = overlap(before, bench.safety_set(pair.tuned), floor=floor)
    halves = floor.table[(floor.table["comparison"] == "halves") & (floor.table["layer"] >= 0)]
    lowest = halves.groupby(["layer", "module"])["jaccard"].mean()
    mine = found.table[found.table["layer"] >= 0].set_index(["layer", "module"])["jaccard"]
    short = (lowest - mine).dropna()
    null = replace(floor.halves, method="halves of the data")
    value = Estimate(found.jaccard, math.nan, math.nan, len(mine), f"top {100 * FRACTION:.0f} % of SNIP")
    rows = [
        Measurement.of("Jaccard of safety weights", "harmful, answered by the base", CHANGE, value, null=null)
    ]
    chance = f"chance {found.chance:.3f}, halves of the data on the base {null.value:.3f}"
    words = (
        f"The two models share {found.jaccard:.3f} (Jaccard) of their top {100 * FRACTION:.0f} % ({chance})."
    )
    return of_values(
        "safety weights", WEIGHTS, np.maximum(short.to_numpy(), 0.0), margin=SET_MARGIN,
        unit="of Jaccard below the floor, mean over matrices", rows=rows,
        tables={"overlap of safety weights": found.table}, words=(words,),
    )  # fmt: skip
