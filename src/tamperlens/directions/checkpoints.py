"""Two checkpoints at the base's fixed layer and position: every distance beside its null."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.directions import geometry
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import ZERO, Split
from tamperlens.directions.direction import Direction, split_of
from tamperlens.directions.nulls import (
    HALVES,
    activations,
    band,
    check_enough,
    halves,
    resamples,
    unturned_cosine,
)
from tamperlens.directions.separation import separate
from tamperlens.directions.subspaces import contrast_svd
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts

CHANCE = "chance: prompts shuffled"
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
SUBSPACE = ("projection_energy", "geodesic", "chordal")


@dataclass(frozen=True)
class Activations(Result):
    """One model's activations at one place.

    Attributes:
        harmful: training prompts, `[n, d_model]` float64.
        harmless: training prompts, `[m, d_model]`.
        harmful_val: evaluation prompts, which had no part in the direction.
        harmless_val: likewise.
    """

    harmful: Tensor
    harmless: Tensor
    harmful_val: Tensor
    harmless_val: Tensor

    @property
    def everything(self) -> Float64[Tensor, "n d"]:
        """All prompts, for CKA."""
        return torch.cat([self.harmful, self.harmless, self.harmful_val, self.harmless_val])

    @property
    def difference(self) -> Float64[Tensor, " d"]:
        """Difference of means of the training prompts."""
        found: Tensor = self.harmful.mean(0) - self.harmless.mean(0)
        return found

    @property
    def differs(self) -> bool:
        """Whether that difference is more than rounding."""
        scale = max(float(self.harmful.mean(0).norm()), float(self.harmless.mean(0).norm()))
        return float(self.difference.norm()) > ZERO * scale

    def on(self, basis: Float64[Tensor, "r d"]) -> Activations:
        """The same in the coordinates of orthonormal rows."""
        return Activations(*(getattr(self, field.name) @ basis.T for field in dataclasses.fields(self)))


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
    small = base.on(_joint_basis(base))
    generator = torch.Generator().manual_seed(seed)
    sides = [halves(len(rows), n_draws, generator) for rows in (small.harmful, small.harmless)]
    drawn: dict[str, list[float]] = {}
    for draw in range(n_draws):
        one, two = (_part(small, sides[0][half][draw], sides[1][half][draw]) for half in (0, 1))
        for measure, value in _distances(one, two, k).items():
            drawn.setdefault(measure, []).append(value)
    found = {name: band(torch.tensor(values).double(), n, HALVES) for name, values in drawn.items()}
    return found | _chance_cka(small.everything, n_draws, generator) | _separations(base, base, seed)


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
    basis = _joint_basis(base, tuned)
    one, two = base.on(basis), tuned.on(basis)
    found = _intervals(one, two, k, n_draws, seed, span_draws)
    found |= _cka_intervals(one.everything, two.everything, n_draws, seed)
    found |= _separations(base, tuned, seed)
    same = unchanged(one, two, n_draws, seed)
    return [_row(measure, found[measure], nulls, same.get(measure)) for measure in MEASURES]


def _distances(one: Activations, two: Activations, k: int) -> dict[str, float]:
    a, b = one.difference, two.difference
    cosine, angle = geometry.cosine_and_angle(a, b)
    mine, theirs = (contrast_svd(side.harmful, side.harmless, k)[1] for side in (one, two))
    angles = geometry.principal_angles(mine, theirs)
    return {
        "cosine": cosine,
        "angle_degrees": angle,
        "norm_ratio": float(b.norm() / a.norm()),
        "projection_energy": geometry.projection_energy(b, mine),
        "geodesic": geometry.geodesic(angles),
        "chordal": geometry.chordal(angles),
    }


def _intervals(
    one: Activations, two: Activations, k: int, n_draws: int, seed: int, span_draws: int
) -> dict[str, Estimate]:
    """Values with intervals from resampling prompts, the same ones on both sides."""
    n = min(len(one.harmful), len(one.harmless))
    values = _distances(one, two, k)
    generator = torch.Generator().manual_seed(seed)
    counts = [resamples(len(rows), n_draws, generator) for rows in (one.harmful, one.harmless)]
    a, b = (counts[0] @ side.harmful - counts[1] @ side.harmless for side in (one, two))
    lengths = a.norm(dim=1), b.norm(dim=1)
    mine, theirs = a / lengths[0][:, None], b / lengths[1][:, None]
    angles = 2 * torch.atan2((mine - theirs).norm(dim=1), (mine + theirs).norm(dim=1))
    drawn: dict[str, list[float]] = {name: [] for name in values}
    drawn["cosine"], drawn["angle_degrees"] = angles.cos().tolist(), angles.rad2deg().tolist()
    drawn["norm_ratio"] = (lengths[1] / lengths[0]).tolist()
    for draw in range(span_draws):
        again = [_part(side, counts[0][draw], counts[1][draw]) for side in (one, two)]
        for name, value in _distances(again[0], again[1], k).items():
            if name in SUBSPACE:
                drawn[name].append(value)
    return {name: _widened(values[name], drawn[name], n) for name in values}


def unchanged(
    one: Activations,
    two: Activations,
    n_draws: int,
    seed: int,
    along: Float64[Tensor, " d"] | None = None,
) -> dict[str, tuple[float, float]]:
    """What the same prompts give when nothing changes on average: 95 % band by measure.

    Direction and angle by the centred bootstrap, the gap by Welch's t of the prompts' own changes.

    Args:
        one: activations of the base.
        two: of the other model, same prompts.
        n_draws: resamples.
        seed: of them.
        along: unit direction of the gap; the base's difference of means by default.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = [resamples(len(rows), n_draws, generator) for rows in (one.harmful, one.harmless)]
    a, b = (counts[0] @ side.harmful - counts[1] @ side.harmless for side in (one, two))
    least = unturned_cosine(one.difference, two.difference, a, b, min(len(one.harmful), len(one.harmless)))
    widest = math.degrees(2 * math.asin(min(1.0, math.sqrt(max(0.0, (1 - least) / 2)))))
    found = {"cosine": (least, 1.0), "angle_degrees": (0.0, widest)}
    fewest = min(len(one.harmful_val), len(one.harmless_val))
    if fewest > 1:
        unit = one.difference / one.difference.norm() if along is None else along
        sides = [(side.harmful_val @ unit, side.harmless_val @ unit) for side in (one, two)]
        moved = [after - before for before, after in zip(*sides, strict=True)]
        error = math.sqrt(sum(float(rows.var()) / len(rows) for rows in moved))
        gap, half = (
            float(sides[0][0].mean() - sides[0][1].mean()),
            float(sps.t.ppf(0.975, fewest - 1)) * error,
        )
        found["gap_base_direction"] = (gap - half, gap + half)
    return found


