"""The selection rule of Arditi et al. 2024 as a pure function of a score table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result

LayerRule = Literal["paper", "code"]
COLUMNS = ("position", "layer", "bypass", "induce", "kl")


@dataclass(frozen=True)
class SelectionRule(Result):
    """Which candidates may be chosen (Arditi et al. 2024, §2.4 and appendix C).

    Attributes:
        max_kl: largest KL divergence on harmless prompts under ablation; equality passes.
        min_induce: smallest refusal metric on harmless prompts with the direction added; equality passes.
        max_layer: share of the layers that may be used; layer < share · n_layers, equality fails.
        layer_rule: "paper" compares with share · n_layers itself, "code" with its whole part, as the
            published code does: of 8 layers "paper" allows 0–6, "code" 0–5.
    """

    max_kl: float = 0.1
    min_induce: float = 0.0
    max_layer: float = 0.8
    layer_rule: LayerRule = "paper"

    def objection(self, layer: int, bypass: float, induce: float, kl: float, n_layers: int) -> str:
        """Why a candidate is discarded, or "" when it passes."""
        if any(math.isnan(score) for score in (bypass, induce, kl)):
            return "a score is NaN"
        # 1e-9 keeps a limit like 0.8 · 35, which is whole on paper, from being a hair above it.
        limit = self.max_layer * n_layers - 1e-9
        if self.layer_rule == "code":
            limit = math.floor(self.max_layer * n_layers + 1e-9)
        reasons = []
        if layer >= limit:
            reasons.append(f"layer {layer} is not below {self.max_layer:g} of {n_layers}")
        if kl > self.max_kl:
            reasons.append(f"KL {kl:.3g} above {self.max_kl:g}")
        if induce < self.min_induce:
            reasons.append(f"induce {induce:.3g} below {self.min_induce:g}")
        return "; ".join(reasons)


@dataclass(frozen=True)
class Selection(Result):
    """The chosen candidate.

    Attributes:
        position: token position, negative, from the end.
        layer: block whose input the direction was read from.
        bypass: its mean refusal metric on harmful prompts under ablation.
        induce: its mean refusal metric on harmless prompts under addition.
        kl: its mean KL divergence on harmless prompts under ablation.
        passed: whether it passes every filter.
        reason: why not, or "".
        row: its row in the table, counted from 0.
    """

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float
    passed: bool
    reason: str
    row: int


def select_direction(table: pd.DataFrame, *, n_layers: int, rule: SelectionRule | None = None) -> Selection:
    """Choose a candidate: least bypass among those with induce ≥ 0, KL ≤ 0.1 and layer < 0.8 L, NaN
    discarded.

    When none passes, the one with least bypass is returned all the same, with `passed=False` and the reason;
    rows with NaN come last. Of equal candidates the first in the table wins.

    Args:
        table: columns position, layer, bypass, induce, kl; one row per candidate.
        n_layers: L, the number of decoder blocks of the model.
        rule: other thresholds.

    Raises:
        InputError: a column is missing, the table is empty, or n_layers is not positive.
    """
    rule = rule or SelectionRule()
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"score table lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    if table.empty:
        raise InputError("score table has no candidates; pass at least one row")
    if n_layers < 1:
        raise InputError(f"n_layers is {n_layers}; pass the model's number of blocks")
    scored = []
    for row in range(len(table)):
        layer = int(table["layer"].iloc[row])
        bypass, induce, kl = (float(table[name].iloc[row]) for name in ("bypass", "induce", "kl"))
        objection = rule.objection(layer, bypass, induce, kl, n_layers)
        unknown = any(math.isnan(score) for score in (bypass, induce, kl))
        rank = (bool(objection), unknown, math.inf if math.isnan(bypass) else bypass, row)
        scored.append((rank, layer, bypass, induce, kl, objection))
    rank, layer, bypass, induce, kl, objection = min(scored)
    reason = f"no candidate passes every filter; the best one fails: {objection}" if objection else ""
    return Selection(
        int(table["position"].iloc[rank[-1]]), layer, bypass, induce, kl, not objection, reason, rank[-1]
    )
