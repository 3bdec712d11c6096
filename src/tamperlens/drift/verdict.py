"""H1 "safety weights drift more" against H2 "they drift alike", with a third answer: inconclusive.

Per matrix u and seed s, x = log(drift of the group / drift of its matched control). The margin m divides the
two hypotheses: H1 says E[x] > log(1 + m), H2 says |E[x]| < log(1 + m). H1 is a one-sided test against the
margin (not against zero: with enough matrices any difference is "significant"), H2 the two one-sided tests of
Schuirmann (1987). The mean's variance has a part from matrices and a part from seeds,

    V = var over u of (mean over s) / U + var over s of (mean over u) / S,

with Satterthwaite's degrees of freedom; weights are never counted as independent units. Matrices of one run
share its luck, so that a verdict needs three seeds, and the t test over the seeds' means alone must agree
(with few seeds Satterthwaite's approximation errs in up to 6.5 % where 5 % are meant). Of fewer seeds the
verdict is "cannot tell", and `DriftVerdict.this_run` says what holds for these runs alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as sps

from tamperlens import plots
from tamperlens.base.deprecation import deprecated
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, holm, standardised_mean, undefined
from tamperlens.drift.effects import effects
from tamperlens.drift.trace import DriftTrace
from tamperlens.plots import Plot

Array = npt.NDArray[np.float64]
Answer = Literal["H1", "H2", "cannot tell"]
CONTRASTS = ("top utility",)
FEWEST = 5
FEWEST_SEEDS = 3
"""One run at the margin looks like H1 in 22 % (35 matrices) to 58 % (210)."""


@dataclass(frozen=True)
class Comparison(Result):
    """One group against its control.

    Attributes:
        group: its name.
        control: of its matched control.
        decides: whether the verdict rests on it; contrasts such as "top utility" are only shown.
        ratio: drift of the group over drift of the control, geometric mean, with the interval that decides
            (1 − 2·alpha, t).
        d_z: Cohen's d for paired differences over matrices, mean(x) / sd(x), bootstrap interval.
        d_z_seeds: the same over seeds; interval from the noncentral t, because resamples of a few seeds are
            often one seed repeated, which has no spread; undefined below 3 seeds.
        cliffs_delta: P(group > control) − P(group < control) over matrices (Cliff 1993), bootstrap interval.
        n_matrices: number of matrices with both drifts above zero in every seed.
        n_dropped: number of other matrices.
        n_seeds: number of traces.
        p_more: of "E[x] ≤ log(1 + margin)"; small speaks for H1.
        p_more_holm: the same after Holm over the comparisons that decide.
        p_alike: of "|E[x]| ≥ log(1 + margin)" (TOST); small speaks for H2.
        p_less: of "E[x] ≥ −log(1 + margin)"; small says that the group drifts less.
        power_alike: probability that the data would have shown H2 if both drifted exactly alike.
        detectable_ratio: smallest true ratio that H1 would have been found at with probability .8.
    """

    group: str
    control: str
    decides: bool
    ratio: Estimate
    d_z: Estimate
    d_z_seeds: Estimate
    cliffs_delta: Estimate
    n_matrices: int
    n_dropped: int
    n_seeds: int
    p_more: float
    p_more_holm: float
    p_alike: float
    p_less: float
    power_alike: float
    detectable_ratio: float


@dataclass(frozen=True)
class DriftVerdict(Result):
    """The answer and what it rests on.

    Attributes:
        verdict: "H1", "H2" or "cannot tell" (inconclusive); always the last below three seeds.
        reason: why.
        comparisons: every group against its control.
        margin: ratios between 1/(1 + margin) and 1 + margin count as alike.
        alpha: error rate of each answer.
        measure: of drift.
        step: at which it was read.
        differences: one row per group and matrix: group, layer, module, log_ratio (mean over seeds).
        this_run: the answer over the matrices of these runs, which other seeds need not share; the verdict
            itself from three seeds on.
    """

    RENAMED: ClassVar[dict[str, str]] = {"sentence": "reason"}

    verdict: str
    reason: str
    comparisons: tuple[Comparison, ...]
    margin: float
    alpha: float
    measure: str
    step: int
    differences: pd.DataFrame = field(repr=False, compare=False)
    this_run: str = "cannot tell"

    def to_frame(self) -> pd.DataFrame:
        """One row per comparison."""
        rows = []
        for one in self.comparisons:
            row: dict[str, object] = {"group": one.group, "control": one.control, "decides": one.decides}
            for name in ("ratio", "d_z", "d_z_seeds", "cliffs_delta"):
                estimate = getattr(one, name)
                row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            for name in (
                "n_matrices", "n_dropped", "n_seeds", "p_more", "p_more_holm", "p_alike", "p_less",
                "power_alike", "detectable_ratio",
            ):  # fmt: skip
                row[name] = getattr(one, name)
            rows.append(row)
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """The verdict in words and numbers, a few lines of text."""
        lines = [f"Verdict: {self.verdict}. {self.reason}", ""]
        lines.append(
            f"Measure {self.measure} at step {self.step}; alike means a ratio within "
            f"{1 / (1 + self.margin):.3f} to {1 + self.margin:.3f}; alpha {self.alpha:g}, Holm over groups."
        )
        for one in self.comparisons:
            lines.append(
                f"- {one.group} / {one.control}: ratio {one.ratio}; d_z {one.d_z}; Cliff's delta "
                f"{one.cliffs_delta}; p(more) {one.p_more_holm:.2g}, p(alike) {one.p_alike:.2g}; "
                f"{one.n_matrices} matrices ({one.n_dropped} dropped), {one.n_seeds} seeds; power for alike "
                f"{one.power_alike:.2f}, detectable ratio {one.detectable_ratio:.2f}"
                + ("" if one.decides else " (contrast: not part of the verdict)")
            )
        return "\n".join(lines)

    @deprecated("DriftVerdict.report()", "DriftVerdict.summary()")
    def report(self) -> str:
        """The old name of `summary`."""
        return self.summary()

    @property
    @deprecated("DriftVerdict.sentence", "DriftVerdict.reason")
    def sentence(self) -> str:
        """The old name of `reason`."""
        return self.reason

    def plot(self) -> Plot:
        """Ratios with the intervals that decide, beside the margin."""
        shown = [one for one in self.comparisons if math.isfinite(one.ratio.value)]
        if not shown:
            raise InputError("no comparison has enough matrices; there is nothing to draw")
        caption = (
            f"Geometric mean over {shown[0].n_matrices} matrices and {shown[0].n_seeds} seeds with t "
            f"intervals ({1 - 2 * self.alpha:.0%}); band: the margin of {self.margin:.0%}. "
            f"Verdict: {self.verdict}."
        )
        rows = [
            {
                "row": one.group if one.decides else f"{one.group} (contrast)",
                "value": one.ratio.value,
                "low": one.ratio.low,
                "high": one.ratio.high,
                "decides": one.decides,
            }
            for one in shown
        ]
        band = 1 / (1 + self.margin), 1 + self.margin
        return plots.ratio_intervals(pd.DataFrame(rows), band, caption=caption, alt=self.reason)


def test_hypotheses(
    traces: DriftTrace | Sequence[DriftTrace],
    margin: float = 0.1,
    *,
    measure: str = "relative_l2",
    step: int | None = None,
    alpha: float = 0.05,
    contrasts: Sequence[str] = CONTRASTS,
    draws: int = 2000,
    seed: int = 0,
) -> DriftVerdict:
    """Do safety weights drift more than their matched controls, alike, or can this not be told?

    H1 when at least one group drifts more than its control by more than the margin (Holm-adjusted); H2 when
    every group is equivalent to its control within the margin; otherwise "cannot tell", also when the groups
    drift less than their controls, which neither hypothesis says. Below three seeds there is no verdict: the
    answer for these runs alone is `this_run`.

    Args:
        traces: one trace, or one per seed, with groups that have controls.
        margin: relative difference in drift that still counts as alike, e.g. 0.1 for 10 %.
        measure: a measure that is a positive number per matrix.
        step: recorded step; the last by default.
        alpha: error rate, in (0, .5).
        contrasts: groups that are shown and do not decide.
        draws: bootstrap resamples of matrices (and seeds).
        seed: of the resampling.

    Raises:
        InputError: no traces, no group with a control, a margin or alpha out of range, or traces whose steps
            differ.
    """
    found = [traces] if isinstance(traces, DriftTrace) else list(traces)
    if not found:
        raise InputError("no traces; give at least one DriftTrace")
    if not 0 < margin < 10 or not 0 < alpha < 0.5:
        raise InputError(f"margin={margin} must be positive and alpha={alpha} between 0 and .5")
    steps = {trace.steps[-1] if step is None else step for trace in found}
    if len(steps) > 1:
        raise InputError(f"the traces end at different steps ({sorted(steps)}); name one with step=")
    at = steps.pop()
    tables = [trace.table(measure, at) for trace in found]
    controls = found[0].controls
    pairs = [(g, c) for g, c in controls.items() if all(g in t and c in t for t in tables)]
    if not any(group not in contrasts for group, _ in pairs):
        raise InputError("no group with a control in every trace; record drift.groups(...)")
    rng = np.random.default_rng(seed)
    made, rows = [], []
    for group, control in pairs:
        comparison, x, units = _compare(tables, group, control, margin, alpha, draws, rng, contrasts)
        made.append(comparison)
        rows += [
            {"group": group, "layer": layer, "module": module, "log_ratio": value}
            for (layer, module), value in zip(units, x.mean(0) if len(units) else [], strict=True)
        ]
    deciding = [one for one in made if one.decides]
    adjusted = dict(zip([one.group for one in deciding], holm([o.p_more for o in deciding]), strict=True))
    made = [replace(one, p_more_holm=adjusted.get(one.group, one.p_more)) for one in made]
    answer, reason = _decide([one for one in made if one.decides], margin, alpha)
    verdict = answer
    if len(found) < FEWEST_SEEDS:
        verdict = "cannot tell"
        few = "1 seed" if len(found) == 1 else f"{len(found)} seeds"
        these = "this run" if len(found) == 1 else "these runs"
        reason = (
            f"{few}; a verdict needs {FEWEST_SEEDS}. For {these} only, "
            f"{'inconclusive' if answer == 'cannot tell' else answer}: {reason}"
        )
    columns = ["group", "layer", "module", "log_ratio"]
    frame = pd.DataFrame(rows, columns=columns)
    return DriftVerdict(verdict, reason, tuple(made), margin, alpha, measure, at, frame, answer)


test_hypotheses.__test__ = False  # type: ignore[attr-defined]  # or pytest would collect it


def _compare(
    tables: Sequence[pd.DataFrame],
    group: str,
    control: str,
    margin: float,
    alpha: float,
    draws: int,
    rng: np.random.Generator,
    contrasts: Sequence[str],
) -> tuple[Comparison, Array, list[tuple[int, str]]]:
    index = tables[0].index
    mine = np.stack([t[group].reindex(index).to_numpy(float) for t in tables])
    theirs = np.stack([t[control].reindex(index).to_numpy(float) for t in tables])
    good = (np.isfinite(mine) & np.isfinite(theirs) & (mine > 0) & (theirs > 0)).all(0)
    units = [unit for unit, fine in zip(index, good, strict=True) if fine]
    mine, theirs = mine[:, good], theirs[:, good]
    n_seeds, n = mine.shape
    dropped = int(len(good) - n)
    decides = group not in contrasts
    nan = math.nan
    if n < FEWEST:
        none = undefined(f"{n} matrices with drift in both; {FEWEST} are needed", n)
        empty = Comparison(
            group, control, decides, none, none, none, none, n, dropped, n_seeds, 1.0, 1.0, 1.0, 1.0, 0.0, nan
        )
        return empty, np.log(mine / theirs), units
    x = np.log(mine / theirs)
    mean, edge = float(x.mean()), math.log1p(margin)
    tests = standard_errors(x)
    spread = max(float(sps.t.ppf(1 - alpha, df)) * error for error, df in tests)
    ratio = Estimate(
        math.exp(mean), math.exp(mean - spread), math.exp(mean + spread), n, f"t {1 - 2 * alpha:.0%}"
    )

    def p(distance: float) -> float:
        """Of "the mean lies no higher than the bound that it is `distance` above"; every test must agree."""
        return max(float(sps.t.sf(_t(distance, error), df)) for error, df in tests)

    def power(error: float, df: float) -> float:
        quantile = float(sps.t.ppf(1 - alpha, df))
        return max(0.0, 2 * float(sps.t.cdf(_t(edge, error) - quantile, df)) - 1)

    detectable = max(
        math.exp(edge + float(sps.t.ppf(1 - alpha, df) + sps.t.ppf(0.8, df)) * error) for error, df in tests
    )
    d_z, cliff = effects(x, mine, theirs, draws, rng)
    by_seed = x.mean(1)
    d_seeds = standardised_mean(by_seed) if n_seeds >= 3 else undefined("fewer than 3 seeds", n_seeds)
    return (
        Comparison(
            group=group, control=control, decides=decides, ratio=ratio, d_z=d_z, d_z_seeds=d_seeds,
            cliffs_delta=cliff, n_matrices=n, n_dropped=dropped, n_seeds=n_seeds,
            p_more=p(mean - edge), p_more_holm=1.0, p_alike=max(p(edge - mean), p(mean + edge)),
            p_less=p(-edge - mean), power_alike=min(power(*test) for test in tests),
            detectable_ratio=detectable,
        ),
        x,
        units,
    )  # fmt: skip


def standard_errors(x: Array) -> list[tuple[float, float]]:
    """Standard errors of the mean of x [seeds, matrices] with their degrees of freedom, all to be satisfied.

    Matrices and seeds together (Satterthwaite), and, where there are seeds enough for a verdict, seeds alone.
    """
    n_seeds, n = x.shape
    terms = [(float(x.mean(0).var(ddof=1)) / n, n - 1)]
    if n_seeds > 1:
        terms.append((float(x.mean(1).var(ddof=1)) / n_seeds, n_seeds - 1))
    variance = sum(term for term, _ in terms)
    below = sum(term**2 / df for term, df in terms)
    found = [(math.sqrt(variance), variance**2 / below if below > 0 else n - 1.0)]
    return found + [(math.sqrt(term), float(df)) for term, df in terms[1:] if n_seeds >= FEWEST_SEEDS]


def _t(distance: float, error: float) -> float:
    if error > 0:
        return distance / error
    return math.copysign(math.inf, distance) if distance else 0.0


def _decide(deciding: Sequence[Comparison], margin: float, alpha: float) -> tuple[Answer, str]:
    more = [one for one in deciding if one.p_more_holm < alpha]
    if more:
        best = max(more, key=lambda one: one.ratio.value)
        return "H1", (
            f"{' and '.join(one.group for one in more)} moved further than weights matched on matrix and "
            f"size: {_words(best)}, beyond the margin of {margin:.0%} "
            f"(p = {best.p_more_holm:.2g} after Holm)."
        )
    if deciding and all(one.p_alike < alpha for one in deciding):
        worst = max(deciding, key=lambda one: abs(math.log(one.ratio.value)))
        return "H2", (
            f"every safety group moved as far as weights matched on matrix and size, within {margin:.0%}; "
            f"the largest difference: {_words(worst)} (equivalence p = {worst.p_alike:.2g})."
        )
    short = [one for one in deciding if one.n_matrices < FEWEST]
    if short:
        return "cannot tell", f"{short[0].group} has {short[0].n_matrices} matrices with drift; 5 are needed."
    less = [one for one in deciding if one.p_less < alpha]
    if less:
        worst = min(less, key=lambda one: one.ratio.value)
        return "cannot tell", (
            f"{' and '.join(one.group for one in less)} moved less than weights matched on matrix and size "
            f"({_words(worst)}), which neither hypothesis says."
        )
    open_one = max(deciding, key=lambda one: one.p_alike)
    return "cannot tell", (
        f"the interval reaches over the margin of {margin:.0%}: {_words(open_one)}; power to show "
        f"equivalence was {open_one.power_alike:.2f}, and a ratio of {open_one.detectable_ratio:.2f} was "
        "detectable."
    )


def _words(one: Comparison) -> str:
    return (
        f"{one.group} {one.ratio.value:.2f} times its control [{one.ratio.low:.2f}, {one.ratio.high:.2f}] "
        f"over {one.n_matrices} matrices and {one.n_seeds} seed{'s' if one.n_seeds > 1 else ''}"
    )
