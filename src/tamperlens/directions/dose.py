"""How much of a direction does it take? Refusal of harmless prompts and KL by the scale of the addition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.logits import kl_divergence
from tamperlens.base.measurement import COLUMNS, Measurement, table
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap
from tamperlens.directions.causal import random_directions, usable
from tamperlens.directions.direction import Direction
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model
from tamperlens.plots import Plot
from tamperlens.plots import dose_curve as drawn
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts
from tamperlens.rates.evaluation import RefusalRates, evaluate
from tamperlens_hooks import add_direction

# What a caller measures of the model at each scale.
Measure = Callable[[ChatModel], Estimate]

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
REFUSED, DEGENERATE, RANDOM, KL = "refusal rate", "degenerate rate", "refusal rate, random", "KL"
UNITS = {REFUSED: "share", DEGENERATE: "share", RANDOM: "share", KL: "nats"}
SHOWN = {REFUSED: "direction", RANDOM: "random vector", DEGENERATE: "direction"}


@dataclass(frozen=True)
class DoseCurve(Result):
    """What adding a direction does to harmless prompts, by scale.

    Attributes:
        table: one `Measurement` per scale and measure, with the scale as `scale`; scale 0 is the untouched
            model. "refusal rate" and "degenerate rate": shares of answers, Wilson; "refusal rate, random":
            with one random vector of the same length; "KL": of the first answer token's distribution from the
            untouched model's, nats, mean over prompts with a bootstrap over them; and what was asked for
            beside (`also`), in a unit that only the caller knows.
        model: name of the model.
        fingerprint: of the model.
        layer: where the direction is added.
        raw_norm: its length at scale 1, the difference of means.
        seed: of the random vector.
    """

    table: pd.DataFrame
    model: str
    fingerprint: str
    layer: int
    raw_norm: float
    seed: int

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure, by scale.

        Raises:
            InputError: no such measure.
        """
        rows = self.table[self.table["measure"] == measure]
        if rows.empty:
            raise InputError(f"no measure {measure!r}; there are {', '.join(self.table['measure'].unique())}")
        return rows.reset_index(drop=True)

    def summary(self) -> str:
        """Induced refusal, that of the random vector, KL, degenerate answers and the rest at every scale."""
        parts = []
        more = [one for one in self.table["measure"].unique() if one not in (*SHOWN, KL)]
        wide = self.table.pivot(index="scale", columns="measure", values="value").drop(index=0.0)
        for scale, row in wide.iterrows():
            parts.append(
                f"× {scale:g} {row[REFUSED]:.0%} (random {row[RANDOM]:.0%}, KL {row[KL]:.2g}, degenerate "
                f"{row[DEGENERATE]:.0%}{''.join(f', {name} {row[name]:.2g}' for name in more)})"
            )
        start = self.of(REFUSED).iloc[0]
        before = "".join(f", {name} {self.of(name).iloc[0]['value']:.2g}" for name in more)
        return (
            f"{self.model} refuses {start['value']:.0%} of {start['n']} harmless prompts{before}; with the "
            f"direction added at layer {self.layer}: {', '.join(parts)}."
        )

    def plot(self) -> Plot:
        """Refusal and degenerate answers by scale, beside the random vector."""
        rows = self.table[self.table["measure"].isin(SHOWN)]
        panels = rows["measure"].map(lambda one: "degenerate answers" if one == DEGENERATE else "refused")
        frame = rows.assign(panel=panels, series=rows["measure"].map(SHOWN), dose=rows["scale"])
        return drawn(
            frame,
            name="dose",
            title="Adding the direction, by scale",
            caption=(
                f"{int(rows['n'].max())} harmless prompts; 1 is the difference of means between harmful and "
                f"harmless prompts, 0 the untouched {self.model}. Whiskers: 95 % Wilson intervals."
            ),
            x_axis="scale of the added direction",
            y_axis="share of harmless prompts",
        )


def dose_curve(
    model: ModelLike,
    direction: Direction,
    harmless: Prompts,
    *,
    scales: Sequence[float] = SCALES,
    judge: str | Judge | None = None,
    seed: int = 0,
    decoding: Decoding | None = None,
    also: Mapping[str, Measure] | None = None,
    progress: bool = False,
) -> DoseCurve:
    """Add a direction at several scales; count refusals of harmless prompts and measure what else moves.

    A direction that carries refusal raises it at scales that leave the rest alone: read the rate beside the
    random vector's, the KL and the degenerate answers of the same scale.

    Args:
        model: the model.
        direction: its raw difference of means is scale 1.
        harmless: prompts that had no part in finding the direction.
        scales: of the addition, positive.
        judge: as in `evaluate`.
        seed: of the random vector.
        decoding: how answers are made; `Decoding()` by default.
        also: further measures by name, taken of the model at each scale: what the addition costs, as
            `{"questions right": lambda model: capability.evaluate(model, limit=12).overall}`.
        progress: show bars.

    Raises:
        InputError: no or non-positive scales, a direction that is undefined or of another width, or a further
            measure with the name of one that is taken anyway.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> from tamperlens.models import Decoding
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> found = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> few = {'scales': [0.25, 2], 'decoding': Decoding(12)}
        >>> curve = directions.dose_curve(model, found, prompts.packaged('harmless', 'test').head(8), **few)
        >>> curve.of('refusal rate')['value'].is_monotonic_increasing
        True
    """
    model, data = as_chat_model(model), as_prompts(harmless, what="harmless")
    if not scales or min(scales) <= 0:
        raise InputError(f"scales={list(scales)} must be positive numbers; the untouched model is added as 0")
    taken = [name for name in also or {} if name in UNITS]
    if taken:
        raise InputError(f"also={taken} are measured anyway; give a further measure another name")
    usable(direction)
    how = Decoding.of(decoding, {})
    control = random_directions(direction, 1, seed)[0].to(model.device)
    untouched, rows = model.logits_last(list(data.prompts)), []

    def added(vector: Tensor) -> tuple[RefusalRates, Estimate, dict[str, Estimate]]:
        with add_direction(model, vector, layer=direction.layer):
            rates = evaluate(model, data, judge=judge, decoding=how, progress=progress)
            moved = kl_divergence(untouched, model.logits_last(list(data.prompts)))
            more = {name: measure(model) for name, measure in (also or {}).items()}
        return rates, bootstrap(moved.cpu().numpy(), seed=seed), more

    for scale in (0.0, *sorted({float(one) for one in scales})):
        rates, moved, more = added(direction.raw.to(model.device) * scale)
        random = rates
        if scale:
            with add_direction(model, control * scale, layer=direction.layer):
                random = evaluate(model, data, judge=judge, decoding=how, progress=progress)
        made = [
            Measurement.of(name, "harmless", "added", found, unit=UNITS.get(name, ""))
            for name, found in (
                (REFUSED, rates.refusal_rate), (RANDOM, random.refusal_rate),
                (DEGENERATE, rates.degenerate_rate), (KL, moved), *more.items(),
            )
        ]  # fmt: skip
        rows.append(table(made, COLUMNS).assign(scale=scale))
    return DoseCurve(
        pd.concat(rows, ignore_index=True), model.name, model.fingerprint, direction.layer,
        direction.raw_norm, seed,
    )  # fmt: skip
