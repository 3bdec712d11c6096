"""`DirectionRecorder`: the refusal direction, step by step, while a model is being fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import BatchSize, Split
from tamperlens.directions.causal import random_directions
from tamperlens.directions.checkpoints import (
    MEASURES,
    RANDOM_DIRECTIONS,
    base_nulls,
    compare_activations,
    read,
    verdicts,
)
from tamperlens.directions.direction import Direction
from tamperlens.directions.finding import split_of
from tamperlens.directions.geometry import cosine_and_angle
from tamperlens.directions.nulls import HALVES, band, null_cosines
from tamperlens.directions.paired_reads import Activations
from tamperlens.directions.scoring import Scorer
from tamperlens.directions.tokens import RefusalTokens
from tamperlens.directions.transfer import RANDOM, effect_rows, tokens_of
from tamperlens.models import ChatModel
from tamperlens.plots import Plot
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts

PROFILE = "cosine_by_layer"


@dataclass(frozen=True)
class DirectionTrace(Result):
    """What a `DirectionRecorder` saw.

    Attributes:
        table: one row per step, measure and layer: step, measure, layer, value, low, high, n, null, null_low,
            null_high, null_kind, within_prompt_band, within_chance, unchanged_low, unchanged_high, changed,
            reason (see `CheckpointDistance`). Measures: those of `compare_checkpoints`, "cosine_by_layer" at
            every layer, and causal ones, "<direction>_<measure>" of `causal_transfer` in the tuned model,
            whose null is the random directions.
        layer: the base direction's.
        position: likewise.
        k: dimensions of the spans.
        model: name of the model that was fine-tuned.
        fingerprint: of that model, untouched.
        direction_fingerprint: of the model that the direction was found in.
    """

    table: pd.DataFrame
    layer: int
    position: int
    k: int
    model: str
    fingerprint: str
    direction_fingerprint: str

    def summary(self) -> str:
        """Cosine with the base's direction at the first and the last record."""
        rows = self.table[(self.table["measure"] == "cosine") & (self.table["n"] > 0)]
        if rows.empty:
            return f"{self.model}: no cosine was recorded."
        first, last = rows.iloc[0], rows.iloc[-1]
        return (
            f"{self.model}: cosine with the base's direction {first['value']:.3f} at step {first['step']}, "
            f"{last['value']:.3f} [{last['low']:.3f}, {last['high']:.3f}] at step {last['step']}."
        )

    def of(self, measure: str, layer: int | None = None) -> pd.DataFrame:
        """The rows of one measure, by step.

        Raises:
            InputError: it was not recorded.
        """
        at = self.layer if layer is None else layer
        rows = self.table[(self.table["measure"] == measure) & (self.table["layer"] == at)]
        if rows.empty:
            known = ", ".join(sorted(set(self.table.get("measure", ()))))
            raise InputError(f"{measure!r} was not recorded at layer {at}; recorded: {known or 'nothing'}")
        return rows.sort_values("step")

    def plot(self) -> Plot:
        """A `tamperlens.plots.Plot`: the cosine to the base's direction over steps, with its null band."""
        from tamperlens.plots.steps import band_over_steps

        return band_over_steps(
            self.of("cosine"),
            name="direction_over_steps",
            title="Refusal direction while fine-tuning",
            axis="cosine to the base's direction",
            caption=(
                f"Difference of means at layer {self.layer}, position −{-self.position}, against the "
                "untouched model's; bars: paired bootstrap 95 %; band: where other prompts of the base "
                "would put it (split halves)."
            ),
        )


