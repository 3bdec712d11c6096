"""`measures.csv`, `completions.csv` and the paired tests, made from what the stages left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tamperlens import capability, refusal
from tamperlens.base.measurement import DIFFERENCES, Difference, Measurement, adjusted, table
from tamperlens.base.stats import Estimate, paired_difference, undefined
from tamperlens.capability import SuiteScore
from tamperlens.directions.geometry import degrees
from tamperlens.rates.evaluation import Outcome
from tamperlens.refusal import CausalCheck, RefusalRates
from tamperlens.studies.audit.measures import SHARE, Stage
from tamperlens.studies.audit.stages import Results
from tamperlens.studies.evaluation import ROLES

OUTCOMES: tuple[tuple[str, Outcome], ...] = (
    ("refusal_rate", "refusal"),
    ("degenerate_rate", "degenerate"),
)
PARTS = ("value", "low", "high")
STAGES: tuple[Stage, ...] = ("before", "after")


def measures(results: Results) -> pd.DataFrame:
    """Every measure of the finished stages."""
    found: list[Measurement] = []
    for stage in STAGES:
        if results.done(stage):
            found += _plain(results, stage)
        if results.done("direction") and results.done(stage):
            found += _direction(results, stage)
    return table(found)


def _plain(results: Results, stage: Stage) -> list[Measurement]:
    found = []
    for role in ROLES:
        rates = results.rates(stage, role)
        for measure in ("refusal", "full_refusal", "partial_refusal", "compliance", "degenerate"):
            estimate = getattr(rates, f"{measure.replace('l_refusal', 'l')}_rate")
            found.append(Measurement.of(f"{measure}_rate", role, stage, estimate, unit=SHARE))
        found.append(Measurement.of("echo_rate", role, stage, results.echo_rate(stage, role), unit=SHARE))
    for suite, estimate in results.capability(stage).accuracy.items():
        found.append(Measurement.of("accuracy", suite, stage, estimate, unit=SHARE))
    loss, unit = results.perplexity(stage), "perplexity of the answers before"
    return [*found, Measurement.of("perplexity", "harmless", stage, loss, unit=unit)]


def _direction(results: Results, stage: Stage) -> list[Measurement]:
    check = results.causal(stage)
    nothing = undefined("no direction")
    conditions = _conditions(check) if check is not None else dict.fromkeys(CONDITIONS, nothing)
    found = [Measurement.of(*name, stage, estimate, unit=SHARE) for name, estimate in conditions.items()]
    if stage == "before" and results.path("ablated", "capability.json").exists():
        for suite, estimate in results.capability("ablated").accuracy.items():
            found.append(Measurement.of("accuracy_ablated", suite, stage, estimate, unit=SHARE))
    cosine, null, unturned, angle, ratio = _cosines(results, stage)
    of_direction = [
        ("direction_cosine", stage, cosine, "cosine"), ("direction_angle", stage, angle, "degrees"),
        ("direction_norm_ratio", stage, ratio, "ratio of norms"),
    ]  # fmt: skip
    if stage == "after":
        # The null is a property of the base: two halves of its own prompts.
        of_direction.append(("direction_cosine_null", "before", null, "cosine"))
        of_direction.append(("direction_cosine_unturned", stage, unturned, "cosine"))
    return found + [
        Measurement.of(name, "direction", at, one, unit=unit) for name, at, one, unit in of_direction
    ]


CONDITIONS = (
    ("bypass_drop", "harmful"),
    ("random_bypass_drop", "harmful"),
    ("refusal_rate_ablated", "harmful"),
    ("degenerate_rate_ablated", "harmful"),
    ("refusal_rate_random_ablated", "harmful"),
    ("induce_rise", "harmless"),
    ("refusal_rate_added", "harmless"),
    ("degenerate_rate_added", "harmless"),
    ("refusal_rate_random_added", "harmless"),
)


def _conditions(check: CausalCheck) -> dict[tuple[str, str], Estimate]:
    harmful, harmless = check.harmful.completions.refused, check.harmless.completions.refused
    values = (
        paired_difference(check.ablated.completions.refused, harmful),
        _mean([paired_difference(one.completions.refused, harmful) for one in check.random]),
        check.ablated.refusal_rate,
        check.ablated.degenerate_rate,
        _pooled(check.random),
        paired_difference(harmless, check.added.completions.refused),
        check.added.refusal_rate,
        check.added.degenerate_rate,
        _pooled(check.random_added),
    )
    return dict(zip(CONDITIONS, values, strict=True))


def _mean(drops: Sequence[Estimate]) -> Estimate:
    """Mean over random directions of a drop and of its limits."""
    if not drops or drops[0].n == 0:
        return undefined("no random directions")
    value, low, high = (float(np.mean([getattr(one, part) for one in drops])) for part in PARTS)
    return Estimate(value, low, high, drops[0].n, drops[0].method)


def _pooled(controls: Sequence[RefusalRates]) -> Estimate:
    """Refusal averaged over random directions per prompt, then over prompts.

    Wilson's interval with prompts as units, which is wide: answers under several random directions to one
    prompt count as one.
    """
    if not controls or controls[0].n == 0:
        return undefined("no random directions")
    n, p = controls[0].n, float(np.mean([rates.completions.refused for rates in controls]))
    z = 1.959963984540054
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return Estimate(p, max(0.0, low) if p > 0 else 0.0, min(1.0, high) if p < 1 else 1.0, n, "wilson 95%")


def _cosines(results: Results, stage: Stage) -> tuple[Estimate, Estimate, Estimate, Estimate, Estimate]:
    """(cosine to the base, split-half null, least cosine without a turn, angle, norm ratio)."""
    direction = results.direction()
    if direction is None or not direction.defined:
        nothing = undefined("no direction")
        return nothing, nothing, nothing, nothing, nothing
    n = min(direction.n_train)
    if stage == "before":
        same = Estimate(1.0, 1.0, 1.0, n, "by definition")
        later = undefined("later")
        return same, later, later, Estimate(0.0, 0.0, 0.0, n, "by definition"), same
    table = results.layers()
    assert table is not None  # written by the same stage
    row = table[table["layer"] == direction.layer].iloc[0]
    if math.isnan(row["cosine"]):
        nothing = undefined("the attacked model's means do not differ here")
        return nothing, nothing, nothing, nothing, nothing
    cosine = Estimate(float(row["cosine"]), float(row["low"]), float(row["high"]), n, "bootstrap 95%")
    null = Estimate(float(row["null"]), float(row["null_low"]), float(row["null_high"]), n, "split halves")
    angle = Estimate(degrees(cosine.value), degrees(cosine.high), degrees(cosine.low), n, cosine.method)
    ratio = Estimate(results.norm_ratio(), math.nan, math.nan, n)
    # Folders of the release before have no such column.
    least = Estimate(float(row.get("unturned", math.nan)), math.nan, math.nan, n, "paired bootstrap")
    return cosine, null, least, angle, ratio


def changes(results: Results) -> pd.DataFrame:
    """Paired tests of before against after on the same prompts, with Holm's correction over all of them."""
    rows: list[Difference] = []
    if results.done("after"):
        for role in ROLES:
            one, two = results.rates("before", role), results.rates("after", role)
            for measure, outcome in OUTCOMES:
                test = refusal.compare(one, two, outcome=outcome)
                shares = (getattr(one, measure).value, getattr(two, measure).value)
                rows.append(Difference.of(measure, role, *shares, test))
        mine, theirs = results.capability("before"), results.capability("after")
        change = capability.compare(mine, theirs)
        for suite, estimate in mine.accuracy.items():
            row = Difference.of(
                "accuracy", suite, estimate.value, theirs.accuracy[suite].value, change[suite]
            )
            rows.append(row)
    return table(adjusted(rows), DIFFERENCES)


