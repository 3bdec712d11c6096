"""A removed set beside its controls: differences with intervals over prompts and draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tamperlens.base import stats
from tamperlens.base.measurement import Difference
from tamperlens.base.stats import Estimate
from tamperlens.studies.evaluation import (
    CAPABILITY,
    COMPLIANCE,
    DEGENERATE,
    OVER_REFUSAL,
    PERPLEXITY,
    REFUSAL,
    Array,
    Outcomes,
)

MEASURES = (REFUSAL, COMPLIANCE, DEGENERATE, OVER_REFUSAL["harmless"], CAPABILITY, PERPLEXITY)
RESAMPLES = 2000
CONTROLS = "matched random sets: mean and range"


def effect(
    name: str, measure: str, intact: Outcomes, state: Outcomes, controls: Sequence[Outcomes], seed: int
) -> Difference:
    """The measure intact and in the state, and its difference to the mean over the state's controls.

    The difference is paired over prompts. Its interval is a percentile bootstrap that resamples prompts and
    control draws, both, because both are samples. For perplexity the difference is that of the mean
    negative log-likelihood per token (nats), i.e. of log perplexity. `null` holds the mean over draws with
    their range. `p` is the share of draws at least as far from their mean as the set is, (1 + k) /
    (1 + draws): with 20 draws it cannot go below 1/21.
    """
    own, tokens = state.columns(measure)
    others = np.stack([one.columns(measure)[0] for one in controls])
    draws = len(controls)
    found = shift(own, tokens, others, seed, exact=measure != PERPLEXITY)
    total = tokens.sum()
    value, each = own.sum() / total, others.sum(1) / total
    distance = abs(value - each.mean())
    extreme = int((np.abs(each - each.mean()) >= distance - 1e-12).sum())
    shown = [one.estimate(measure).value for one in controls]
    control = float(np.exp(min(each.mean(), 700))) if measure == PERPLEXITY else float(np.mean(shown))
    return Difference(
        measure, name, intact.estimate(measure).value, state.estimate(measure).value,
        found, Estimate(control, float(np.min(shown)), float(np.max(shown)), draws, CONTROLS),
        p=(1 + extreme) / (1 + draws),
    )  # fmt: skip


def shift(
    own: Array, tokens: Array, others: Array, seed: int, *, confidence: float = 0.95, exact: bool = True
) -> Estimate:
    """A state's mean less the mean over its controls, by bootstrap over prompts and draws.

    Args:
        own: the state's numerators, one per prompt.
        tokens: denominators.
        others: [draw, prompt], the controls' numerators.
        seed: of the resamples.
        confidence: of the interval.
        exact: whether values are yes or no, so that resamples that all agree still leave Wilson's room.
    """
    generator = np.random.default_rng(seed)
    n, draws = own.size, len(others)
    samples = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rows = generator.integers(0, n, n)
        picks = generator.integers(0, draws, draws)
        samples[i] = (own[rows].sum() - others[picks][:, rows].sum(1).mean()) / tokens[rows].sum()
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    if exact and np.ptp(samples) == 0:
        # No prompt differs, so no resample does: n equal prompts leave open Wilson's bound for 0 of n.
        room = stats.wilson(0, n, confidence).high
        low, high = max(-1.0, low - room), min(1.0, high + room)
    value = (own.sum() - others.sum(1).mean()) / tokens.sum()
    return Estimate(float(value), float(low), float(high), n, "bootstrap over prompts and draws")


def effects(
    name: str, intact: Outcomes, state: Outcomes, controls: Sequence[Outcomes], seed: int
) -> list[Difference]:
    """`effect` for every measure."""
    return [effect(name, measure, intact, state, controls, seed) for measure in MEASURES]


def sentence(
    rows: Sequence[Difference],
    label: str,
    share: float,
    band: float = 0.1,
    broken: str = "",
    broken_controls: int = 0,
) -> str:
    """The finding on one set in words, from its rows of effects.

    Rates of broken models (`studies.evaluation.collapse`) are not compared: neither where the set's removal
    breaks the model, nor where that of half of its controls or more does.

    Args:
        rows: of one set, all measures.
        label: what the set is called.
        share: of the weights.
        band: loss of capability against the controls that still counts as holding.
        broken: why the model without the set is broken, or "".
        broken_controls: how many of its controls are broken.

    "Breaks capability" is said of a loss that certainly exceeds the band, "costs capability" of one that is
    certain but may lie inside it.
    """
    by = {row.measure: row for row in rows}
    size = f"{share:.2%} of the weights" if share == share else "ranks"
    parts = []
    for row, random in ((by[REFUSAL], "matched random sets"), (by[CAPABILITY], "random")):
        found = row.difference
        parts.append(
            f"{row.measure} {row.before:.0%} → {row.after:.0%}, with {random} {row.null.value:.0%} "
            f"(difference {found.value:+.0%} [{found.low:+.0%}, {found.high:+.0%}])"
        )
    head = f"{label} ({size}): {'; '.join(parts)}."
    able = by[CAPABILITY].difference
    draws = by[REFUSAL].null.n
    if broken:
        return f"{head} Without it the model is broken ({broken}), so that its refusal is not compared."
    if 2 * broken_controls >= draws:
        return (
            f"{head} {broken_controls} of the {draws} models without random sets are broken, so that nothing "
            "can be compared with them."
        )
    if broken_controls:
        head += f" {broken_controls} of the {draws} models without random sets are broken."
    if by[REFUSAL].difference.high >= 0:
        return f"{head} It does not lower refusal more than random sets do."
    if able.low >= -band:
        lost = by[CAPABILITY].before - by[CAPABILITY].after
        if lost <= band + 1e-9:
            return f"{head} It carries refusal apart from capability."
        return (
            f"{head} It lowers refusal more than random sets do and costs no more capability than they do, "
            f"which is {100 * lost:.0f} points."
        )
    if able.high < -band:
        return f"{head} It lowers refusal more than random sets do, and breaks capability with it."
    if able.high < 0:
        return f"{head} It lowers refusal more than random sets do, and costs capability with it."
    return f"{head} It lowers refusal more than random sets do; whether capability holds cannot be told."
