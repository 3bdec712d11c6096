"""Two sides beside each other: paired differences with intervals, and the tax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tamperlens.base.measurement import Difference, Measurement, adjusted
from tamperlens.base.stats import Estimate, paired_difference, ratio, undefined
from tamperlens.studies.evaluation import ALL, COMPLIANCE, LOSS, REFUSAL, Outcomes, difference

TAX_UNIT = "points of accuracy lost per point of refusal gained"


def rates_of(outcomes: Outcomes) -> list[str]:
    """The rates that models are compared by; compliance is what refusal and degenerate answers leave."""
    return [name for name in outcomes.measures if name != COMPLIANCE]


def measure_rows(before: Outcomes, after: Outcomes, seed: int) -> list[Difference]:
    """One row per measure; p-values are Holm-adjusted over the rates (without "all questions")."""
    rows = [
        Difference.of(
            name, before.set_of(name), before.rate(name).value, after.rate(name).value,
            difference(before, after, name),
        )
        for name in rates_of(before)
    ]  # fmt: skip
    single = iter(adjusted([row for row in rows if row.measure != ALL]))
    return [*(row if row.measure == ALL else next(single) for row in rows), _loss(before, after, seed)]


def category_rows(before: Outcomes, after: Outcomes) -> list[Difference]:
    """Accuracy by suite and kind of question, such as arithmetic by operation and size."""
    rows = []
    for suite, kinds in before.categories.items():
        for kind in dict.fromkeys(kinds):
            at = [i for i, one in enumerate(kinds) if one == kind]
            one, two = ([side.flags[suite][i] for i in at] for side in (before, after))
            shares = (sum(one) / len(at), sum(two) / len(at))
            rows.append(Difference(suite, kind, *shares, paired_difference(one, two)))
    return rows


def tax_rows(rows: Sequence[Difference]) -> list[Measurement]:
    """Loss of accuracy per point of refusal gained, for every suite and for all questions."""
    gain = next(row.difference for row in rows if row.measure == REFUSAL)
    return [
        Measurement.of("tax", row.measure, "after", tax(-row.difference, gain), unit=TAX_UNIT)
        for row in rows
        if row.set == "questions"
    ]


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


def _loss(before: Outcomes, after: Outcomes, seed: int) -> Difference:
    """Mean −log p per token of the same answers: a ratio of sums, bootstrapped over answers."""
    losses, tokens = before.columns(LOSS)
    shift = after.columns(LOSS)[0] - losses
    picks = np.random.default_rng(seed).integers(0, len(tokens), size=(2000, len(tokens)))
    low, high = np.quantile(shift[picks].sum(1) / tokens[picks].sum(1), [0.025, 0.975])
    one, two = (float(side.columns(LOSS)[0].sum() / tokens.sum()) for side in (before, after))
    found = Estimate(two - one, float(low), float(high), len(tokens), "bootstrap 95%")
    return Difference(LOSS, before.set_of(LOSS), one, two, found)
