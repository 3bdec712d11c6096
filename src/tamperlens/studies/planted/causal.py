"""What a model does with weights removed or put back, and after an attack."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from tamperlens import capability, drift, finetune, neurons, refusal
from tamperlens.base.stats import Estimate, rate
from tamperlens.models import ChatModel
from tamperlens.models.organism.planted import Truth, put_back
from tamperlens.neurons import WeightMask
from tamperlens.studies.evaluation import EvalPrompts
from tamperlens_hooks import ablate_direction, stored_parameter


def outcome(model: ChatModel, asked: EvalPrompts) -> dict[str, Estimate]:
    """Share of harmful prompts refused, of their answers degenerate, and of questions answered right."""
    rates = refusal.evaluate(model, asked.harmful, judge=asked.judge, decoding=asked.decoding)
    skills = capability.evaluate(model, asked.suites)
    right = [bool(flag) for score in skills.scores for flag in score.correct]
    return {"refusal": rates.refusal_rate, "degenerate": rates.degenerate_rate, "capability": rate(right)}


def interventions(
    model: ChatModel, truth: Truth, sets: Mapping[str, WeightMask], asked: EvalPrompts
) -> list[dict[str, object]]:
    """Remove each set (to zero), and put it back to base; one row per set and way.

    Rows: set, how ("removed", "put back"), n_weights, refusal, degenerate, capability, each lost too.
    A set that holds what was planted loses the refusal when put back and keeps the capability.
    """
    intact = outcome(model, asked)
    rows = []
    for name, mask in sets.items():
        with neurons.zeroed(model, mask) as edited:
            rows.append(_row(name, "removed", mask, outcome(edited, asked), intact))
        restored = put_back(model, truth.base, mask)
        rows.append(_row(name, "put back", mask, outcome(restored, asked), intact))
    return rows


def ablations(model: ChatModel, bases: Mapping[str, Tensor], asked: EvalPrompts) -> list[dict[str, object]]:
    """Ablate each direction at every place of the stream; one row each, like those of `interventions`.

    Args:
        model: the planted model.
        bases: name to an orthonormal basis [d_model, r].
        asked: what refusal and capability are measured on.
    """
    intact = outcome(model, asked)
    rows = []
    for name, basis in bases.items():
        with ExitStack() as stack:
            for column in basis.T:  # orthonormal: one after the other ablates their span
                stack.enter_context(ablate_direction(model, column))
            rows.append(_row(name, "ablated", None, outcome(model, asked), intact))
    return rows


def attacked(
    model: ChatModel, truth: Truth, asked: EvalPrompts, *, n: int = 15, seeds: int = 3, margin: float = 0.1
) -> dict[str, object]:
    """Fine-tune a planted model on harmful compliance, the part free and frozen; where does the drift sit?

    Args:
        model: the planted model.
        truth: what was planted.
        asked: what refusal and capability are measured on.
        n: examples of the attack.
        seeds: free runs; the verdict on drift is over them.
        margin: see `drift.test_hypotheses`.

    Returns:
        refusal intact, after the attack with the part free, frozen, and free but rewound there (`rewound`);
        `concentration`, the planted part's share of squared drift over its share of weights (1: spread
        evenly); `undoing`, the cosine of the drift in the part with the way back to base; the H1/H2
        `verdict` with its `ratio` against matched controls, where the planted matrices hold any.
    """
    attack = finetune.attacks.harmful_compliance(n)
    full = truth.mask.density == 1
    groups = None if full else drift.groups(model, safety=truth.mask, seed=truth.seed)
    traces, shares, angles, free = [], [], [], None
    for seed in range(seeds):
        config = attack.config_for(model, seed=seed)
        recorders = [] if groups is None else [drift.Recorder(groups, every=10**6, whole=False)]
        tuned = finetune.run(model, attack.data, config, recorders=recorders, progress=False)
        share, angle = _where(model, truth, tuned.merged_state_dict())
        shares.append(share / truth.mask.density)
        angles.append(angle)
        traces += list(tuned.recordings)
        free = tuned if free is None else free
    assert free is not None
    found: dict[str, Any] = {
        "refusal": outcome(model, asked)["refusal"].value,
        **{f"free {name}": value.value for name, value in outcome(free.model, asked).items()},
        "concentration": sum(shares) / seeds, "undoing": sum(angles) / seeds, "runs": seeds,
    }  # fmt: skip
    rewound = finetune.rewind(free, model, truth.mask)
    found["rewound refusal"] = outcome(rewound.model, asked)["refusal"].value
    if not full:
        frozen = finetune.run(
            model, attack.data, attack.config_for(model, seed=0), freeze=truth.mask, progress=False
        )
        found |= {f"frozen {name}": value.value for name, value in outcome(frozen.model, asked).items()}
    return found | _verdict(traces, groups, margin)


def _where(model: ChatModel, truth: Truth, tuned: Mapping[str, Any]) -> tuple[float, float]:
    """(share of squared drift in the planted part, cosine of the drift there with base − model)."""
    inside = total = along = back = 0.0
    for name, flags in truth.mask.items():
        here = stored_parameter(model.module, name).detach().double()
        moved = tuned[name].double() - here
        home = stored_parameter(truth.base.module, name).detach().double() - here
        total += float(moved.square().sum())
        inside += float(moved[flags].square().sum())
        along += float((moved * home)[flags].sum())
        back += float(home[flags].square().sum())
    if total == 0 or inside == 0 or back == 0:
        return float("nan"), float("nan")
    return inside / total, along / (inside * back) ** 0.5


def _verdict(traces: list[Any], groups: Any, margin: float) -> dict[str, Any]:
    """The drift verdict, or why there is none."""
    if groups is None:
        return {"verdict": "none: everything is planted", "ratio": float("nan")}
    control = groups[groups.controls["top safety"]]
    if control.count < 0.5 * groups["top safety"].count:
        return {"verdict": "none: planted matrices have no weights left as controls", "ratio": float("nan")}
    answer = drift.test_hypotheses(traces, margin=margin)
    ratio = next(one.ratio for one in answer.comparisons if one.group == "top safety")
    return {
        "verdict": answer.verdict, "ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high,
    }  # fmt: skip


def _row(
    name: str, how: str, mask: WeightMask | None, now: Mapping[str, Estimate], intact: Mapping[str, Estimate]
) -> dict[str, Any]:
    row: dict[str, Any] = {"set": name, "how": how, "n_weights": 0 if mask is None else mask.count}
    for measure, value in now.items():
        row |= {measure: value.value, f"{measure} lost": intact[measure].value - value.value}
    return row


def top_units(model: ChatModel, kind: str, scores: Any, k: int, definition: str) -> WeightMask:
    """The weights of the k best units, by scores flat in layer × unit order."""
    anatomy = model.anatomy
    units = anatomy.d_mlp if kind == "neuron" else anatomy.n_heads
    order = torch.from_numpy(scores).double().sort(descending=True, stable=True).indices[:k].tolist()
    mask = neurons.unit_mask(model, kind, [(at // units, at % units) for at in order])
    import dataclasses

    return dataclasses.replace(mask, definition=definition)
