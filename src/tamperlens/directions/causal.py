"""Does the direction do what it is said to do, on generated text? Ablation, addition, and random controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, PairedTest, bootstrap, undefined
from tamperlens.directions.direction import Direction
from tamperlens.models import Decoding, ModelLike, as_chat_model, old_length
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts
from tamperlens.rates.evaluation import RefusalRates, compare, evaluate
from tamperlens_hooks import ablate_direction, add_direction


@dataclass(frozen=True)
class CausalCheck(Result):
    """Refusal with the direction removed, with random ones removed, and with it added.

    Attributes:
        harmful: rates on harmful prompts, nothing changed.
        ablated: rates on harmful prompts, the direction ablated.
        random: rates on harmful prompts, one per random direction ablated.
        harmless: rates on harmless prompts, nothing changed.
        added: rates on harmless prompts, the direction added at its layer.
        random_added: rates on harmless prompts, one per random vector of the same norm added there; empty
            unless asked for.
        bypass_drop: refusal rate on harmful prompts, untouched − ablated, paired.
        random_drop: the same for the random directions, averaged over them per prompt.
        induce_rise: refusal rate on harmless prompts, added − untouched, paired.
        bypass_test: McNemar on the same pairs as `bypass_drop` (difference is after − before).
        induce_test: McNemar on the same pairs as `induce_rise`.
        seed: of the random directions.
        scale: how many times the raw difference of means was added.
    """

    harmful: RefusalRates
    ablated: RefusalRates
    random: tuple[RefusalRates, ...]
    harmless: RefusalRates
    added: RefusalRates
    random_added: tuple[RefusalRates, ...]
    bypass_drop: Estimate
    random_drop: Estimate
    induce_rise: Estimate
    bypass_test: PairedTest
    induce_test: PairedTest
    seed: int
    scale: float

    def summary(self) -> str:
        """What ablating and adding the direction did, beside random directions."""
        return (
            f"Ablating the direction lowers refusal of harmful prompts by {self.bypass_drop}, a random one "
            f"by {self.random_drop}; adding it raises refusal of harmless prompts by {self.induce_rise}."
        )

    def to_frame(self) -> pd.DataFrame:
        """The rates of every condition: condition, set, category, outcome, value, low, high, n, …"""
        named = [
            ("harmful, untouched", self.harmful),
            ("harmful, direction ablated", self.ablated),
            *((f"harmful, random {i} ablated", rates) for i, rates in enumerate(self.random)),
            ("harmless, untouched", self.harmless),
            ("harmless, direction added", self.added),
            *((f"harmless, random {i} added", rates) for i, rates in enumerate(self.random_added)),
        ]
        frames = []
        for condition, rates in named:
            frame = rates.to_frame()
            frame.insert(0, "condition", condition)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)


@old_length
def causal_check(
    model: ModelLike,
    direction: Direction,
    harmful: Prompts,
    harmless: Prompts,
    *,
    judge: str | Judge | None = None,
    n_random: int = 3,
    random_addition: bool = False,
    scale: float = 1.0,
    seed: int = 0,
    decoding: Decoding | None = None,
    baseline: tuple[RefusalRates, RefusalRates] | None = None,
    progress: bool = False,
) -> CausalCheck:
    """Generate with the direction ablated, random directions ablated, and the direction added; count
    refusals.

    Use prompts that had no part in finding the direction. All conditions share prompts, judge and decoding.

    Args:
        model: the model that the direction is tried on; it may be another than the one it was found in.
        direction: unit vector for the ablation, `scale` × raw difference of means for the addition.
        harmful: prompts to ablate on.
        harmless: prompts to add on.
        judge: as in `evaluate`.
        n_random: random directions of the same norm ablated as controls (Gaussian, seeded).
        random_addition: also add the random vectors, scaled to the same norm.
        scale: of the addition.
        seed: of the random directions.
        decoding: how answers are made; `Decoding()` by default.
        baseline: rates of the untouched model on (harmful, harmless) if they are there already; they must be
            of the same prompts, judge and decoding.
        progress: show bars.

    Raises:
        InputError: the direction is undefined or of another architecture, or the baseline is of
            other prompts.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> from tamperlens.models import Decoding
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> direction = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> few = {'n_random': 1, 'decoding': Decoding(12)}
        >>> found = directions.causal_check(model, direction, harmful.head(8), harmless.head(8), **few)
        >>> found.ablated.refusal_rate.value < found.harmful.refusal_rate.value
        True
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    usable(direction)
    how = Decoding.of(decoding, {})

    def rates(data: Prompts) -> RefusalRates:
        return evaluate(model, data, judge=judge, decoding=how, progress=progress)

    raw = (direction.raw * scale).to(model.device)
    controls = random_directions(direction, n_random, seed)
    untouched_bad, untouched_good = baseline or (rates(harmful), rates(harmless))
    with ablate_direction(model, direction.vector.to(model.device)):
        ablated = rates(harmful)
    with add_direction(model, raw, layer=direction.layer):
        added = rates(harmless)
    random, random_added = [], []
    for control in controls:
        with ablate_direction(model, control.to(model.device)):
            random.append(rates(harmful))
        if random_addition:
            with add_direction(model, control.to(model.device) * scale, layer=direction.layer):
                random_added.append(rates(harmless))
    bypass, induce = compare(untouched_bad, ablated), compare(untouched_good, added)
    return CausalCheck(
        harmful=untouched_bad,
        ablated=ablated,
        random=tuple(random),
        harmless=untouched_good,
        added=added,
        random_added=tuple(random_added),
        bypass_drop=-bypass.difference,
        random_drop=_mean_drop(untouched_bad, random, seed),
        induce_rise=induce.difference,
        bypass_test=bypass,
        induce_test=induce,
        seed=seed,
        scale=scale,
    )


def usable(direction: Direction) -> None:
    """Refuse an undefined direction.

    Raises:
        InputError: it is.
    """
    if not direction.defined:
        raise InputError(
            f"the direction of {direction.model!r} is undefined ({direction.flag}): nothing to ablate or add"
        )


def random_directions(direction: Direction, n: int, seed: int) -> list[Float[Tensor, " d_model"]]:
    """n seeded Gaussian vectors with the norm of the raw difference of means."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(direction.vector.numel(), generator=generator) for _ in range(n)]
    return [vector / vector.norm() * direction.raw_norm for vector in drawn]


def _mean_drop(untouched: RefusalRates, random: Sequence[RefusalRates], seed: int) -> Estimate:
    """Per prompt, refused untouched − share of random ablations that leave it refused; then over prompts."""
    for rates in random:
        compare(untouched, rates)  # same prompts and decoding, or an error
    if not random:
        return undefined("no random directions were asked for")
    before = np.array(untouched.completions.refused, dtype=float)
    after = np.array([rates.completions.refused for rates in random], dtype=float).mean(0)
    return bootstrap(before - after, seed=seed)
