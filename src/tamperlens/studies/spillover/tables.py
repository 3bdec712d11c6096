"""Two sides beside each other: paired differences with intervals, and the tax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tamperlens.base.stats import Estimate, holm, mcnemar, paired_difference, ratio, undefined
from tamperlens.studies.spillover.probes import ALL, OVER, Side

KINDS = {"refusal": "refusal", "broken text": "broken", **dict.fromkeys(OVER.values(), "over-refusal")}
NATS = "nats per token"


def measure_rows(before: Side, after: Side, seed: int) -> list[dict[str, Any]]:
    """One row per measure; p-values are Holm-adjusted over the rates (without "all questions")."""
    rows = []
    for name in (*before.flags, ALL):
        one, two = before.outcome(name), after.outcome(name)
        shift, test = paired_difference(one, two), mcnemar(one, two)
        rows.append(
            {
                "measure": name, "kind": KINDS.get(name, "capability"), "before": before.rate(name).value,
                "after": after.rate(name).value, **spread(shift), "gained": test.gained, "lost": test.lost,
                "p_value": test.p_value, "p_holm": float("nan"),
            }
        )  # fmt: skip
    single = [row for row in rows if row["measure"] != ALL]
    for row, adjusted in zip(single, holm([row["p_value"] for row in single]), strict=True):
        row["p_holm"] = adjusted
    return [*rows, _perplexity(before, after, seed)]


def category_rows(before: Side, after: Side) -> list[dict[str, Any]]:
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
    gain = _estimate(measures[measures["measure"] == "refusal"].iloc[0].to_dict())
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


def _perplexity(before: Side, after: Side, seed: int) -> dict[str, Any]:
    """Mean −log p per token of the same answers: a ratio of sums, bootstrapped over answers."""
    tokens = np.asarray(before.tokens, dtype=float)
    shift = np.asarray(after.nats) - np.asarray(before.nats)
    picks = np.random.default_rng(seed).integers(0, len(tokens), size=(2000, len(tokens)))
    low, high = np.quantile(shift[picks].sum(1) / tokens[picks].sum(1), [0.025, 0.975])
    one, two = (float(np.sum(side.nats) / tokens.sum()) for side in (before, after))
    found = Estimate(two - one, float(low), float(high), len(tokens), "bootstrap 95%")
    return {
        "measure": NATS, "kind": "perplexity", "before": one, "after": two, **spread(found),
        "gained": 0, "lost": 0, "p_value": float("nan"), "p_holm": float("nan"),
    }  # fmt: skip


def _estimate(row: Mapping[Any, Any]) -> Estimate:
    return Estimate(row["difference"], row["low"], row["high"], int(row["n"]), str(row["method"]))
