"""Two sides beside each other: paired differences with intervals, and the tax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tamperlens.base.stats import Estimate, holm, paired_difference, ratio, undefined
from tamperlens.studies.evaluation import (
    ALL,
    COMPLIANCE,
    LOSS,
    OVER_REFUSAL,
    REFUSAL,
    Outcomes,
    difference,
)


def rates_of(outcomes: Outcomes) -> list[str]:
    """The rates that models are compared by; compliance is what refusal and degenerate answers leave."""
    return [name for name in outcomes.measures if name != COMPLIANCE]


def kind_of(measure: str, outcomes: Outcomes) -> str:
    """ "refusal", "over-refusal", "degenerate" or "capability"."""
    if measure in (*outcomes.suites, ALL):
        return "capability"
    return "over-refusal" if measure in OVER_REFUSAL.values() else measure


def measure_rows(before: Outcomes, after: Outcomes, seed: int) -> list[dict[str, Any]]:
    """One row per measure; p-values are Holm-adjusted over the rates (without "all questions")."""
    rows = []
    for name in rates_of(before):
        test = difference(before, after, name)
        rows.append(
            {
                "measure": name, "kind": kind_of(name, before), "before": before.rate(name).value,
                "after": after.rate(name).value, **spread(test.difference),
                "gained": test.gained, "lost": test.lost,
                "p_value": test.p_value, "p_holm": float("nan"),
            }
        )  # fmt: skip
    single = [row for row in rows if row["measure"] != ALL]
    for row, adjusted in zip(single, holm([row["p_value"] for row in single]), strict=True):
        row["p_holm"] = adjusted
    return [*rows, _perplexity(before, after, seed)]


def category_rows(before: Outcomes, after: Outcomes) -> list[dict[str, Any]]:
    """Accuracy by suite and kind of question, such as arithmetic by operation and size."""
    rows = []
    for suite, kinds in before.categories.items():
        for kind in dict.fromkeys(kinds):
            at = [i for i, one in enumerate(kinds) if one == kind]
            one, two = ([side.flags[suite][i] for i in at] for side in (before, after))
            rows.append(
                {
                    "suite": suite, "category": kind, "before": sum(one) / len(at),
                    "after": sum(two) / len(at), **spread(paired_difference(one, two)),
                }
            )  # fmt: skip
    return rows


def tax_rows(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """Loss of accuracy per point of refusal gained, for every suite and for all questions."""
    gain = _estimate(measures[measures["measure"] == REFUSAL].iloc[0].to_dict())
    rows = []
    for row in measures[measures["kind"] == "capability"].to_dict("records"):
        shift = _estimate(row)
        loss = lost(shift)
        found = tax(loss, gain)
        rows.append(
            {
                "suite": row["measure"], "loss": loss.value, "gain": gain.value, "tax": found.value,
                "low": found.low, "high": found.high, "n": found.n, "method": found.method,
                "reason": found.reason,
            }
        )  # fmt: skip
    return rows


def tax(loss: Estimate, gain: Estimate) -> Estimate:
    """loss / gain with Fieller's interval; undefined where refusal may not have risen."""
    if gain.low <= 0 <= gain.high:
        return undefined(
            f"the gain in refusal may be nothing: {gain.value:+.0%} [{gain.low:+.0%}, {gain.high:+.0%}]",
            min(loss.n, gain.n),
        )
    if gain.value < 0:
        return undefined(f"refusal fell by {-gain.value:.0%}, so nothing was paid for", min(loss.n, gain.n))
    return ratio(loss, gain)


def lost(shift: Estimate) -> Estimate:
    """A change as a loss; 0 − x, so that no loss is 0 and not −0."""
    return Estimate(0.0 - shift.value, 0.0 - shift.high, 0.0 - shift.low, shift.n, shift.method)


def spread(found: Estimate) -> dict[str, Any]:
    """difference, low, high, n, method."""
    return {
        "difference": found.value, "low": found.low, "high": found.high, "n": found.n, "method": found.method
    }  # fmt: skip


def _perplexity(before: Outcomes, after: Outcomes, seed: int) -> dict[str, Any]:
    """Mean −log p per token of the same answers: a ratio of sums, bootstrapped over answers."""
    losses, tokens = before.columns(LOSS)
    shift = after.columns(LOSS)[0] - losses
    picks = np.random.default_rng(seed).integers(0, len(tokens), size=(2000, len(tokens)))
    low, high = np.quantile(shift[picks].sum(1) / tokens[picks].sum(1), [0.025, 0.975])
    one, two = (float(side.columns(LOSS)[0].sum() / tokens.sum()) for side in (before, after))
    found = Estimate(two - one, float(low), float(high), len(tokens), "bootstrap 95%")
    return {
        "measure": LOSS, "kind": "perplexity", "before": one, "after": two, **spread(found),
        "gained": 0, "lost": 0, "p_value": float("nan"), "p_holm": float("nan"),
    }  # fmt: skip


def _estimate(row: Mapping[Any, Any]) -> Estimate:
    return Estimate(row["difference"], row["low"], row["high"], int(row["n"]), str(row["method"]))
