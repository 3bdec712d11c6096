"""Which candidates are scored exactly: first-order estimates for all, then successive elimination of a few.

Candidates are asked in waves, best-looking first. In a wave all are asked the same few validation prompts,
then more of them, and one is out when a filter cannot be met any more, or when it is not better than the best
one by more than `TOLERANCE`, as far as the prompts seen so far can tell. What fails under addition is not
ablated. After each wave the estimates are set right by what was measured, and a candidate that they rule out
is never asked: where they rule out all that are left the search stops, and says so. Those that stay to the
end have been scored on every prompt: their numbers are those of an exhaustive search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float64
from scipy import stats
from torch import Tensor

from tamperlens.directions.screening import Estimates
from tamperlens.directions.selection import SelectionRule

# Probability, over the order of the prompts, that the candidate which an exhaustive search chooses is dropped
# before the cap: shared out over all tests that it has to stand (Bonferroni), half of it to those against the
# estimates. Means of prompts drawn without replacement, and what the estimates miss, are taken as normal.
ERROR = 0.05
# Nats of bypass by which a dropped candidate may be better than the chosen one.
TOLERANCE = 0.1
# So few candidates are scored exactly at once; of more, so many make a wave.
FEW = 8
FIRST = 4  # prompts of the first round; each next one doubles what has been seen
# Share of an exhaustive search's prompts after which no further wave is asked.
CAP = 0.08
# Degrees of freedom that a candidate's variance over prompts borrows from the others of its wave (moderated
# t, Smyth 2004, doi 10.2202/1544-6115.1027): four prompts alone say little about it.
BORROWED = 6

Added = Callable[[int, Sequence[int]], Tensor]
Ablated = Callable[[int, Sequence[int], Sequence[int]], tuple[Tensor, Tensor]]


class Race:
    """Successive elimination among candidates.

    Args:
        added: `added(candidate, harmless rows)` -> induce per prompt.
        ablated: `ablated(candidate, harmful rows, harmless rows)` -> bypass per harmful, KL per harmless
            prompt.
        layers: of the candidates.
        n_harmful: harmful validation prompts.
        n_harmless: harmless ones.
        n_layers: of the model.
        rule: the filters.
        seed: of the order in which prompts are asked.

    Attributes:
        stopped: why some candidates were never asked, or "".
    """

    def __init__(
        self,
        added: Added,
        ablated: Ablated,
        layers: Sequence[int],
        n_harmful: int,
        n_harmless: int,
        n_layers: int,
        rule: SelectionRule,
        seed: int = 0,
    ) -> None:
        """See the class."""
        self._added, self._ablated = added, ablated
        self.layers, self.n_layers, self.rule = list(layers), n_layers, rule
        generator = torch.Generator().manual_seed(seed)
        self._order = [torch.randperm(n, generator=generator).tolist() for n in (n_harmful, n_harmless)]
        self._n = max(n_harmful, n_harmless)
        rounds = max(1, math.ceil(math.log2(max(1, self._n / FIRST))) + 1)
        self._level = ERROR / 2 / (3 * rounds)
        self.bypass = torch.full((len(self.layers), n_harmful), math.nan, dtype=torch.float64)
        self.induce, self.kl = torch.full((2, len(self.layers), n_harmless), math.nan, dtype=torch.float64)
        self._asked_added, self._asked_ablated = [0] * len(self.layers), [0] * len(self.layers)
        self.spent, self.stopped = 0.0, ""

    def run(self, estimates: Estimates | None = None, *, exhaustive: bool = False) -> None:
        """Score until one candidate is known to be chosen, or none is known to pass.

        Without estimates every candidate is asked. `exhaustive` scores each on every prompt.
        """
        left = list(range(len(self.layers)))
        if exhaustive or len(left) <= FEW:
            for one in left:
                self._score(one)
            return
        if estimates is not None:
            left.sort(key=lambda one: self._promise(estimates, one))
        champion: int | None = None
        asked: list[int] = []
        most = CAP * len(left) * (self.bypass.shape[1] + 2 * self.induce.shape[1])
        while left:
            wave, left = left[:FEW], left[FEW:]
            champion = self._race(wave, champion)
            asked += wave
            if estimates is None or not left:
                continue
            left = self._possible(estimates, asked, left, champion)
            if not left:
                self.stopped = "the estimates leave no other that could " + (
                    "pass" if champion is None else "be better"
                )
            elif self.spent > most:
                self.stopped = f"the search had asked {CAP:.0%} of an exhaustive one's prompts"
                break
        if champion is None:
            self._fall_back(estimates, asked)

    @property
    def seen(self) -> list[int]:
        """Prompts of a kind that each candidate has been asked; fewer may have been asked under ablation."""
        return self._asked_added

    def exact(self, candidate: int) -> bool:
        """Whether the candidate has been scored on every prompt."""
        return min(self._asked_added[candidate], self._asked_ablated[candidate]) >= self._n

    def scores(self, candidate: int) -> tuple[float, float, float]:
        """Mean bypass, induce and KL over the prompts seen; NaN when none were."""
        # A score that came out NaN stays NaN: only what has not been asked is left out.
        bypass, induce, kl = (
            float(rows.mean()) if len(rows) else math.nan for rows in self._seen_scores(candidate)
        )
        return bypass, induce, kl

    def _seen_scores(self, one: int) -> tuple[Tensor, Tensor, Tensor]:
        bad, good = (order[: self._asked_ablated[one]] for order in self._order)
        return (
            self.bypass[one, bad],
            self.induce[one, self._order[1][: self._asked_added[one]]],
            self.kl[one, good],
        )

    def _promise(self, estimates: Estimates, one: int) -> tuple[float, float]:
        """Sorting key: by estimated bypass, those that look far from passing a filter after the others.

        First-order estimates of KL are too large where it is large, so that only ten times the limit counts.
        """
        kl, induce = float(estimates.kl[one]), float(estimates.induce[one])
        far = kl > 10 * self.rule.max_kl or induce < self.rule.min_induce - 5
        bypass = float(estimates.bypass[one])
        return (float(far), bypass if math.isfinite(bypass) else math.inf)

    def _possible(
        self, estimates: Estimates, asked: list[int], left: list[int], champion: int | None
    ) -> list[int]:
        """Those that may pass and be better: measured against estimated scores, by least squares.

        What the line misses at the candidates that were asked bounds what it may miss at another one.
        """
        waves = max(1, math.ceil(len(self.layers) / FEW) - 1)
        level = ERROR / 2 / (3 * min(waves, 4))
        measured = torch.tensor([self.scores(one) for one in asked], dtype=torch.float64).T

        def lowest(x: Tensor, y: Tensor, sign: int = 1) -> Tensor:
            return _lowest(sign * x[asked], sign * y, sign * x[left], level)

        # A KL is a positive number that varies by factors.
        estimated, found = (kl.clamp(min=1e-12).log() for kl in (estimates.kl, measured[2]))
        out = lowest(estimates.induce, measured[1], -1) > -self.rule.min_induce
        out |= lowest(estimated, found) > math.log(max(self.rule.max_kl, 1e-12))
        if champion is not None:
            out |= lowest(estimates.bypass, measured[0]) > self.scores(champion)[0] - TOLERANCE
        return [one for one, gone in zip(left, out.tolist(), strict=True) if not gone]

    def _race(self, active: list[int], champion: int | None) -> int | None:
        """The best of these and the champion so far; None when none passes."""
        n = FIRST
        while active:
            n = self._n if 2 * n > self._n else n
            for one in active:
                self._add(one, n)
            active = self._without(active, lambda one: self._seen_scores(one)[1], self._fails_induce)
            for one in active:
                self._ablate(one, n)
            active = self._without(active, lambda one: self._seen_scores(one)[2], self._fails_kl)
            if champion is None:
                champion = self._first_champion(active)
            if champion is not None:
                active = [one for one in active if one != champion]
                active = self._without(active, partial(self._difference, champion), self._beaten)
                passing = [one for one in active if self.exact(one) and self._passes(one)]
                champion = min([champion, *passing], key=lambda one: self.scores(one)[0])
            active = [one for one in active if not self.exact(one)]
            n *= 2
        return champion

    def _first_champion(self, active: Sequence[int]) -> int | None:
        """The most promising of those that pass so far is scored to the end, to know that it passes."""
        for one in sorted(filter(self._passes, active), key=lambda one: self.scores(one)[0]):
            self._score(one)
            if self._passes(one):
                return one
        return None

    def _fall_back(self, estimates: Estimates | None, asked: list[int]) -> None:
        """Nothing passes: score those that fail least, until the one that does is known on every prompt."""
        if estimates is not None:
            rest = [one for one in range(len(self.layers)) if one not in asked]
            rest.sort(key=lambda one: -float(estimates.induce[one]))
            for one in rest[:FEW]:
                self._add(one, FIRST)
                asked.append(one)
        for _ in range(3):
            best = min(asked, key=self._violation)
            if self.exact(best):
                return
            self._score(best)

    def _passes(self, one: int) -> bool:
        return not self.rule.objection(self.layers[one], *self.scores(one), n_layers=self.n_layers)

    def _violation(
        self, one: int, induce: float | None = None, kl: float | None = None
    ) -> tuple[bool, float]:
        """How badly a candidate fails; what has not been asked of it yet counts as met."""
        if induce is None:
            _, induce, kl = self.scores(one)
        unknown = kl is None or (math.isnan(kl) and not self._asked_ablated[one])
        return self.rule.violation(self.layers[one], induce, 0.0 if unknown else kl or 0.0, self.n_layers)

    def _without(
        self,
        active: list[int],
        values: Callable[[int], Tensor],
        fails: Callable[[Tensor, float], bool],
    ) -> list[int]:
        """Those whose numbers do not fail; a common variance is part of each one's."""
        rows = {one: values(one) for one in active}
        spread = [float(x.var()) for x in rows.values() if len(x) > 1 and bool(torch.isfinite(x).all())]
        common = sorted(spread)[len(spread) // 2] if spread else 0.0
        return [one for one, x in rows.items() if not bool(torch.isnan(x).any()) and not fails(x, common)]

    def _fails_induce(self, induce: Tensor, common: float) -> bool:
        return float(induce.mean()) + self._margin(induce, common) < self.rule.min_induce

    def _fails_kl(self, kl: Tensor, common: float) -> bool:
        """Certain where the sum alone is too large (no KL is below 0), else by a test."""
        whole = self.kl.shape[1]
        return (
            float(kl.sum()) / whole > self.rule.max_kl
            or float(kl.mean()) - self._margin(kl, float(kl.var()) if len(kl) > 1 else 0.0) > self.rule.max_kl
        )

    def _beaten(self, difference: Tensor, common: float) -> bool:
        return float(difference.mean()) - self._margin(difference, common) > -TOLERANCE

    def _difference(self, champion: int, one: int) -> Tensor:
        seen = self._order[0][: self._asked_ablated[one]]
        return self.bypass[one, seen] - self.bypass[champion, seen]

    def _margin(self, x: Tensor, common: float) -> float:
        """Half-width for the mean over all prompts of numbers seen on some of them."""
        n = len(x)
        if n >= self._n:
            return 0.0
        if n < 2:
            return math.inf
        df = n - 1 + BORROWED
        variance = ((n - 1) * float(x.var()) + BORROWED * common) / df
        return float(stats.t.ppf(1 - self._level, df)) * math.sqrt(variance * (1 - n / self._n) / n)

    def _score(self, one: int) -> None:
        self._add(one, self._n)
        self._ablate(one, self._n)

    def _add(self, one: int, n: int) -> None:
        rows = self._order[1][self._asked_added[one] : n]
        if rows:
            self.induce[one, rows] = self._added(one, rows).double().cpu()
            self.spent += len(rows)
        self._asked_added[one] = max(n, self._asked_added[one])

    def _ablate(self, one: int, n: int) -> None:
        bad, good = (order[self._asked_ablated[one] : n] for order in self._order)
        if bad or good:
            bypass, kl = self._ablated(one, bad, good)
            self.bypass[one, bad], self.kl[one, good] = bypass.double().cpu(), kl.double().cpu()
            self.spent += len(bad) + len(good)
        self._asked_ablated[one] = max(n, self._asked_ablated[one])


def _lowest(
    x: Float64[Tensor, " asked"], y: Float64[Tensor, " asked"], at: Float64[Tensor, " left"], level: float
) -> Float64[Tensor, " left"]:
    """Lower prediction bounds of a straight line y(x); -inf where too few points say anything."""
    good = torch.isfinite(x) & torch.isfinite(y)
    x, y = x[good], y[good]
    n = len(x)
    if n < 6:
        return torch.full_like(at, -math.inf)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    off = y - y.mean() - slope * (x - x.mean())
    noise = math.sqrt(float((off**2).sum()) / (n - 2))
    away = (at - x.mean()) ** 2 / spread if spread > 0 else torch.zeros_like(at)
    middle = float(y.mean()) + slope * (at - x.mean())
    found: Tensor = middle - float(stats.t.ppf(1 - level, n - 2)) * noise * (1 + 1 / n + away).sqrt()
    return torch.where(torch.isfinite(found), found, -math.inf)