def completions(results: Results) -> pd.DataFrame:
    """Every answer that a number rests on, with stage, set, condition, verdict and decoding."""
    parts: list[pd.DataFrame] = []

    def take(frame: pd.DataFrame, stage: str, which: str, condition: str) -> None:
        frame = frame.copy()
        for place, (name, value) in enumerate({"stage": stage, "set": which, "condition": condition}.items()):
            frame.insert(place, name, value)
        frame.insert(3, "index", range(len(frame)))
        parts.append(frame)

    for stage in STAGES:
        if not results.done(stage):
            continue
        for role in ROLES:
            take(results.rates(stage, role).completions.to_frame(), stage, role, "untouched")
        for score in results.capability(stage).scores:
            take(_graded(score), stage, score.suite, "untouched")
        check = results.causal(stage) if results.done("direction") else None
        if check is not None:
            take(check.ablated.completions.to_frame(), stage, "harmful", "direction ablated")
            take(check.added.completions.to_frame(), stage, "harmless", "direction added")
            for i, rates in enumerate(check.random):
                take(rates.completions.to_frame(), stage, "harmful", f"random direction {i} ablated")
            for i, rates in enumerate(check.random_added):
                take(rates.completions.to_frame(), stage, "harmless", f"random direction {i} added")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _graded(score: SuiteScore) -> pd.DataFrame:
    """A suite's answers in the columns of refusal answers, with what was expected beside them."""
    frame = score.to_frame()
    return pd.DataFrame(
        {
            "prompt": frame["prompt"],
            "response": frame["response"],
            "label": ["correct" if right else "wrong" for right in score.correct],
            "judge": score.grader,
            "evidence": frame["reason"],
            "category": frame["category"],
            "expected": frame["expected"],
            "max_new_tokens": score.max_new_tokens,
            "temperature": score.decoding.temperature,
        }
    )
