"""Causal transfer: the base's direction in the tuned model, and the tuned model's in the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.directions.candidates import BatchSize
from tamperlens.directions.causal import random_directions
from tamperlens.directions.direction import Direction
from tamperlens.directions.scoring import Scorer
from tamperlens.directions.tokens import RefusalTokens
from tamperlens.directions.validation import mean_of
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, prompt_texts

RANDOM = "random"


@dataclass(frozen=True)
class TransferCheck(Result):
    """What each direction does in each model, in log-odds of a refusal as the answer's first token.

    Attributes:
        table: one row per model ("base", "tuned"), direction ("base", "tuned", "random") and measure, with
            value, low, high, n, reason. Measures: `drop` (metric untouched − ablated on harmful prompts,
            paired), `rise` (metric added − untouched on harmless prompts, paired), `kl` (untouched ‖ ablated,
            harmless, nats); `metric_harmful` and `metric_harmless` with direction "none" are the untouched
            model. "random" averages over random directions per prompt and is the null beside the others.
        layer: where directions were added.
        n_random: random directions.
        seed: of them and of the bootstrap.
        tokens: refusal tokens of the metric.
        base: name of the base model.
        tuned: name of the tuned model.
    """

    table: pd.DataFrame
    layer: int
    n_random: int
    seed: int
    tokens: tuple[int, ...]
    base: str
    tuned: str

    def summary(self) -> str:
        """What each direction does in each model."""
        rows = self.table[self.table["measure"].isin(("drop", "rise"))]
        parts = [
            f"{row['direction']} direction in {row['model']}: {row['measure']} {row['value']:.2f} "
            f"[{row['low']:.2f}, {row['high']:.2f}]"
            for row in rows.to_dict("records")
        ]
        return f"Log-odds of refusal (ablated: drop, added: rise). {'; '.join(parts)}."

    def estimate(self, model: str, direction: str, measure: str) -> Estimate:
        """One cell.

        Raises:
            InputError: no such cell.
        """
        at = self.table
        rows = at[(at["model"] == model) & (at["direction"] == direction) & (at["measure"] == measure)]
        if rows.empty:
            raise InputError(f"no measure {measure!r} of direction {direction!r} in model {model!r}")
        row = rows.iloc[0]
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), "", row["reason"])


def causal_transfer(
    base: ModelLike,
    tuned: ModelLike,
    base_direction: Direction,
    tuned_direction: Direction,
    harmful: Prompts,
    harmless: Prompts,
    *,
    refusal_tokens: Sequence[int] | RefusalTokens | None = None,
    n_random: int = 3,
    seed: int = 0,
    batch_size: BatchSize = "auto",
) -> TransferCheck:
    """Ablate and add both directions in both models, beside random directions of the same length.

    If the tuned model still refuses by the base's direction, ablating that undoes its refusals as the tuned
    model's own direction does. Everything comes from logits of the answer's first token; `causal_check` does
    the same on generated text, for any model and direction.

    Args:
        base: the model before.
        tuned: the model after.
        base_direction: the base's, with layer and position.
        tuned_direction: measured in the tuned model at the same place (`direction_like`).
        harmful: evaluation prompts, fixed by the base, that had no part in either direction.
        harmless: likewise.
        refusal_tokens: of the metric; the base direction's own by default.
        n_random: random directions.
        seed: of them and of the bootstrap.
        batch_size: rows at once.

    Raises:
        InputError: directions at different places or undefined, no refusal tokens, no prompts.
    """
    base = as_chat_model(base, what="base")
    tuned = as_chat_model(tuned, what="tuned")
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    tokens = tokens_of(base_direction, refusal_tokens)
    places = [(one.layer, one.position, one.vector.numel()) for one in (base_direction, tuned_direction)]
    if places[0] != places[1]:
        raise InputError(
            f"directions at (layer, position, width) {places[0]} and {places[1]}: measure the second with "
            "direction_like(tuned, base_direction, …)"
        )
    for one in (base_direction, tuned_direction):
        if not one.defined:
            raise InputError(f"the direction of {one.model!r} is undefined: {one.flag}")
    bad, good = prompt_texts(harmful), prompt_texts(harmless)
    if not bad or not good:
        raise InputError("causal transfer needs harmful and harmless prompts; one of the two sets is empty")
    raws = {"base": [base_direction.raw], "tuned": [tuned_direction.raw]}
    raws[RANDOM] = random_directions(base_direction, n_random, seed)
    rows: list[dict[str, object]] = []
    for name, model in (("base", base), ("tuned", tuned)):
        scorer = Scorer(model, bad, good, tokens, batch_size)
        for row in effect_rows(scorer, raws, base_direction.layer, seed):
            rows.append({"model": name, **row})
    return TransferCheck(
        pd.DataFrame(rows), base_direction.layer, n_random, seed, tokens, base.name, tuned.name
    )


def effect_rows(
    scorer: Scorer, raws: dict[str, list[Tensor]], layer: int, seed: int
) -> list[dict[str, object]]:
    """Rows (direction, measure, value, low, high, n, reason) of every named group of raw directions.

    Per prompt, the members of a group are averaged first, so that n counts prompts.
    """
    before = scorer.baseline
    rows = [
        _row("none", "metric_harmful", mean_of(before.each_harmful, seed)),
        _row("none", "metric_harmless", mean_of(before.each_harmless, seed)),
    ]
    for name, vectors in raws.items():
        if not vectors:
            continue
        device = scorer.model.device
        found = [scorer.by_prompt([raw.to(device)], raw.to(device), layer) for raw in vectors]
        n = len(found)
        bypass, induce, kl = (
            sum((getattr(one, part) for one in found[1:]), getattr(found[0], part)) / n
            for part in ("bypass", "induce", "kl")
        )
        rows += [
            _row(name, "drop", mean_of(before.each_harmful - bypass, seed)),
            _row(name, "rise", mean_of(induce - before.each_harmless, seed)),
            _row(name, "kl", mean_of(kl, seed)),
        ]
    return rows


def tokens_of(direction: Direction, given: Sequence[int] | RefusalTokens | None) -> tuple[int, ...]:
    """The refusal tokens given, or those that the direction was selected with.

    Raises:
        InputError: neither.
    """
    chosen = direction.tokens if given is None else given
    if chosen is None:
        raise InputError("this direction was not selected, so it has no refusal tokens; pass refusal_tokens=")
    # Each once: a probability counted twice is none.
    ids = chosen.ids if isinstance(chosen, RefusalTokens) else map(int, chosen)
    return tuple(dict.fromkeys(ids))


def _row(direction: str, measure: str, found: Estimate) -> dict[str, object]:
    return {"direction": direction, "measure": measure, **found.cells("reason")}
