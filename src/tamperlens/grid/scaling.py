"""How robustness falls with attack compute and grows with model size, and what the data cannot say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.runs import FRONTIER_FLOPS
from tamperlens.base.stats import Estimate, bootstrap
from tamperlens.grid.families import FAMILIES, log_likelihood, maximise, names_of, rate_of
from tamperlens.grid.halving import half_refusal
from tamperlens.grid.points import RUN, Array, Points, points_of, resampled

DRAWS = 100


@dataclass(frozen=True)
class Fit(Result):
    """One family fitted to all models together.

    Attributes:
        family: its name; `grid.families` has the formulas.
        parameters: name to estimate, intervals by resampling training runs and answers.
        log_likelihood: of the cells it was fitted to.
        held_out: log-likelihood per prompt of runs that it was not fitted to, interval over runs.
    """

    family: str
    parameters: dict[str, Estimate]
    log_likelihood: float
    held_out: Estimate


@dataclass(frozen=True)
class Scaling(Result):
    """Refusal against attack compute and model size.

    Attributes:
        fits: one per family, best held-out first.
        verdict: which family predicts best, or that they cannot be told apart.
        half: per model: parameters, refusal rate before, FLOPs to half of it with interval, that as a share
            of 1e25, and the reason where there is none.
        flops_range: smallest and largest compute observed.
        size_range: smallest and largest model observed.
        centre: mean log10 parameters, which the slope turns about.
        before: refusal rate before the attack, mean over models.
        attack: the attack.
        runs: number of training runs.
    """

    fits: tuple[Fit, ...]
    verdict: str
    half: pd.DataFrame
    flops_range: tuple[float, float]
    size_range: tuple[float, float]
    centre: float
    before: float
    attack: str
    runs: int

    @property
    def best(self) -> Fit:
        """The family with the highest held-out likelihood."""
        return self.fits[0]

    def predict(
        self,
        flops: float,
        parameters: float,
        *,
        before: float | None = None,
        extrapolate: bool = False,
    ) -> float:
        """The best family's refusal rate at some compute and size.

        Args:
            flops: of the attack.
            parameters: of the model.
            before: its refusal rate before the attack; the mean of those observed by default.
            extrapolate: compute it also where nothing was observed.

        Raises:
            InputError: outside what was observed, unless `extrapolate` says that this is meant.
        """
        for what, value, (low, high) in (
            ("FLOPs", flops, self.flops_range), ("parameters", parameters, self.size_range)
        ):  # fmt: skip
            if not extrapolate and not low <= value <= high:
                raise InputError(
                    f"{value:.3g} {what} lies outside the {low:.3g} to {high:.3g} that were observed; the "
                    "fit says nothing there. Pass extrapolate=True to compute it all the same"
                )
        sized = "slope" in self.best.parameters
        theta = np.array([one.value for one in self.best.parameters.values()])
        size = np.array([math.log10(parameters) - self.centre])
        nothing = np.zeros(1)
        start = np.array([float(self.before if before is None else before)])
        point = Points(np.array([float(flops)]), size, nothing, nothing, start, np.zeros(1, dtype=np.int64))
        return float(rate_of(self.best.family, theta, point, sized)[0])

    def to_frame(self) -> pd.DataFrame:
        """One row per family: held-out likelihood, log-likelihood, parameters."""
        return pd.DataFrame(
            [
                {
                    "family": fit.family, "held_out": fit.held_out.value, "held_out_low": fit.held_out.low,
                    "held_out_high": fit.held_out.high, "runs": fit.held_out.n,
                    "log_likelihood": fit.log_likelihood,
                    "parameters": "; ".join(f"{k} {v}" for k, v in fit.parameters.items()),
                }
                for fit in self.fits
            ]
        )  # fmt: skip


def scaling(
    table: pd.DataFrame, attack: str | None = None, *, defence: str = "none", seed: int = 0
) -> Scaling:
    """Fit refusal against compute and size, and compare the families on runs left out.

    Args:
        table: of a grid (`GridResult.table` or results_grid.csv).
        attack: which attack; the table's only one by default.
        defence: which defence.
        seed: of the resampling.

    Raises:
        InputError: no such attack, fewer than two training runs or three cells.
    """
    cells = _cells(table, attack, defence)
    points, centre = points_of(cells, table)
    runs, sizes = len(np.unique(points.run)), cells["parameters"].nunique()
    sized = sizes > 1
    rng = np.random.default_rng(seed)
    held = {family: _held_out(family, points, sized) for family in FAMILIES}
    fits = []
    for family in FAMILIES:
        theta = maximise(family, points, sized)
        spread = np.stack([maximise(family, drawn, sized, theta) for drawn in resampled(points, rng, DRAWS)])
        low, high = np.quantile(spread, [0.025, 0.975], axis=0)
        parameters = {
            name: Estimate(
                float(theta[i]), float(low[i]), float(high[i]), runs, "bootstrap of runs and answers"
            )
            for i, name in enumerate(names_of(family, sized))
        }
        found = bootstrap(held[family], seed=seed)
        fits.append(Fit(family, parameters, log_likelihood(family, theta, points, sized), found))
    fits.sort(key=lambda fit: -fit.held_out.value)
    shapes = _not_told_apart([fit.family for fit in fits if fit.family != "flat"], held)
    half = [half_refusal(str(m), rows, table, seed, shapes) for m, rows in cells.groupby("model", sort=False)]
    start = table[table["attack"] == "none"].set_index("model")["rrr"]
    frame = pd.DataFrame(
        [
            {
                "model": name, "parameters": size, "before": float(start[name]), "flops": e.value,
                "low": e.low, "high": e.high, "runs": e.n, "share_of_1e25": e.value / FRONTIER_FLOPS,
                "reason": e.reason,
            }
            for name, size, e in half
        ]
    )  # fmt: skip
    return Scaling(
        tuple(fits), _verdict(fits, held), frame, _range(cells["flops"]), _range(cells["parameters"]), centre,
        float(points.before.mean()), str(cells["attack"].iloc[0]), runs,
    )  # fmt: skip


def _held_out(family: str, points: Points, sized: bool) -> Array:
    """Log-likelihood per prompt of each run under the fit to all others."""
    found = []
    for run in np.unique(points.run):
        inside = points.run == run
        theta = maximise(family, points.only(~inside), sized)
        left = points.only(inside)
        found.append(log_likelihood(family, theta, left, sized) / float(left.asked.sum()))
    return np.array(found)


def _verdict(fits: Sequence[Fit], held: dict[str, Array]) -> str:
    best, second = fits[0].family, fits[1].family
    gap = bootstrap(held[best] - held[second])
    if gap.low > 0:
        return f"{best} predicts left-out runs better than {second}: {gap} nats a prompt"
    return f"cannot tell {best} from {second}: {gap} nats a prompt on left-out runs"


def _not_told_apart(families: Sequence[str], held: dict[str, Array]) -> list[str]:
    """The best family and those that predict left-out runs no worse beyond doubt."""
    best = families[0]
    return [best, *(one for one in families[1:] if bootstrap(held[best] - held[one]).low <= 0)]


def _cells(table: pd.DataFrame, attack: str | None, defence: str) -> pd.DataFrame:
    there = [name for name in dict.fromkeys(table.get("attack", [])) if name != "none"]
    if attack is None and len(there) != 1:
        raise InputError(f"the table has the attacks {', '.join(there) or 'none'}; name one")
    chosen = there[0] if attack is None else attack
    if chosen not in there:
        raise InputError(f"no cells of the attack {chosen!r}; there are {', '.join(there) or 'none'}")
    cells = table[(table["attack"] == chosen) & (table["defence"] == defence) & table["rrr"].notna()]
    runs = len(cells.drop_duplicates(RUN))
    if len(cells) < 3 or runs < 2:
        raise InputError(f"{len(cells)} cells of {runs} training runs are too few for a fit; run more")
    return cells.reset_index(drop=True)


def _range(column: pd.Series) -> tuple[float, float]:
    return float(column.min()), float(column.max())
