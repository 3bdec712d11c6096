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
        layer_rule: "code" compares with the whole part of share · n_layers, as the published code and its
            five published choices do; "paper" with share · n_layers itself: of 8 layers "code" allows 0–5,
            "paper" 0–6.
        kl_ceiling: where nothing passes, the largest KL of a fall-back: beyond it the model is wrecked rather
            than edited.
    """

    max_kl: float = 0.1
    min_induce: float = 0.0
    max_layer: float = 0.8
    layer_rule: LayerRule = "code"
    kl_ceiling: float = 1.0

    def summary(self) -> str:
        """The filters."""
        return (
            f"KL at most {self.max_kl:g}, induce at least {self.min_induce:g}, layers below "
            f"{self.max_layer:g} of all ({self.layer_rule})."
        )

    def layer_objection(self, layer: int, n_layers: int) -> str:
        """Why a candidate of this layer is never chosen, or ""."""
        # 1e-9 keeps a limit like 0.8 · 35, which is whole on paper, from being a hair above it.
        limit: float = self.max_layer * n_layers - 1e-9
        if self.layer_rule == "code":
            limit = math.floor(self.max_layer * n_layers + 1e-9)
        return f"layer {layer} is not below {self.max_layer:g} of {n_layers}" if layer >= limit else ""

    def objection(self, layer: int, bypass: float, induce: float, kl: float, n_layers: int) -> str:
        """Why a candidate is discarded, or "" when it passes."""
        reasons = [self.layer_objection(layer, n_layers)]
        if any(math.isnan(score) for score in (bypass, induce, kl)):
            reasons.append("a score is NaN")
        if kl > self.max_kl:
            reasons.append(f"KL {kl:.3g} above {self.max_kl:g}")
        if induce < self.min_induce:
            reasons.append(f"induce {induce:.3g} below {self.min_induce:g}")
        return "; ".join(reason for reason in reasons if reason)

    def violation(self, layer: int, induce: float, kl: float, n_layers: int) -> tuple[bool, float]:
        """How badly a candidate fails: (not to be used at all, sum of what is missing), smaller is better.

        Not to be used: a layer beyond the limit, or KL above `kl_ceiling`. What is missing: KL beyond the
        limit, in units of the limit, and nats of induce.
        """
        ceiling = max(self.kl_ceiling, self.max_kl)
        wrecked = not kl <= ceiling or bool(self.layer_objection(layer, n_layers))
        excess = max(0.0, kl - self.max_kl) / self.max_kl if self.max_kl > 0 else max(0.0, kl)
        missing = excess + max(0.0, self.min_induce - induce)
        return wrecked, math.inf if math.isnan(missing) else missing


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

    def summary(self) -> str:
        """The place chosen and its scores."""
        why = "passes all filters" if self.passed else f"does not pass: {self.reason}"
        return (
            f"Layer {self.layer}, position {self.position}: bypass {self.bypass:.2f}, induce "
            f"{self.induce:.2f}, KL {self.kl:.2f}; {why}."
        )


def select_direction(table: pd.DataFrame, *, n_layers: int, rule: SelectionRule | None = None) -> Selection:
    """Choose a candidate: least bypass among those with induce ≥ 0, KL ≤ 0.1 and layer < int(0.8 L), NaN
    discarded.

    When none passes, the one that violates the filters least is returned all the same, with `passed=False`
    and the reason (`SelectionRule.violation`): not the one with least bypass, which is often the one that
    wrecks the model. Those above the rule's KL ceiling or beyond its layers come after all others, rows with
    NaN last. Of equal candidates the first in the table wins. Where the table has a column `scores`, only
    rows that it calls "exact" can be chosen, and those without any score when there are no others.

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
    kinds = list(table["scores"]) if "scores" in table.columns else ["exact"] * len(table)
    usable = [row for row, kind in enumerate(kinds) if kind == "exact"]
    scored = []
    for row in usable or range(len(table)):
        layer = int(table["layer"].iloc[row])
        bypass, induce, kl = (float(table[name].iloc[row]) for name in ("bypass", "induce", "kl"))
        objection = rule.objection(layer, bypass, induce, kl, n_layers)
        unknown = any(math.isnan(score) for score in (bypass, induce, kl))
        beyond, violation = rule.violation(layer, induce, kl, n_layers) if objection else (False, 0.0)
        rank = (bool(objection), unknown, beyond, violation, math.inf if math.isnan(bypass) else bypass)
        scored.append((rank, row, layer, bypass, induce, kl, objection))
    (_, unknown, beyond, _, _), row, layer, bypass, induce, kl, objection = min(scored)
    reason = ""
    if objection:
        which = "passes every filter"
        if unasked := kinds.count("estimated"):
            which = f"that was scored {which} ({unasked} others were only estimated)"
        reason = f"no candidate {which}; the one that violates them least: {objection}"
        if beyond and not unknown:
            reason += " (all are beyond the rule's layers or its KL ceiling: do not use it)"
    position = int(table["position"].iloc[row])
    return Selection(position, layer, bypass, induce, kl, not objection, reason, row)
