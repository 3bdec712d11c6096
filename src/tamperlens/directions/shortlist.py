"""Which candidates are scored exactly: first-order estimates for all, then successive elimination.

Rounds of validation prompts go to the candidates that are still in. One is out when its KL or induce cannot
meet the filter any more, or when it is not better than the best one by more than `TOLERANCE`, as far as the
prompts seen so far can tell (paired over prompts, see `ERROR`). Those that stay to the end have been scored
on every prompt: their numbers are those of an exhaustive search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from scipy import stats
from torch import Tensor

from tamperlens.directions.screening import Estimates
from tamperlens.directions.selection import SelectionRule

# Probability, over the order of the prompts, that any candidate is dropped that should not have been, under
# Student's t for means of prompts drawn without replacement; shared out over all tests (Bonferroni).
ERROR = 0.05
# Nats of bypass by which a dropped candidate may be better than the chosen one.
TOLERANCE = 0.1
# So few candidates are scored exactly at once; of more, this share enters the first round.
FEW, SHARE = 8, 0.25
FIRST = 4  # prompts of the first round; each next one doubles what has been seen

Score = Callable[[int, Sequence[int], Sequence[int]], tuple[Tensor, Tensor, Tensor]]


class Race:
    """Successive elimination among candidates.

    Args:
        score: `score(candidate, harmful rows, harmless rows)` -> bypass per harmful, induce and KL per
            harmless prompt.
        layers: of the candidates.
        n_harmful: harmful validation prompts.
        n_harmless: harmless ones.
        n_layers: of the model.
        rule: the filters.
        seed: of the order in which prompts are asked.
    """

    def __init__(
        self,
        score: Score,
        layers: Sequence[int],
        n_harmful: int,
        n_harmless: int,
        n_layers: int,
        rule: SelectionRule,
        seed: int = 0,
    ) -> None:
        """See the class."""
        self._score, self.layers, self.n_layers, self.rule = score, list(layers), n_layers, rule
        generator = torch.Generator().manual_seed(seed)
        self._order = [torch.randperm(n, generator=generator).tolist() for n in (n_harmful, n_harmless)]
        self._n = max(n_harmful, n_harmless)
        rounds = max(1, math.ceil(math.log2(max(1, self._n / FIRST))) + 1)
        self._level = ERROR / (3 * rounds * max(1, len(self.layers)))
        self.bypass = torch.full((len(self.layers), n_harmful), math.nan, dtype=torch.float64)
        self.induce, self.kl = torch.full((2, len(self.layers), n_harmless), math.nan, dtype=torch.float64)
        self.seen = [0] * len(self.layers)

    def run(self, estimates: Estimates | None = None, *, exhaustive: bool = False) -> None:
        """Score until one candidate is known to be chosen.

        Without estimates every candidate enters. With them the best-looking quarter does, and the next
        quarter only when none of it passes the filters. `exhaustive` scores each on every prompt.
        """
        candidates = list(range(len(self.layers)))
        if exhaustive or len(candidates) <= FEW:
            for one in candidates:
                self._extend(one, self._n)
            return
        if estimates is not None:
            candidates.sort(key=lambda one: self._promise(estimates, one))
        size = len(candidates)
        if estimates is not None and size > FEW:
            size = max(FEW, math.ceil(SHARE * size))
        for start in range(0, len(candidates), max(1, size)):
            if self._race(candidates[start : start + size]) is not None:
                return
        if not any(self.exact(one) for one in candidates):
            for one in sorted((one for one in candidates if self.seen[one]), key=self._violation)[:3]:
                self._extend(one, self._n)

    def exact(self, candidate: int) -> bool:
        """Whether the candidate has been scored on every prompt."""
        return self.seen[candidate] >= self._n

    def scores(self, candidate: int) -> tuple[float, float, float]:
        """Mean bypass, induce and KL over the prompts seen; NaN when none were."""
        if not self.seen[candidate]:
            return (math.nan, math.nan, math.nan)
        rows = (self.bypass[candidate], self.induce[candidate], self.kl[candidate])
        # A score that came out NaN stays NaN: only what has not been asked is left out.
        asked = [order[: self.seen[candidate]] for order in (self._order[0], self._order[1], self._order[1])]
        bypass, induce, kl = (float(row[at].mean()) for row, at in zip(rows, asked, strict=True))
        return bypass, induce, kl

    def _promise(self, estimates: Estimates, one: int) -> tuple[float, float]:
        """Sorting key: by estimated bypass, those that look far from passing a filter after the others.

        First-order estimates of KL are too large where it is large, so that only ten times the limit counts.
        """
        kl, induce = float(estimates.kl[one]), float(estimates.induce[one])
        far = kl > 10 * self.rule.max_kl or induce < self.rule.min_induce - 5
        bypass = float(estimates.bypass[one])
        return (float(far), bypass if math.isfinite(bypass) else math.inf)

    def _race(self, active: list[int]) -> int | None:
        """The candidate that wins among these; None when none of them passes."""
        champion: int | None = None
        n = FIRST
        while active:
            for one in active:
                self._extend(one, n)
            active = [one for one in active if not self._hopeless(one)]
            champion = self._champion(active, champion)
            if champion is not None:
                active = [one for one in active if one == champion or not self._beaten(one, champion)]
            active = [one for one in active if not self.exact(one)]
            n *= 2
        return champion

    def _champion(self, active: Sequence[int], champion: int | None) -> int | None:
        """The best of those that pass; the most promising is scored to the end, to know that it passes."""
        hopes = [one for one in active if self._passes(one)]
        for one in sorted(hopes, key=lambda one: self.scores(one)[0]):
            if champion is not None and self.scores(one)[0] >= self.scores(champion)[0]:
                break
            self._extend(one, self._n)
            if self._passes(one) and (champion is None or self.scores(one)[0] < self.scores(champion)[0]):
                champion = one
        return champion

    def _passes(self, one: int) -> bool:
        return not self.rule.objection(self.layers[one], *self.scores(one), n_layers=self.n_layers)

    def _violation(self, one: int) -> tuple[bool, float]:
        _, induce, kl = self.scores(one)
        return self.rule.violation(self.layers[one], induce, kl, self.n_layers)

    def _hopeless(self, one: int) -> bool:
        """Whether a filter will not be met: certain for KL (a sum of numbers from 0 up), else by a test."""
        kl, induce = (self._asked(rows, one, 1) for rows in (self.kl, self.induce))
        if bool(torch.isnan(torch.cat([kl, induce, self._asked(self.bypass, one, 0)])).any()):
            return True
        whole = self.kl.shape[1]
        if float(kl.sum()) / whole > self.rule.max_kl:
            return True
        return (
            float(kl.mean()) - self._margin(kl, whole) > self.rule.max_kl
            or float(induce.mean()) + self._margin(induce, whole) < self.rule.min_induce
        )

    def _beaten(self, one: int, champion: int) -> bool:
        difference = self._asked(self.bypass, one, 0)
        difference = difference - self.bypass[champion][self._order[0][: len(difference)]]
        return float(difference.mean()) - self._margin(difference, self.bypass.shape[1]) > -TOLERANCE

    def _asked(self, rows: Tensor, one: int, side: int) -> Float64[Tensor, " seen"]:
        found: Tensor = rows[one][self._order[side][: self.seen[one]]]
        return found

    def _margin(self, x: Tensor, whole: int) -> float:
        """Half-width for the mean over all `whole` prompts of numbers seen on some of them."""
        n = len(x)
        if n >= whole:
            return 0.0
        if n < 2:
            return math.inf
        quantile = float(stats.t.ppf(1 - self._level, n - 1))
        return quantile * float(x.std()) * math.sqrt((1 - n / whole) / n)

    def _extend(self, one: int, n: int) -> None:
        """Score a candidate on the first n prompts of either kind."""
        n = self._n if 2 * n > self._n else n
        if self.seen[one] >= n:
            return
        bad, good = (order[self.seen[one] : n] for order in self._order)
        bypass, induce, kl = self._score(one, bad, good)
        self.bypass[one, bad], self.induce[one, good], self.kl[one, good] = bypass, induce, kl
        self.seen[one] = n
