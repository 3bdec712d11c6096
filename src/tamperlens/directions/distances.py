"""How far apart two directions are, beside how far apart they would be by chance (`nulls`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tamperlens.base.deprecation import deprecated, renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.directions.direction import Direction
from tamperlens.directions.geometry import cosine_and_angle
from tamperlens.directions.nulls import DirectionNull


@dataclass(frozen=True)
class Distance(Result):
    """Two directions side by side.

    Attributes:
        cosine: of the angle between them, in [−1, 1]; NaN when one of them is undefined.
        angle_degrees: the angle, in [0, 180].
        norm_ratio: raw norm of b over raw norm of a.
        layer: where both were read, or that of a when they were allowed to differ.
        position: likewise.
        null: the null of a, or None when none was given.
        within_prompt_band: whether the cosine lies above the null's 2.5 % quantile, that is, whether other
            prompts of the same kinds could have put b where it is; None without a null. Two checkpoints read
            on the same prompts share their sampling: whether b differs at all is `compare_checkpoints`'
            "changed".
        reason: why the cosine is NaN, or that the places differ; "".
    """

    cosine: float
    angle_degrees: float
    norm_ratio: float
    layer: int
    position: int
    null: Estimate | None
    within_prompt_band: bool | None
    reason: str

    @property
    @deprecated("Distance.within_null", "within_prompt_band")
    def within_null(self) -> bool | None:
        """The old name of `within_prompt_band`."""
        return self.within_prompt_band

    def summary(self) -> str:
        """Cosine and angle, beside the null where there is one."""
        if math.isnan(self.cosine):
            return f"The cosine is undefined: {self.reason}."
        found = f"Cosine {self.cosine:.3f}, {self.angle_degrees:.1f}° apart, norm ratio {self.norm_ratio:.2f}"
        if self.null is not None:
            side = "within" if self.within_prompt_band else "below"
            found += f"; {side} what sampling alone gives, {self.null}"
        return f"{found}; {self.reason}." if self.reason else f"{found}."


@renamed_arguments(a="before", b="after")
def distance(
    before: Direction, after: Direction, *, null: DirectionNull | None = None, allow_unequal: bool = False
) -> Distance:
    """Cosine, angle and norm ratio of two directions read at the same layer and position.

    The angle comes from 2·atan2(‖â − b̂‖, ‖â + b̂‖) in float64, which stays exact for nearly parallel
    directions where the arc cosine does not.

    Args:
        before: the reference, as a rule the base model's.
        after: the other one.
        null: `split_half_null` or `bootstrap_null` of the reference, to show beside the distance.
        allow_unequal: compare directions of different places all the same; `reason` then says so.

    Raises:
        InputError: widths, sites, layers or positions differ, or the null is of another place.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> direction = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> round(directions.distance(direction, direction).cosine, 6)
        1.0
    """
    if before.vector.shape != after.vector.shape:
        raise InputError(
            f"directions of width {before.vector.numel()} and {after.vector.numel()} are of different "
            "architectures and cannot be compared"
        )
    unequal = [
        f"{name} {mine} against {theirs}"
        for name, mine, theirs in (
            ("site", before.site, after.site),
            ("layer", before.layer, after.layer),
            ("position", before.position, after.position),
        )
        if mine != theirs
    ]
    if unequal and not allow_unequal:
        raise InputError(
            f"directions were read at different places ({', '.join(unequal)}): measure the second with "
            "direction_at(model, …, layer, position) of the first, or pass allow_unequal=True"
        )
    if null is not None and (null.layer, null.position) != (before.layer, before.position):
        raise InputError(
            f"the null is of layer {null.layer}, position {null.position}; the direction is of layer "
            f"{before.layer}, position {before.position}; make the null there"
        )
    reason = f"read at different places: {', '.join(unequal)}" if unequal else ""
    estimate = None if null is None else null.estimate
    if not (before.defined and after.defined):
        undefined_one = after if before.defined else before
        reason = f"direction of {undefined_one.model!r} is undefined: {undefined_one.flag}"
        return Distance(math.nan, math.nan, math.nan, before.layer, before.position, estimate, None, reason)
    cosine, angle = cosine_and_angle(before.vector, after.vector)
    ratio = after.raw_norm / before.raw_norm
    within = None if estimate is None or math.isnan(estimate.low) else cosine >= estimate.low
    return Distance(cosine, angle, ratio, before.layer, before.position, estimate, within, reason)


compare = distance
"""The name that comparing two results has in every subpackage."""
