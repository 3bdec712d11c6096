"""Two checkpoints at the base's fixed layer and position: every distance beside its null."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import Split
from tamperlens.directions.direction import Direction
from tamperlens.directions.finding import split_of
from tamperlens.directions.nulls import (
    HALVES,
    activations,
    band,
    check_enough,
    halves,
)
from tamperlens.directions.paired_reads import (
    CHANCE,
    Activations,
    chance_cka,
    cka_intervals,
    distances,
    intervals,
    joint_basis,
    part,
    separations,
    unchanged,
)
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts

ITSELF = "the base itself"
RANDOM_DIRECTIONS = "random directions"
NOTHING = "harmful and harmless means do not differ here"

# measure -> (which null, which side of it is far, what it is)
MEASURES: dict[str, tuple[str, str, str]] = {
    "cosine": (HALVES, "low", "cosine of the two differences of means"),
    "angle_degrees": (HALVES, "high", "angle between them"),
    "norm_ratio": (HALVES, "both", "length of the tuned one over that of the base's"),
    "projection_energy": (HALVES, "low", "share of the tuned direction's squared length in the base's span"),
    "geodesic": (HALVES, "high", "√Σθ² of the principal angles between the spans, radians"),
    "chordal": (HALVES, "high", "√Σsin²θ of the principal angles between the spans"),
    "linear_cka": (CHANCE, "high", "linear CKA of the activations of all prompts"),
    "linear_cka_debiased": (CHANCE, "high", "the same with the unbiased estimator of HSIC"),
    "gap_base_direction": (ITSELF, "both", "tuned harmful − harmless mean along the base direction"),
    "d_prime_base_direction": (ITSELF, "both", "d′ of tuned projections onto the base direction"),
    "auroc_base_direction": (ITSELF, "both", "AUROC of tuned projections onto the base direction"),
    "d_prime_own_direction": (ITSELF, "both", "d′ of tuned projections onto the tuned direction"),
    "auroc_own_direction": (ITSELF, "both", "AUROC of tuned projections onto the tuned direction"),
}


@dataclass(frozen=True)
class CheckpointDistance(Result):
    """How far a tuned model's refusal direction and its surroundings lie from the base's.

    Attributes:
        table: one row per measure: measure, layer, value, low, high, n, null, null_low, null_high, null_kind,
            within_prompt_band, within_chance, unchanged_low, unchanged_high, changed, reason; NaN values have
            n = 0 and a reason. Two questions are answered apart. `changed`: has the model moved this
            quantity, on average over prompts? The value lies outside [unchanged_low, unchanged_high], the
            95 % of what no change gives on the same prompts (cosine, angle and gap; None for the others).
            `within_prompt_band`: would other prompts of the base have given this as well? The value lies
            within [null_low, null_high]. A small change is real and within that band. `within_chance` (CKA):
            no more alike than shuffled prompts. `within_null`, the old name of the last two, goes with the
            next release.
        layer: the base direction's.
        position: likewise.
        k: dimensions of the spans.
        n_draws: of nulls and intervals.
        seed: of both.
        base: name of the base model.
        tuned: name of the tuned model.
        base_fingerprint: of the base model.
        tuned_fingerprint: of the tuned model.
    """

    table: pd.DataFrame
    layer: int
    position: int
    k: int
    n_draws: int
    seed: int
    base: str
    tuned: str
    base_fingerprint: str
    tuned_fingerprint: str

    def summary(self) -> str:
        """Which distances lie beyond their null."""
        known = self.table[self.table["n"] > 0]
        beyond = known[~known["within_null"].astype(bool)]["measure"]
        return (
            f"{self.base} → {self.tuned} at layer {self.layer}, position {self.position}: "
            f"{len(beyond)} of {len(known)} measures lie beyond their null"
            f"{': ' if len(beyond) else ''}{', '.join(map(str, beyond))}."
        )

    def __getitem__(self, measure: str) -> Estimate:
        """One measure with its interval.

        Raises:
            InputError: no such measure.
        """
        row = self._row(measure)
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), "", row["reason"])

    def null(self, measure: str) -> Estimate:
        """The null beside one measure."""
        row = self._row(measure)
        return Estimate(row["null"], row["null_low"], row["null_high"], int(row["n"]), row["null_kind"])

    def _row(self, measure: str) -> pd.Series[Any]:
        rows = self.table[self.table["measure"] == measure]
        if rows.empty:
            raise InputError(f"no measure {measure!r}; there are {', '.join(MEASURES)}")
        return rows.iloc[0]

    def to_frame(self) -> pd.DataFrame:
        """The table with position and the models' names."""
        return self.table.assign(position=self.position, base=self.base, tuned=self.tuned)


