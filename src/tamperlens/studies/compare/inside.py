"""Instruments that read distributions and activations: log-odds, KL, direction, transfer, heads, the lens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.base.measurement import Measurement
from tamperlens.base.stats import Estimate, bootstrap
from tamperlens.directions import causal_transfer
from tamperlens.directions.checkpoints import compare_checkpoints
from tamperlens.heads.recording import change as head_change
from tamperlens.rates import token_kl
from tamperlens.studies.compare.bench import Bench
from tamperlens.studies.compare.lens import DifferenceLens, difference_lens
from tamperlens.studies.compare.readings import (
    AFTER,
    BEFORE,
    CHANGE,
    FIRST,
    INSIDE,
    Reading,
    of_draws,
    of_values,
)
from tamperlens.studies.opening import Pair
from tamperlens.studies.trajectory.observing import DIRECTION, ODDS
from tamperlens.studies.trajectory.records import Record

ODDS_MARGIN = 0.5
KL_MARGIN = 0.05
RELATIVE_MARGIN = 0.02
GAP_MARGIN = 0.2
N_RANDOM = 3


def observed(bench: Bench, pair: Pair) -> Record:
    """The tuned model against the base on the fixed prompts: log-odds, direction and heads."""
    return bench.observer.observe(1, pair.tuned, sampled=False)


def odds(bench: Bench, record: Record) -> Reading:
    """Log-odds that an answer to a harmful request opens with a refusal, paired; harmless ones beside it."""
    rows = [row for name in ODDS for row in _both(bench, record, name)]
    value, draws, n = _paired(bench, record, ODDS[0])
    return of_draws("log-odds of refusal", FIRST, value, draws, n, margin=ODDS_MARGIN, unit="nats", rows=rows)


def divergence(bench: Bench, pair: Pair) -> Reading:
    """KL(base ‖ tuned) of each of the first tokens of the base's own answers to harmful requests."""
    settings = bench.settings
    found = token_kl(bench.base, pair.tuned, bench.asked.harmful, n_tokens=settings.answer_tokens)
    each = found.kl.nanmean(1).numpy()
    share = found.share_in_first(3)
    even = Estimate(3 / settings.answer_tokens, np.nan, np.nan, 0, "an update spread evenly")
    rows = [
        Measurement.of("token KL", "harmful", CHANGE, bootstrap(each), unit="nats"),
        Measurement.of("share of KL on the first 3 tokens", "harmful", CHANGE, share, null=even),
    ]
    return of_values(
        "token KL", FIRST, each, margin=KL_MARGIN, unit="nats", rows=rows,
        tables={"KL by answer token": found.to_frame()},
    )  # fmt: skip


def direction(bench: Bench, record: Record) -> Reading:
    """1 − cosine of the two differences of means at the base direction's place, beside split halves."""
    found = bench.direction
    name = "direction cosine"
    row = record.row(name)
    assert row is not None  # the observer always records it
    rows = [
        Measurement(name, DIRECTION, BEFORE, 1.0, 1.0, 1.0, row.n, row.null),
        replace(row, set=DIRECTION, stage=AFTER),
    ]
    words = [f"Layer {found.layer}, position {found.position} of the base's direction."]
    if not found.passed:
        words.append(
            f"No refusal direction passes in the base ({found.flag}); this is the difference of means at the "
            "best candidate's place, not where refusal sits."
        )
    drawn = 1 - np.asarray(record.draws.get(name, []), dtype=float)
    margin = 1 - row.null.low
    reading = of_draws(
        "direction", INSIDE, 1 - row.value, drawn, row.n, margin=margin,
        unit="(1 − the lower end of split halves of the base)", rows=rows, words=words,
        tables={"cosine by layer": pd.DataFrame(record.layers)},
    )  # fmt: skip
    return replace(reading, grounded=bool(found.passed))


def projection(bench: Bench, record: Record) -> Reading:
    """Gap between harmful and harmless prompts along the base's direction."""
    name = "projection gap"
    value, draws, n = _paired(bench, record, name)
    before = bench.observer.start.row(name)
    assert before is not None  # as above
    return of_draws(
        name, INSIDE, value, draws, n, margin=GAP_MARGIN * abs(before.value),
        unit="(a fifth of the base's gap)", rows=_both(bench, record, name),
    )  # fmt: skip