def _widened(value: float, draws: list[float], n: int) -> Estimate:
    """Percentile interval, widened to hold the value: resampling pulls cosines down."""
    finite = torch.tensor([draw for draw in draws if math.isfinite(draw)], dtype=torch.float64)
    if not len(finite):
        return Estimate(value, math.nan, math.nan, n, "no interval")
    low, high = (float(finite.quantile(q)) for q in (0.025, 0.975))
    return Estimate(value, min(low, value), max(high, value), n, "paired bootstrap 95%")


def _cka_intervals(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "n d"], n_draws: int, seed: int
) -> dict[str, Estimate]:
    """CKA with jackknife intervals: resampling with replacement would make equal prompts look alike."""
    n = len(x)
    found = {}
    for name, debiased in (("linear_cka", False), ("linear_cka_debiased", True)):
        value = geometry.linear_cka(x, y, debiased=debiased)
        groups = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tensor_split(
            min(10, n // 2)
        )
        kept = (torch.ones(n, dtype=torch.bool).index_fill_(0, group, False) for group in groups)
        left = torch.tensor([geometry.linear_cka(x[k], y[k], debiased=debiased) for k in kept])
        g = len(groups)
        half = 2.262 * math.sqrt(float((left - left.mean()).square().sum()) * (g - 1) / g)
        found[name] = Estimate(value, value - half, min(1.0, value + half), n, "grouped jackknife 95%")
    return found


def _chance_cka(x: Float64[Tensor, "n d"], n_draws: int, generator: torch.Generator) -> dict[str, Estimate]:
    """CKA of the base with itself when prompts are paired at random: what no relation at all gives."""
    found = {}
    orders = [torch.randperm(len(x), generator=generator) for _ in range(min(n_draws, 50))]
    for name, debiased in (("linear_cka", False), ("linear_cka_debiased", True)):
        draws = torch.tensor([geometry.linear_cka(x, x[order], debiased=debiased) for order in orders])
        found[name] = band(draws.double(), len(x), CHANCE)
    return found


def _separations(base: Activations, model: Activations, seed: int) -> dict[str, Estimate]:
    """Gap, d′ and AUROC of a model's evaluation prompts along the base's and along its own direction."""
    found: dict[str, Estimate] = {}
    for name, direction in (("base", base.difference), ("own", model.difference)):
        unit = direction / direction.norm()
        if not len(model.harmful_val) or not len(model.harmless_val):
            nothing = undefined("no evaluation prompts")
            gap = spread = area = nothing
        else:
            apart = separate(model.harmful_val @ unit, model.harmless_val @ unit, seed=seed)
            gap, spread, area = apart.gap, apart.d_prime, apart.auroc
        if name == "base":
            found["gap_base_direction"] = gap
        found |= {f"d_prime_{name}_direction": spread, f"auroc_{name}_direction": area}
    return found


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


def _joint_basis(*reads: Activations) -> Float64[Tensor, "r d"]:
    """Orthonormal rows that span all activations: coordinates in them keep every length and angle."""
    rows = torch.cat([one.everything for one in reads])
    if len(rows) >= rows.shape[1]:
        return torch.eye(rows.shape[1], dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(rows.T)[0].T
    return basis


def _part(reads: Activations, harmful: Tensor, harmless: Tensor) -> Activations:
    """The prompts with positive weight, as often as the weight says (halves: once)."""
    chosen = []
    for rows, weights in ((reads.harmful, harmful), (reads.harmless, harmless)):
        counts = (weights / weights[weights > 0].min()).round().long()
        chosen.append(rows.repeat_interleave(counts, dim=0))
    return Activations(chosen[0], chosen[1], chosen[0][:0], chosen[1][:0])


def definitions() -> Iterator[tuple[str, str, str]]:
    """(measure, null, what it is) of every measure, for tables and captions."""
    for measure, (null, _, words) in MEASURES.items():
        yield measure, null, words