@renamed_arguments(n_draws="draws")
def compare_checkpoints(
    base: ModelLike,
    tuned: ModelLike,
    direction: Direction,
    harmful: Prompts,
    harmless: Prompts,
    *,
    k: int = 3,
    draws: int = 200,
    seed: int = 0,
    cache: ActivationCache | None = None,
) -> CheckpointDistance:
    """Every distance between a base and a tuned model, at the base direction's layer and position.

    Prompts, their split, layer and position are those of the base's direction: re-selecting at the tuned
    model manufactures drift. Differences of means and spans (SVD of the contrast, k directions) come from the
    training prompts, gap, d′ and AUROC from the validation prompts. Intervals resample prompts, the same ones
    for both models, and so does the test of change. Bands: the base's own split halves for directions and
    spans (at half the size, so on the wide side), the base itself for gap, d′ and AUROC, shuffled prompts for
    CKA.

    Args:
        base: the model that `direction` was found in.
        tuned: the other checkpoint.
        direction: what `find_direction` gave for the base.
        harmful: the harmful prompts that it was given.
        harmless: the harmless prompts that it was given.
        k: dimensions of the spans.
        draws: of nulls and intervals.
        seed: of both.
        cache: where activations are kept between calls.

    Raises:
        InputError: other prompts, too few of them for halves, other widths, or k that does not fit.
        NumericsError: activations are NaN or infinite.
    """
    base = as_chat_model(base, what="base")
    tuned = as_chat_model(tuned, what="tuned")
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    if base.d_model != tuned.d_model:
        raise InputError(f"{base.name} has width {base.d_model} and {tuned.name} {tuned.d_model}")
    split = split_of(direction, harmful, harmless)
    one, two = (
        read(model, split, direction.position, [direction.layer], cache=cache)[0] for model in (base, tuned)
    )
    nulls = base_nulls(one, k=k, n_draws=draws, seed=seed)
    rows = compare_activations(one, two, nulls, k=k, n_draws=draws, seed=seed, span_draws=draws)
    return CheckpointDistance(
        table=pd.DataFrame(rows).assign(layer=direction.layer),
        layer=direction.layer,
        position=direction.position,
        k=k,
        n_draws=draws,
        seed=seed,
        base=base.name,
        tuned=tuned.name,
        base_fingerprint=base.fingerprint,
        tuned_fingerprint=tuned.fingerprint,
    )


def read(
    model: ChatModel,
    split: Split,
    position: int,
    layers: list[int] | None = None,
    *,
    cache: ActivationCache | None = None,
) -> list[Activations]:
    """Activations of a split at one position, one `Activations` per layer, in one pass over each set."""
    sides = [
        activations(model, prompts, position, layers, cache=cache)
        for prompts in (split.harmful_train, split.harmless_train, split.harmful_val, split.harmless_val)
    ]
    return [Activations(*(side[at] for side in sides)) for at in range(len(sides[0]))]


