"""How far apart two directions are, and how far apart they would be by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, undefined
from tamperlens.models import ChatModel
from tamperlens.refusal.candidates import ZERO, batches, check_disjoint
from tamperlens.refusal.completions import Prompts, hash_prompts, prompt_name, prompt_texts
from tamperlens.refusal.directions import Direction, check_positions
from tamperlens_hooks import read_positions

FEWEST = 8


@dataclass(frozen=True)
class SplitHalfNull(Result):
    """Cosines between directions from random halves of the same prompts: what sampling alone does.

    Each draw cuts the harmful and the harmless prompts into two halves, takes the difference of means of
    each, and compares the two. Halves are noisier than full sets, so the null is wider than that between two
    directions from full sets; `full_size` corrects the mean for that.

    Attributes:
        cosines: one per draw, `[n_draws]` float64.
        layer: block whose input was read.
        position: token position, negative from the end.
        n_harmful: harmful prompts that were halved.
        n_harmless: harmless prompts that were halved.
        seed: of the halves.
        model: name of the model.
        fingerprint: its fingerprint.
        harmful_sha256: hash of the harmful prompts.
        harmless_sha256: hash of the harmless prompts.
    """

    cosines: Tensor
    layer: int
    position: int
    n_harmful: int
    n_harmless: int
    seed: int
    model: str
    fingerprint: str
    harmful_sha256: str
    harmless_sha256: str

    @property
    def estimate(self) -> Estimate:
        """Mean cosine with the central 95 % of the draws; n is the number of prompts of the smaller set."""
        finite = self.cosines[torch.isfinite(self.cosines)]
        n = min(self.n_harmful, self.n_harmless)
        if not len(finite):
            return undefined("harmful and harmless means do not differ here")
        low, high = (float(finite.quantile(q)) for q in (0.025, 0.975))
        return Estimate(float(finite.mean()), low, high, n, f"split halves, {len(finite)} draws, central 95%")

    @property
    def full_size(self) -> float:
        """Expected cosine between directions from two fresh full-size sets: 2c / (1 + c) (Spearman–Brown)."""
        mean = self.estimate.value
        return 2 * mean / (1 + mean)

    def to_frame(self) -> pd.DataFrame:
        """One row per draw: draw, cosine, angle_degrees, layer, position, model."""
        cosines = self.cosines.tolist()
        return pd.DataFrame(
            {
                "draw": range(len(cosines)),
                "cosine": cosines,
                "angle_degrees": [math.degrees(math.acos(max(-1.0, min(1.0, c)))) for c in cosines],
                "layer": self.layer,
                "position": self.position,
                "model": self.model,
            }
        )


@dataclass(frozen=True)
class Distance(Result):
    """Two directions side by side.

    Attributes:
        cosine: of the angle between them, in [−1, 1]; NaN when one of them is undefined.
        angle_degrees: the angle, in [0, 180].
        norm_ratio: raw norm of b over raw norm of a.
        layer: where both were read, or that of a when they were allowed to differ.
        position: likewise.
        null: split-half null of a, or None when none was given.
        within_null: whether the cosine lies above the null's 2.5 % quantile, that is, whether sampling alone
            explains the distance; None without a null.
        reason: why the cosine is NaN, or that the places differ; "".
    """

    cosine: float
    angle_degrees: float
    norm_ratio: float
    layer: int
    position: int
    null: Estimate | None
    within_null: bool | None
    reason: str


def distance(
    a: Direction, b: Direction, *, null: SplitHalfNull | None = None, allow_unequal: bool = False
) -> Distance:
    """Cosine, angle and norm ratio of two directions read at the same layer and position.

    The angle comes from 2·atan2(‖â − b̂‖, ‖â + b̂‖) in float64, which stays exact for nearly parallel
    directions where the arc cosine does not.

    Args:
        a: the reference, as a rule the base model's.
        b: the other one.
        null: `split_half_null` of the reference, to show beside the distance.
        allow_unequal: compare directions of different places all the same; `reason` then says so.

    Raises:
        InputError: widths, sites, layers or positions differ, or the null is of another place.
    """
    if a.vector.shape != b.vector.shape:
        raise InputError(
            f"directions of width {a.vector.numel()} and {b.vector.numel()} are of different architectures "
            "and cannot be compared"
        )
    unequal = [
        f"{name} {mine} against {theirs}"
        for name, mine, theirs in (
            ("site", a.site, b.site),
            ("layer", a.layer, b.layer),
            ("position", a.position, b.position),
        )
        if mine != theirs
    ]
    if unequal and not allow_unequal:
        raise InputError(
            f"directions were read at different places ({', '.join(unequal)}): measure the second with "
            "direction_at(model, …, layer, position) of the first, or pass allow_unequal=True"
        )
    if null is not None and (null.layer, null.position) != (a.layer, a.position):
        raise InputError(
            f"the null is of layer {null.layer}, position {null.position}; the direction is of layer "
            f"{a.layer}, position {a.position}; make the null there"
        )
    reason = f"read at different places: {', '.join(unequal)}" if unequal else ""
    estimate = None if null is None else null.estimate
    if not (a.defined and b.defined):
        undefined_one = a if not a.defined else b
        reason = f"direction of {undefined_one.model!r} is undefined: {undefined_one.flag}"
        return Distance(math.nan, math.nan, math.nan, a.layer, a.position, estimate, None, reason)
    cosine, angle = _cosine(a.vector, b.vector)
    ratio = b.raw_norm / a.raw_norm
    within = None if estimate is None or math.isnan(estimate.low) else cosine >= estimate.low
    return Distance(cosine, angle, ratio, a.layer, a.position, estimate, within, reason)


def split_half_null(
    model: ChatModel,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    *,
    n_draws: int = 200,
    seed: int = 0,
) -> SplitHalfNull:
    """How much two directions at one place differ when nothing but the prompts' sampling differs.

    Args:
        model: any chat model.
        harmful: harmful prompts, 8 at least; each draw gives half of them to each side.
        harmless: harmless prompts, 8 at least.
        layer: block whose input is read.
        position: negative token position from the end.
        n_draws: random halvings.
        seed: of the halvings.

    Raises:
        InputError: too few prompts, prompts in both sets, or a place that does not exist.
        NumericsError: activations are NaN or infinite.
    """
    check_disjoint(harmful, harmless)
    for kind, data in (("harmful", harmful), ("harmless", harmless)):
        count = len(prompt_texts(data))
        if count < FEWEST:
            raise InputError(
                f"{kind} prompts {prompt_name(data)!r}: {count} are too few for halves; pass {FEWEST} or more"
            )
    if n_draws < 1:
        raise InputError(f"n_draws is {n_draws}; it must be at least 1")
    bad = activations_at(model, prompt_texts(harmful), layer, position)
    good = activations_at(model, prompt_texts(harmless), layer, position)
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.empty(n_draws, dtype=torch.float64)
    scale = ZERO * max(float(bad.mean(0).norm()), float(good.mean(0).norm()))
    for draw in range(n_draws):
        first, second = (
            one - two for one, two in zip(_halves(bad, generator), _halves(good, generator), strict=True)
        )
        small = min(float(first.norm()), float(second.norm())) <= scale
        cosines[draw] = math.nan if small else _cosine(first, second)[0]
    return SplitHalfNull(
        cosines,
        layer,
        position,
        len(bad),
        len(good),
        seed,
        model.name,
        model.fingerprint,
        hash_prompts(prompt_texts(harmful)),
        hash_prompts(prompt_texts(harmless)),
    )


def activations_at(
    model: ChatModel, prompts: Sequence[str], layer: int, position: int
) -> Float64[Tensor, "n d_model"]:
    """Block input of each prompt at one layer and position, on the CPU.

    Raises:
        InputError: a layer or position that does not exist.
        NumericsError: activations are NaN or infinite.
    """
    if not 0 <= layer < model.n_layers:
        raise InputError(f"layer {layer} does not exist: {model.name} has blocks 0 to {model.n_layers - 1}")
    places = check_positions([position])
    made, order = batches(model, prompts)
    read = read_positions(model, made, positions=places, layers=[layer], site="resid_pre")
    found = torch.empty(len(order), read.shape[-1], dtype=torch.float64)
    found[order] = read[:, 0, 0].double()
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{model.name}: activations are NaN or infinite; load the model in float32 or bfloat16"
        )
    return found


def _halves(
    rows: Float64[Tensor, "n d_model"], generator: torch.Generator
) -> tuple[Float64[Tensor, " d_model"], Float64[Tensor, " d_model"]]:
    order = torch.randperm(len(rows), generator=generator)
    half = len(rows) // 2
    return rows[order[:half]].mean(0), rows[order[half:]].mean(0)


def _cosine(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> tuple[float, float]:
    """(cosine, angle in degrees) in float64."""
    one, two = a.double().cpu(), b.double().cpu()
    one, two = one / one.norm(), two / two.norm()
    angle = 2 * math.atan2(float((one - two).norm()), float((one + two).norm()))
    return math.cos(angle), math.degrees(angle)