def distances(bench: Bench, pair: Pair) -> tuple[list[Measurement], dict[str, pd.DataFrame]]:
    """Every distance of `directions.compare_checkpoints`, and causal transfer both ways beside random."""
    found = bench.direction
    harmful, harmless = bench.direction_prompts
    table = compare_checkpoints(bench.base, pair.tuned, found, harmful, harmless).to_frame()
    where = "direction prompts"
    rows = [
        replace(Measurement.from_row(one), measure=f"direction: {one['measure']}", set=where, stage=CHANGE)
        for one in table.to_dict("records")
    ]
    tables = {"direction distances": table}
    again = refusal.direction_like(pair.tuned, found, harmful, harmless)
    if again.defined and found.defined:
        transfer = causal_transfer(
            bench.base, pair.tuned, found, again, bench.asked.harmful, bench.asked.harmless,
            refusal_tokens=bench.observer.setup.tokens, n_random=N_RANDOM, seed=bench.settings.seed,
        )  # fmt: skip
        tables["causal transfer"] = transfer.table
        for model, stage in (("base", BEFORE), ("tuned", AFTER)):
            for which in ("base", "tuned"):
                for measure, role in (("drop", "harmful"), ("rise", "harmless")):
                    null = replace(transfer.estimate(model, "random", measure), method="random directions")
                    rows.append(
                        Measurement.of(
                            f"{measure} of log-odds by the {which} direction", role, stage,
                            transfer.estimate(model, which, measure), unit="nats", null=null,
                        )
                    )  # fmt: skip
    return rows, tables


def attention_heads(bench: Bench, record: Record) -> Reading:
    """1 − cosine of the two tables of head scores (gradient attribution to the base's direction)."""
    name = "head cosine"
    row = record.row(name)
    assert row is not None  # as above
    assert bench.observer.heads is not None
    one = bench.observer.heads.mean(0)
    two = torch.tensor(record.heads, dtype=torch.float64)
    found = head_change(one, two, "base", "tuned")
    heads = pd.DataFrame(
        [
            {"layer": layer, "head": head, "base": float(one[layer, head]), "tuned": float(two[layer, head])}
            for layer, head in found.most_changed(one.numel())
        ]
    )
    rows = [replace(row, set="harmful", stage=AFTER)]
    if found.spearman == found.spearman:
        rank = Estimate(found.spearman, np.nan, np.nan, one.numel())
        rows.append(Measurement.of("rank correlation of heads", "harmful", AFTER, rank))
    drawn = 1 - np.asarray(record.draws.get(name, []), dtype=float)
    return of_draws(
        "heads", INSIDE, 1 - row.value, drawn, row.n, margin=1 - row.null.low,
        unit="(1 − the lower end of split halves of the base)", rows=rows, tables={"heads": heads},
    )  # fmt: skip


def lens(bench: Bench, pair: Pair) -> tuple[Reading, DifferenceLens]:
    """The activation-difference lens on ordinary text."""
    steer = () if bench.settings.quick else bench.ordinary[:4]
    found = difference_lens(bench.base, pair.tuned, bench.ordinary, steer=steer)
    values = found.relative.numpy()
    rows = [
        Measurement.of("activation difference", "ordinary text", CHANGE, bootstrap(values), unit="‖Δ‖/‖h‖")
    ]
    top = found.top(10)
    words = (f"Read out at layer {found.layer}: {', '.join(top)}.",) if top else ()
    tables = {"lens tokens": found.tokens}
    if len(found.steered):
        tables["lens steering"] = found.steered
    reading = of_values(
        "activation difference", INSIDE, values, margin=RELATIVE_MARGIN, unit="of the activation's length",
        rows=rows, words=words, tables=tables,
    )  # fmt: skip
    return reading, found


def _paired(bench: Bench, record: Record, name: str) -> tuple[float, np.ndarray, int]:
    """Change of a recorded measure and its draws, resample by resample."""
    before, after = bench.observer.start.row(name), record.row(name)
    if before is None or after is None:
        raise InputError(f"{name} was not recorded")
    draws = [np.asarray(side.draws.get(name, []), dtype=float) for side in (bench.observer.start, record)]
    drawn = draws[1] - draws[0] if len(draws[0]) == len(draws[1]) else np.empty(0)
    return after.value - before.value, drawn, after.n


def _both(bench: Bench, record: Record, name: str) -> list[Measurement]:
    sides = ((BEFORE, bench.observer.start.row(name)), (AFTER, record.row(name)))
    return [replace(row, stage=stage) for stage, row in sides if row is not None]
