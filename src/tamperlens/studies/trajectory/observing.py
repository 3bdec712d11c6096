"""`Observer`: one model in training against the base, on fixed prompts, without a second model in memory."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float64
from torch import Tensor

from tamperlens import drift, heads, refusal
from tamperlens.base.errors import NumericsError
from tamperlens.base.measurement import NO_SPAN
from tamperlens.base.stats import Estimate
from tamperlens.directions import paired_reads
from tamperlens.directions.geometry import degrees
from tamperlens.directions.nulls import HALVES, band, null_cosines, resamples, unturned_cosine
from tamperlens.drift import DriftTrace
from tamperlens.models import ChatModel
from tamperlens.models.fingerprint import versions
from tamperlens.studies.trajectory.answers import Answers
from tamperlens.studies.trajectory.passes import Activations, Turns
from tamperlens.studies.trajectory.records import Record
from tamperlens.studies.trajectory.setup import SAMPLED, Setup
from tamperlens.studies.trajectory.unchanged import unchanged_mean

OTHER_PROMPTS = "the base on resampled prompts"
ODDS = ("refusal log-odds", "over-refusal log-odds (harmless)")
SIDES = ("harmful", "harmless")
LOSS = "loss on harmless answers"
DIRECTION = "harmful and harmless"
PAIRED_DRAWS = 200
ACOS = 1e-5
"""Degrees that the arc cosine of a cosine within rounding of 1 can be off."""


class Observer:
    """Measures a model in training against what the base gave.

    Everything of the base is kept at the start (answers, logits of a few tokens, activations at one position,
    head scores), so that later only the model in training is run. Values are means over prompts; draws use
    one set of resamples for all steps, measures and seeds, so that they are paired.
    """

    def __init__(self, setup: Setup, base: ChatModel, *, drift_base: ChatModel | None = None) -> None:
        """See the class.

        Args:
            setup: what to measure.
            base: the untouched model.
            drift_base: whose weights are the origin of drift; `base` by default. They must stay as they are.
        """
        self.setup, asked = setup, setup.asked
        self.n_bad, self.n = len(asked.harmful), min(len(asked.harmful), len(asked.harmless))
        generator = torch.Generator().manual_seed(setup.seed)
        self.weights = [
            resamples(len(data), setup.draws, generator) for data in (asked.harmful, asked.harmless)
        ]
        self.drift: drift.Recorder | None = None
        if "drift" in setup.measures:
            self.drift = drift.Recorder(setup.groups or {}, controls={})
            self.drift.start(base if drift_base is None else drift_base)
        prompts = [*asked.harmful.prompts, *asked.harmless.prompts]
        self.turns = Turns(base, prompts, setup.answer_tokens, setup.direction.position)
        self.base = self.turns.run(base)
        self.heads = self._heads(base) if "heads" in setup.measures else None
        self.nulls = self._nulls()
        self.answers = Answers(setup, base)
        self.start = self._observe(0, base, self.base, self.heads, sampled=True)

    def observe(self, step: int, model: ChatModel, *, sampled: bool) -> Record:
        """The model as it is now; step 0 is the base, measured once."""
        if step == 0:
            return self.start
        # Scores carry a fingerprint, a hash of all weights: too expensive for a model that is gone a step on.
        model = dataclasses.replace(model, _fingerprint=(versions(model.module), f"in training, step {step}"))
        now = self._heads(model) if self.heads is not None else None
        try:
            found = self.turns.run(model)
        except NumericsError as error:
            undefined = Record(step)
            for name, which in (("direction cosine", DIRECTION), *zip(ODDS, SIDES, strict=True)):
                undefined.add(name, which, math.nan, None, 0, reason=str(error))
            return undefined
        return self._observe(step, model, found, now, sampled=sampled)

    def _observe(
        self, step: int, model: ChatModel, found: Activations, now: Tensor | None, *, sampled: bool
    ) -> Record:
        record, wanted = Record(step), self.setup.measures
        if self.drift is not None:
            self._drift(record, self.drift, model)
        if "direction" in wanted:
            self._direction(record, found)
        if "log-odds" in wanted:
            for side, name in enumerate(ODDS):
                self._mean(record, name, self._odds(found, side), side, self._odds(self.base, side))
        if "kl" in wanted:
            pairs = zip(self.base.logits, found.logits[: self.n_bad], strict=False)
            self._mean(record, "token KL", torch.stack([refusal.kl_divergence(*p).mean() for p in pairs]), 0)
        if "loss" in wanted:
            self._mean(record, LOSS, self._loss(found), 1, self._loss(self.base))
        if now is not None:
            self._head_cosine(record, now)
        if sampled and set(SAMPLED) & set(wanted):
            self.answers.measure(record, model)
            record.sampled = True
        return record

    def _drift(self, record: Record, recorder: drift.Recorder, model: ChatModel) -> None:
        rows = recorder.record(record.step, model)
        recorder.rows.clear()
        table = DriftTrace.from_rows(rows).to_frame()
        table = table[(table["measure"] == "relative_l2") & (table["n"] > 0)]
        for name, part in table.groupby("group", sort=False):
            values = torch.tensor(part["value"].to_numpy(), dtype=torch.float64)
            record.add(
                f"drift: {name}",
                "weights",
                float(values.mean()),
                self._resampled(len(values)) @ values,
                len(values),
            )

    def _direction(self, record: Record, found: Activations) -> None:
        sides = list(zip(self._sides(self.base), self._sides(found), strict=True))
        for layer, (one, two) in enumerate(sides):
            record.layers.append({"layer": layer, "cosine": _cosine(_difference(*one), _difference(*two))})
        base, now = sides[self.setup.direction.layer]
        drawn = [self.weights[0] @ side[0] - self.weights[1] @ side[1] for side in (base, now)]
        cosines = torch.nn.functional.cosine_similarity(drawn[0], drawn[1], dim=1).clamp(-1, 1)
        value, null = _cosine(_difference(*base), _difference(*now)), self.nulls["direction cosine"]
        reads = [paired_reads.Activations(*side, *side) for side in (base, now)]
        along = self.setup.direction.vector.double()
        same = paired_reads.unchanged(reads[0], reads[1], PAIRED_DRAWS, self.setup.seed, along)
        record.add("direction cosine", DIRECTION, value, cosines, self.n, null, unchanged=same["cosine"])
        # Cosines turn into angles the other way round.
        centre, near, far = (degrees(x) for x in (null.value, null.high, null.low))
        angle = Estimate(centre, near, far, self.n, null.method)
        angles = cosines.arccos().rad2deg()
        record.add(
            "direction angle", DIRECTION, degrees(value), angles, self.n, angle,
            unchanged=(0.0, max(same["angle_degrees"][1], ACOS)),
        )  # fmt: skip
        gap, gaps = self._gap(now)
        record.add(
            "projection gap", DIRECTION, gap, gaps, self.n, self.nulls["projection gap"],
            unchanged=same.get("gap_base_direction", NO_SPAN),
        )  # fmt: skip

    def _head_cosine(self, record: Record, now: Float64[Tensor, "n layer head"]) -> None:
        assert self.heads is not None
        record.heads = [[float(f"{one:.5g}") for one in row] for row in now.mean(0).tolist()]
        weights = self._resampled(len(now))
        one, two = (weights @ side.flatten(1) for side in (self.heads, now))
        draws = torch.nn.functional.cosine_similarity(one, two, dim=1)
        base, tuned = (side.mean(0).flatten() for side in (self.heads, now))
        value, least = _cosine(base, tuned), unturned_cosine(base, tuned, one, two, len(now))
        record.add(
            "head cosine", "harmful", value, draws, len(now), self.nulls["head cosine"],
            unchanged=(least, 1.0),
        )  # fmt: skip

    def _mean(
        self, record: Record, measure: str, values: Tensor, side: int, before: Tensor | None = None
    ) -> None:
        draws = self.weights[side] @ values
        same = NO_SPAN if before is None else unchanged_mean(before, values)
        record.add(
            measure, SIDES[side], float(values.mean()), draws, len(values), self.nulls.get(measure),
            unchanged=same,
        )  # fmt: skip

    def _odds(self, found: Activations, side: int) -> Float64[Tensor, " n"]:
        part = found.logits[: self.n_bad] if side == 0 else found.logits[self.n_bad :]
        return refusal.refusal_metric(torch.stack([row[0] for row in part]), self.setup.tokens)

    def _loss(self, found: Activations) -> Float64[Tensor, " n"]:
        """Mean −log p of the base's own first answer tokens, by harmless prompt."""
        answers = self.turns.answers[self.n_bad :]
        return torch.stack(
            [
                torch.nn.functional.cross_entropy(row.double(), torch.tensor(answer))
                for row, answer in zip(found.logits[self.n_bad :], answers, strict=True)
            ]
        )

    def _sides(self, found: Activations) -> list[tuple[Tensor, Tensor]]:
        """Harmful and harmless activations, by layer."""
        return [(layer[: self.n_bad], layer[self.n_bad :]) for layer in found.residual]

    def _gap(self, sides: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
        """Harmful − harmless mean along the base's direction, and its draws."""
        bad, good = (side @ self.setup.direction.vector.double() for side in sides)
        return float(bad.mean() - good.mean()), self.weights[0] @ bad - self.weights[1] @ good

    def _heads(self, model: ChatModel) -> Float64[Tensor, "n layer head"]:
        data = self.setup.asked.harmful.head(min(self.setup.head_prompts, self.n_bad))
        return heads.attribute(model, data, direction=self.setup.direction).per_prompt.double().cpu()

    def _resampled(self, n: int) -> Float64[Tensor, "draws n"]:
        return resamples(n, self.setup.draws, torch.Generator().manual_seed(self.setup.seed))

    def _nulls(self) -> dict[str, Estimate]:
        """Bands from the base alone: split halves for directions and heads, other prompts for means."""
        here = self._sides(self.base)[self.setup.direction.layer]
        draws = null_cosines(*here, kind=HALVES, n_draws=200, seed=self.setup.seed)
        found = {
            "direction cosine": band(draws, self.n, HALVES),
            "projection gap": band(self._gap(here)[1], self.n, OTHER_PROMPTS),
        }
        for side, name in enumerate(ODDS):
            spread = self.weights[side] @ self._odds(self.base, side)
            found[name] = band(spread, self.weights[side].shape[1], OTHER_PROMPTS)
        if self.heads is not None:
            found["head cosine"] = band(_half_cosines(self.heads), len(self.heads), HALVES)
        return found


def _half_cosines(scores: Float64[Tensor, "n layer head"]) -> Float64[Tensor, " draws"]:
    """Cosines between head scores of random halves of the prompts."""
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(len(scores), generator=generator) for _ in range(100)])
    half = len(scores) // 2
    one, two = (scores[part].mean(1).flatten(1) for part in (order[:, :half], order[:, half:]))
    return torch.nn.functional.cosine_similarity(one, two, dim=1)


def _difference(harmful: Tensor, harmless: Tensor) -> Tensor:
    found: Tensor = harmful.mean(0) - harmless.mean(0)
    return found


def _cosine(one: Tensor, two: Tensor) -> float:
    size = float(one.norm() * two.norm())
    return max(-1.0, min(1.0, float(one @ two) / size)) if size > 0 else math.nan
