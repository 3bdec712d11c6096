"""Two models read at one place on the same prompts: distances, their intervals, and what no change gives."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from scipy import stats as sps
from torch import Tensor

from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.directions import geometry
from tamperlens.directions.candidates import ZERO
from tamperlens.directions.nulls import band, resamples, unturned_cosine
from tamperlens.directions.separation import separate
from tamperlens.directions.subspaces import contrast_svd

CHANCE = "chance: prompts shuffled"
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


def distances(one: Activations, two: Activations, k: int) -> dict[str, float]:
    """Direction and span distances by name; spans of the first k directions of the contrast."""
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


def intervals(
    one: Activations, two: Activations, k: int, n_draws: int, seed: int, span_draws: int
) -> dict[str, Estimate]:
    """Values with intervals from resampling prompts, the same ones on both sides."""
    n = min(len(one.harmful), len(one.harmless))
    values = distances(one, two, k)
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
        again = [part(side, counts[0][draw], counts[1][draw]) for side in (one, two)]
        for name, value in distances(again[0], again[1], k).items():
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


def cka_intervals(
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
        spread = math.sqrt(float((left - left.mean()).square().sum()) * (g - 1) / g)
        half = float(sps.t.ppf(0.975, g - 1)) * spread
        found[name] = Estimate(value, value - half, min(1.0, value + half), n, "grouped jackknife 95%")
    return found


def chance_cka(x: Float64[Tensor, "n d"], n_draws: int, generator: torch.Generator) -> dict[str, Estimate]:
    """CKA of the base with itself when prompts are paired at random: what no relation at all gives."""
    found = {}
    orders = [torch.randperm(len(x), generator=generator) for _ in range(min(n_draws, 50))]
    for name, debiased in (("linear_cka", False), ("linear_cka_debiased", True)):
        draws = torch.tensor([geometry.linear_cka(x, x[order], debiased=debiased) for order in orders])
        found[name] = band(draws.double(), len(x), CHANCE)
    return found


def separations(base: Activations, model: Activations, seed: int) -> dict[str, Estimate]:
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


def joint_basis(*reads: Activations) -> Float64[Tensor, "r d"]:
    """Orthonormal rows that span all activations: coordinates in them keep every length and angle."""
    rows = torch.cat([one.everything for one in reads])
    if len(rows) >= rows.shape[1]:
        return torch.eye(rows.shape[1], dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(rows.T)[0].T
    return basis


def part(reads: Activations, harmful: Tensor, harmless: Tensor) -> Activations:
    """The prompts with positive weight, as often as the weight says (halves: once)."""
    chosen = []
    for rows, weights in ((reads.harmful, harmful), (reads.harmless, harmless)):
        counts = (weights / weights[weights > 0].min()).round().long()
        chosen.append(rows.repeat_interleave(counts, dim=0))
    return Activations(chosen[0], chosen[1], chosen[0][:0], chosen[1][:0])