class DirectionRecorder:
    """Follows the refusal direction through a run of `finetune`, at the base's layer and position.

    Prompts and their split are those of the base's direction. A record costs one pass over them up to the
    last layer needed, and with `causal` a few passes over the validation prompts. It draws from generators of
    its own and puts training flags back, so that training is bit for bit what it is without it.
    """

    name = "direction"

    @renamed_arguments(n_draws="draws")
    def __init__(
        self,
        direction: Direction,
        harmful: Prompts,
        harmless: Prompts,
        every: int = 50,
        *,
        k: int = 3,
        profile: bool = True,
        causal: bool = True,
        refusal_tokens: Sequence[int] | RefusalTokens | None = None,
        draws: int = 200,
        n_random: int = 2,
        seed: int = 0,
        batch_size: BatchSize = "auto",
        cache: ActivationCache | None = None,
    ) -> None:
        """See the class.

        Args:
            direction: what `find_direction` gave for the base model.
            harmful: the harmful prompts that it was given.
            harmless: the harmless prompts that it was given.
            every: steps between records; step 0 and the last step are always recorded.
            k: dimensions of the spans (`compare_checkpoints`).
            profile: also the cosine at every layer, at the direction's position.
            causal: also what the base's and the tuned model's direction do in the tuned model.
            refusal_tokens: of the causal measures; the direction's own by default.
            draws: of nulls and intervals.
            n_random: random directions beside the causal measures.
            seed: of all draws.
            batch_size: rows at once in the causal measures.
            cache: where the base's activations are kept between runs; the tuned model's never are.

        Raises:
            InputError: other prompts than the direction's, an undefined direction, or a value out of range.
        """
        harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
        if every < 1:
            raise InputError(f"every={every} must be at least 1")
        if not direction.defined:
            raise InputError(f"the direction of {direction.model!r} is undefined: {direction.flag}")
        self.direction, self.every, self.k = direction, every, k
        self.split: Split = split_of(direction, harmful, harmless)
        self.profile, self.causal = profile, causal
        self.tokens = tokens_of(direction, refusal_tokens) if causal else ()
        self.n_draws, self.n_random, self.seed = draws, n_random, seed
        self.batch_size, self.cache = batch_size, cache
        self.rows: list[dict[str, Any]] = []
        self._base: list[Activations] = []
        self._model: Any = None

    @property
    def layers(self) -> list[int] | None:
        """Layers that are read: all for the profile, else the direction's."""
        return None if self.profile else [self.direction.layer]

    def start(self, model: ChatModel) -> None:
        """Take the untouched model as the origin and draw the nulls.

        Raises:
            InputError: another architecture, or too few prompts for halves.
        """
        self.direction.check_model(model)
        self._model, self.rows = model, []
        self._base = read(model, self.split, self.direction.position, self.layers, cache=self.cache)
        here = self._base[self._index]
        self._nulls = base_nulls(here, k=self.k, n_draws=self.n_draws, seed=self.seed)
        self._by_layer = [self._null_at(reads) for reads in self._base] if self.profile else []

    def record(self, step: int, model: ChatModel) -> Sequence[Mapping[str, object]]:
        """Measure the model as it is now.

        Args:
            step: number of optimizer steps made.
            model: the ChatModel in training.
        """
        try:
            tuned = read(model, self.split, self.direction.position, self.layers)
        except NumericsError as error:
            rows = [self._undefined(measure, str(error)) for measure in MEASURES]
        else:
            rows = [
                {"layer": self.direction.layer, **row}
                for row in compare_activations(
                    self._base[self._index], tuned[self._index], self._nulls,
                    k=self.k, n_draws=self.n_draws, seed=self.seed,
                )
            ]  # fmt: skip
            rows += self._profile(tuned) if self.profile else []
            rows += self._effects(model, tuned[self._index]) if self.causal else []
        rows = [{"step": step, **row} for row in rows]
        self.rows += rows
        return rows

    def restore(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take over what an interrupted run had recorded; `finetune` calls it when it resumes.

        Args:
            rows: as `record` returned them; None, which files hold for NaN, is NaN again.
        """
        numbers = ("value", "low", "high", "null", "null_low", "null_high", "unchanged_low", "unchanged_high")
        self.rows = [
            {name: math.nan if value is None and name in numbers else value for name, value in row.items()}
            for row in rows
        ]

    def finish(self) -> DirectionTrace:
        """Everything recorded, as a trace."""
        return DirectionTrace(
            pd.DataFrame(self.rows),
            self.direction.layer,
            self.direction.position,
            self.k,
            self._model.name,
            self._model.fingerprint,
            self.direction.fingerprint,
        )

    @property
    def _index(self) -> int:
        return self.direction.layer if self.profile else 0

    def _null_at(self, reads: Activations) -> Estimate:
        draws = null_cosines(reads.harmful, reads.harmless, kind=HALVES, n_draws=self.n_draws, seed=self.seed)
        return band(draws, min(len(reads.harmful), len(reads.harmless)), HALVES)

    def _profile(self, tuned: Sequence[Activations]) -> list[dict[str, Any]]:
        rows = []
        for layer, (one, two) in enumerate(zip(self._base, tuned, strict=True)):
            defined = one.differs and two.differs
            cosine = cosine_and_angle(one.difference, two.difference)[0] if defined else math.nan
            null = self._by_layer[layer]
            rows.append(
                self._cell(
                    PROFILE,
                    Estimate(cosine, math.nan, math.nan, len(one.harmful) if defined else 0, "",
                             "" if defined else "harmful and harmless means do not differ here"),
                    null,
                    HALVES,
                    None if math.isnan(null.low) or not defined else cosine >= null.low,
                    layer,
                )
            )  # fmt: skip
        return rows

    def _effects(self, model: Any, tuned: Activations) -> list[dict[str, Any]]:
        """What directions do in the tuned model; random directions of the base's length are the null."""
        try:
            scorer = Scorer(
                model, self.split.harmful_val, self.split.harmless_val, self.tokens, self.batch_size
            )
        except NumericsError as error:
            return [self._undefined("none_metric_harmful", str(error))]
        raws: dict[str, list[Tensor]] = {"base": [self.direction.raw]}
        if tuned.differs:
            raws["own"] = [tuned.difference.float()]
        raws[RANDOM] = random_directions(self.direction, self.n_random, self.seed)
        found = effect_rows(scorer, raws, self.direction.layer, self.seed)
        random = {row["measure"]: _estimate(row) for row in found if row["direction"] == RANDOM}
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        rows = []
        for row in found:
            null = nothing if row["direction"] in ("none", RANDOM) else random.get(row["measure"], nothing)
            value = _estimate(row)
            known = math.isfinite(null.low) and math.isfinite(value.value)
            inside = null.low <= value.value <= null.high if known else None
            kind = RANDOM_DIRECTIONS if null is not nothing else ""
            rows.append(self._cell(f"{row['direction']}_{row['measure']}", value, null, kind, inside))
        return rows

    def _cell(
        self,
        measure: str,
        found: Estimate,
        null: Estimate,
        kind: str,
        inside: bool | None,
        layer: int | None = None,
    ) -> dict[str, Any]:
        return {
            "layer": self.direction.layer if layer is None else layer,
            "measure": measure,
            **found.cells(),
            **null.null_cells(),
            "null_kind": kind,
            **verdicts(kind, inside, found.value),
            "reason": found.reason,
        }

    def _undefined(self, measure: str, reason: str) -> dict[str, Any]:
        nothing = Estimate(math.nan, math.nan, math.nan, 0, "", reason)
        return self._cell(measure, nothing, self._nulls.get(measure, nothing), "", None)


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], int(row["n"]), "", row["reason"])