def base_nulls(base: Activations, *, k: int, n_draws: int, seed: int) -> dict[str, Estimate]:
    """The null of every measure, from the base's activations alone.

    Raises:
        InputError: too few prompts for halves, or k that does not fit a half.
    """
    check_enough([""] * len(base.harmful), [""] * len(base.harmless))
    if not 1 <= k <= min(len(base.harmful) // 2, base.harmful.shape[1]):
        raise InputError(f"k={k} directions do not fit halves of {len(base.harmful)} prompts; lower k")
    n = min(len(base.harmful), len(base.harmless))
    if not base.differs:
        return {measure: undefined(NOTHING) for measure in MEASURES}
    small = base.on(joint_basis(base))
    generator = torch.Generator().manual_seed(seed)
    sides = [halves(len(rows), n_draws, generator) for rows in (small.harmful, small.harmless)]
    drawn: dict[str, list[float]] = {}
    for draw in range(n_draws):
        one, two = (part(small, sides[0][half][draw], sides[1][half][draw]) for half in (0, 1))
        for measure, value in distances(one, two, k).items():
            drawn.setdefault(measure, []).append(value)
    found = {name: band(torch.tensor(values).double(), n, HALVES) for name, values in drawn.items()}
    return found | chance_cka(small.everything, n_draws, generator) | separations(base, base, seed)


def compare_activations(
    base: Activations,
    tuned: Activations,
    nulls: Mapping[str, Estimate],
    *,
    k: int,
    n_draws: int,
    seed: int,
    span_draws: int = 0,
) -> list[dict[str, Any]]:
    """The rows of `CheckpointDistance.table` from activations at hand.

    Args:
        base: activations of the base.
        tuned: the same prompts, the other model.
        nulls: of `base_nulls`.
        k: dimensions of the spans.
        n_draws: resamples behind the intervals.
        seed: of them.
        span_draws: resamples behind the intervals of span measures, which take an SVD each; 0 for none.
    """
    if not (base.differs and tuned.differs):
        nothing = dict.fromkeys(MEASURES, undefined(NOTHING))
        return [_row(measure, found, nulls) for measure, found in nothing.items()]
    basis = joint_basis(base, tuned)
    one, two = base.on(basis), tuned.on(basis)
    found = intervals(one, two, k, n_draws, seed, span_draws)
    found |= cka_intervals(one.everything, two.everything, n_draws, seed)
    found |= separations(base, tuned, seed)
    same = unchanged(one, two, n_draws, seed)
    return [_row(measure, found[measure], nulls, same.get(measure)) for measure in MEASURES]


def _row(
    measure: str,
    found: Estimate,
    nulls: Mapping[str, Estimate],
    unchanged: tuple[float, float] | None = None,
) -> dict[str, Any]:
    kind, far, _ = MEASURES[measure]
    null = nulls[measure]
    known = math.isfinite(found.value) and math.isfinite(null.low)
    slack = 1e-9 * max(1.0, abs(null.value)) if known else 0.0
    inside = {
        "low": found.value >= null.low - slack,
        "high": found.value <= null.high + slack,
        "both": null.low - slack <= found.value <= null.high + slack,
    }[far]
    return {
        "measure": measure,
        **found.cells(),
        "n": found.n if math.isfinite(found.value) else 0,
        **null.null_cells(),
        "null_kind": kind,
        **verdicts(kind, inside if known else None, found.value, unchanged),
        "reason": found.reason,
    }


def verdicts(
    kind: str, inside: bool | None, value: float, unchanged: tuple[float, float] | None = None
) -> dict[str, Any]:
    """The columns that say what a value means: against its band, and against no change on the same prompts.

    Args:
        kind: of the band.
        inside: whether the value lies within it; None where that is unknown.
        value: the value.
        unchanged: the paired band of no change; None where there is none.
    """
    low, high = unchanged if unchanged is not None else (math.nan, math.nan)
    slack = 1e-9 * max(1.0, abs(value))
    by_chance = kind in (CHANCE, RANDOM_DIRECTIONS)
    told = math.isfinite(low) and math.isfinite(value)
    return {
        "within_prompt_band": None if by_chance else inside,
        "within_chance": inside if by_chance else None,
        "unchanged_low": low,
        "unchanged_high": high,
        "changed": not low - slack <= value <= high + slack if told else None,
        "within_null": inside,  # the old name of the first two, for one release
    }


def definitions() -> Iterator[tuple[str, str, str]]:
    """(measure, null, what it is) of every measure, for tables and captions."""
    for measure, (null, _, words) in MEASURES.items():
        yield measure, null, words
