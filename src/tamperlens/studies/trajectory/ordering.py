"""What changes first: the step of 10, 50 and 90 % of each measure's final change, and who leads whom."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as sps
from sklearn.isotonic import isotonic_regression

from tamperlens.base.deprecation import deprecated
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result

Array = npt.NDArray[np.float64]
LEVELS = (0.1, 0.5, 0.9)
LEAD_LEVELS = tuple(k / 10 for k in range(1, 10))
CANNOT_TELL = "cannot tell"
RULE = (
    "first passage of 10, 50 and 90 % of the change from step 0 to the last step, of the mean over seeds, "
    "linear between records; bootstrap over seeds and, within them, prompts (drift: matrices); intervals are "
    "widened to the records around them; from three seeds on a measure is first when its interval ends "
    "before the other's begins and a paired t test over the seeds agrees (5 %); a rate and log-odds are "
    "compared as rates: the rate with the nearest rate that is a monotone function of the log-odds"
)
UNCHANGED = "no change beyond what the same prompts give without one"
FEWEST_SEEDS = 3
"""One run puts two measures of equal half-change steps in order in about 4 of 10 cases."""


Run = tuple[Sequence[float], Any, Any]
"""Steps, values and draws [step, resample] of one seed."""


@dataclass(frozen=True)
class Order(Result):
    """In which order measures change, each on its own scale.

    A measure that saturates (a rate, RD) is through with its change when one that does not (log-odds, KL) is
    still moving, even where the second drives the first: read a half-change step as "when half of what this
    number ever shows was there", not as cause.

    Attributes:
        steps: one row per measure and level: measure, level, step, low, high, change, change_low,
            change_high, n_seeds, n_records, reason. `step` is NaN with a reason where there is no change.
        pairs: one row per pair: first, second, probability (that the first's half-change comes before the
            second's, ties by halves), lead (steps by which the first is ahead, mean over 10 to 90 %),
            lead_low, lead_high, verdict (name of the one that is first, or "cannot tell"; always the latter
            below three seeds), this_run (the same over the prompts of these runs alone), p_value (t test over
            seeds), compared ("own changes", or "as rates" for a rate and log-odds).
        n_seeds: runs.
        draws: bootstrap draws.
        rule: the definition in words.
    """

    steps: pd.DataFrame
    pairs: pd.DataFrame
    n_seeds: int
    draws: int
    rule: str = RULE

    def half(self) -> pd.DataFrame:
        """Half-change steps of the measures that change, earliest first."""
        rows = self.steps[(self.steps["level"] == 0.5) & self.steps["step"].notna()]
        return rows.sort_values(["step", "measure"]).reset_index(drop=True)

    def verdict(self, one: str, other: str) -> str:
        """Which of two measures changes first, or "cannot tell".

        Raises:
            InputError: the pair is not in the table.
        """
        for a, b in ((one, other), (other, one)):
            rows = self.pairs[(self.pairs["first"] == a) & (self.pairs["second"] == b)]
            if len(rows):
                return str(rows["verdict"].iloc[0])
        raise InputError(f"no pair {one!r}, {other!r} in this order; a measure that does not change has none")

    def summary(self) -> str:
        """The order in words: half-change steps, what is told apart and what is not."""
        half = self.half()
        if half.empty:
            return "No measure changed by more than its own uncertainty."
        listed = "; ".join(
            f"{row['measure']} {row['step']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
            for row in half.to_dict("records")
        )
        few = self.n_seeds < FEWEST_SEEDS
        column = "this_run" if few else "verdict"
        told = int((self.pairs[column] != CANNOT_TELL).sum())
        tiers = "; then ".join(", ".join(tier) for tier in self.tiers(column))
        seeds = f"{self.n_seeds} seed{'s' * (self.n_seeds > 1)}"
        only = (
            f" This holds for {'this run' if self.n_seeds == 1 else 'these runs'} only: an order takes "
            f"{FEWEST_SEEDS} seeds."
        )
        still = self.steps[(self.steps["level"] == 0.5) & self.steps["step"].isna()]["measure"]
        rest = f" No change beyond its own uncertainty was shown for {', '.join(still)}."
        rest = rest if len(still) else ""
        return (
            f"Half of the final change at step: {listed}. In order, where everything before a 'then' is told "
            f"apart from everything behind it: {tiers}. Told apart in {told} of {len(self.pairs)} pairs, of "
            f"the others the order is inconclusive ({seeds}, {self.draws} draws).{only if few else ''}{rest}"
        )

    @deprecated("Order.statement()", "Order.summary()")
    def statement(self) -> str:
        """The old name of `summary`."""
        return self.summary()

    def tiers(self, column: str = "verdict") -> list[list[str]]:
        """Measures in groups: every member of a group comes before every member of the next.

        Args:
            column: "verdict", or "this_run" for the order within these runs.
        """
        names = self.half()["measure"].tolist()
        first = {
            (str(row[column]), str(row["second"] if row[column] == row["first"] else row["first"]))
            for row in self.pairs.to_dict("records")
        }
        found: list[list[str]] = [[]]
        for i, name in enumerate(names):
            if i and all((one, other) in first for one in names[:i] for other in names[i:]):
                found.append([])
            found[-1].append(name)
        return found


def order_of(
    curves: Mapping[str, Sequence[Run]],
    *,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    unchanged: Sequence[str] = (),
) -> Order:
    """The order of measures from curves at hand.

    Args:
        curves: measure to one (steps, values [step], draws [step, resample] or None) per seed; the resamples
            of all measures and seeds are of the same prompts in the same order. Steps agree over seeds.
        draws: bootstrap draws over seeds and resamples.
        seed: of them.
        confidence: of the intervals.
        unchanged: measures known not to have changed beyond what the same prompts give without a change; a
            cosine with the base, which starts at exactly 1, always seems to.

    Raises:
        InputError: no measures, seeds that were recorded at other steps, fewer than two records.
    """
    if not curves:
        raise InputError("no measures to order: each needs records at three steps; keep more checkpoints")
    n_seeds = {len(runs) for runs in curves.values()}
    if len(n_seeds) != 1 or 0 in n_seeds:
        raise InputError("every measure needs one curve per seed")
    count = n_seeds.pop()
    rng = np.random.default_rng(seed)
    # The same seeds and prompts for all measures in a draw: differences between measures are paired.
    which = rng.integers(0, count, (draws, count))
    resample = rng.random((draws, count))
    found = {name: _Curve(name, runs, which, resample, confidence) for name, runs in curves.items()}
    for name in unchanged:
        found[name].reason = found[name].reason or UNCHANGED
    changed = [one for one in found.values() if not one.reason]
    pairs = [_pair(a, b, confidence) for i, a in enumerate(changed) for b in changed[i + 1 :]]
    columns = [
        "first", "second", "probability", "lead", "lead_low", "lead_high", "verdict", "this_run", "p_value",
        "compared",
    ]  # fmt: skip
    return Order(
        pd.DataFrame([row for one in found.values() for row in one.rows()]),
        pd.DataFrame(pairs, columns=columns), count, draws,
    )  # fmt: skip


class _Curve:
    """One measure: its mean curve, the bootstrapped ones, and when they pass each level."""

    def __init__(
        self,
        name: str,
        runs: Sequence[Run],
        which: npt.NDArray[np.int64],
        resample: Array,
        confidence: float,
    ) -> None:
        self.name, self.count = name, len(runs)
        self.x = np.asarray(runs[0][0], dtype=np.float64)
        if len(self.x) < 2 or any(list(run[0]) != list(runs[0][0]) for run in runs):
            raise InputError(f"{name}: seeds need the same two or more recorded steps")
        self.tails = ((1 - confidence) / 2, (1 + confidence) / 2)
        values = np.stack([np.asarray(run[1], dtype=np.float64) for run in runs])
        drawn = np.zeros((len(which), len(self.x)))
        for k in range(self.count):  # the k-th seed of every draw
            for run in range(self.count):
                at = which[:, k] == run
                table = values[run][None] if runs[run][2] is None else np.asarray(runs[run][2]).T
                drawn[at] += table[(resample[at, k] * len(table)).astype(int)] / self.count
        self._settle(values, drawn)

    def _settle(self, values: Array, drawn: Array) -> None:
        self.values, self.curves, self.mean = values, drawn, values.mean(0)
        self.change = float(self.mean[-1] - self.mean[0])
        shift = drawn[:, -1] - drawn[:, 0]
        self.change_low, self.change_high = (float(q) for q in np.quantile(shift, self.tails))
        self.reason = self._why_not(drawn)
        self.at: dict[float, float] = {}
        self.drawn: dict[float, Array] = {}
        if not self.reason:
            levels = sorted({*LEVELS, *LEAD_LEVELS})
            self.at = {level: float(_passages(self.x, self.mean[None], level)[0]) for level in levels}
            self.drawn = {level: _passages(self.x, drawn, level) for level in levels}

    def _why_not(self, drawn: Array) -> str:
        if not (np.isfinite(self.mean).all() and np.isfinite(drawn).all()):
            return "undefined at some step"
        if self.change == 0 or self.change_low <= 0 <= self.change_high:
            return (
                f"no change beyond its uncertainty: {self.change:.3g} "
                f"[{self.change_low:.3g}, {self.change_high:.3g}]"
            )
        return ""

    def implied_by(self, other: _Curve) -> _Curve:
        """This curve as far as it is a monotone function of another, seeds taken together."""
        there = np.isin(other.x, self.x)
        if there.sum() != len(self.x):
            return other
        made = copy.copy(self)
        sign = float(np.sign(self.change * other.change))
        x, drawn = other.values[:, there] * sign, other.curves[:, there] * sign
        values = _monotone(x.reshape(1, -1), self.values.reshape(1, -1)).reshape(self.values.shape)
        made._settle(values, _monotone(drawn, self.curves))
        return made

    def half_by_seed(self) -> Array:
        """Half-change step of each seed; NaN where it did not change."""
        moved = self.values[:, -1] != self.values[:, 0]
        return np.where(moved, _passages(self.x, self.values, 0.5), np.nan)

    def interval(self, level: float) -> tuple[float, float]:
        """Percentiles, widened to the records around: between two records nothing was seen."""
        low, high = np.quantile(self.drawn[level], self.tails)
        low, high = min(low, self.at[level]), max(high, self.at[level])
        below = self.x[self.x < low]
        return float(below[-1] if len(below) else self.x[0]), float(
            self.x[self.x >= min(high, self.x[-1])][0]
        )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `Order.steps`."""
        rows = []
        for level in LEVELS:
            low, high = (np.nan, np.nan) if self.reason else self.interval(level)
            rows.append(
                {
                    "measure": self.name, "level": level, "low": low,
                    "step": np.nan if self.reason else self.at[level],
                    "high": high, "change": self.change, "change_low": self.change_low,
                    "change_high": self.change_high, "n_seeds": self.count, "n_records": len(self.x),
                    "reason": self.reason,
                }
            )  # fmt: skip
        return rows


def _pair(a: _Curve, b: _Curve, confidence: float) -> dict[str, Any]:
    one, two = a.drawn[0.5], b.drawn[0.5]
    probability = float(((one < two) + 0.5 * (one == two)).mean())
    lead = np.stack([b.drawn[level] - a.drawn[level] for level in LEAD_LEVELS]).mean(0)
    value = float(np.mean([b.at[level] - a.at[level] for level in LEAD_LEVELS]))
    low, high = np.quantile(lead, a.tails)
    # A rate saturates where log-odds go on: one latent quantity behind both would make the rate first.
    rate, odds = (a, b) if _is_rate(a.name) else (b, a)
    as_rates = _is_rate(rate.name) and "log-odds" in odds.name
    other = rate.implied_by(odds) if as_rates else odds
    this_run, p = CANNOT_TELL, 1.0
    if not other.reason:
        mine, theirs = rate.interval(0.5), other.interval(0.5)
        this_run = rate.name if mine[1] <= theirs[0] else odds.name if theirs[1] <= mine[0] else CANNOT_TELL
        p = _p_value(rate.half_by_seed() - other.half_by_seed())
    told = a.count >= FEWEST_SEEDS and p < 0.05
    return {
        "first": a.name, "second": b.name, "probability": probability, "lead": value,
        "lead_low": float(low), "lead_high": float(high), "verdict": this_run if told else CANNOT_TELL,
        "this_run": this_run, "p_value": p, "compared": "as rates" if as_rates else "own changes",
    }  # fmt: skip


def _is_rate(name: str) -> bool:
    return re.search(r"\brate\b", name) is not None


def _p_value(ahead: Array) -> float:
    """Two-sided t test over seeds of "neither is ahead"; 1 where it cannot be made."""
    if len(ahead) < 2 or not np.isfinite(ahead).all():
        return 1.0
    error = float(ahead.std(ddof=1)) / len(ahead) ** 0.5
    if error == 0:
        return 0.0 if ahead[0] else 1.0
    return float(2 * sps.t.sf(abs(float(ahead.mean())) / error, len(ahead) - 1))


def _monotone(x: Array, y: Array) -> Array:
    """Each row of y as the nearest non-decreasing function of the same row of x (isotonic regression)."""
    found = np.empty_like(y)
    for i, (one, other) in enumerate(zip(x, y, strict=True)):
        order = np.argsort(one, kind="stable")
        found[i, order] = isotonic_regression(other[order])
    return found


def _passages(x: Array, curves: Array, level: float) -> Array:
    """Step at which each curve [draw, step] first reaches a share of its own final change."""
    shift = curves[:, -1:] - curves[:, :1]
    progress = (curves - curves[:, :1]) / np.where(shift == 0, np.inf, shift)
    progress[:, -1] = 1.0  # a draw without a change has not changed before the end
    reached = progress >= level - 1e-12
    at = np.maximum(reached.argmax(1), 1)
    rows = np.arange(len(curves))
    before, after = progress[rows, at - 1], progress[rows, at]
    share = np.clip((level - before) / np.where(after > before, after - before, 1), 0, 1)
    found: Array = x[at - 1] + share * (x[at] - x[at - 1])
    return found
