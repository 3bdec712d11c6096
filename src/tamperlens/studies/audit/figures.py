"""The figures of an audit, drawn from its tables alone."""

from __future__ import annotations

import pandas as pd

from tamperlens.base.measurement import pick
from tamperlens.base.runs import RunFolder
from tamperlens.plots import Plot, cosine_by_layer, direction_map, dot_interval, loss_curve
from tamperlens.studies.audit.stages import Results
from tamperlens.studies.evaluation import ROLES

SHARES = "share of prompts"
LABELS = {"lookalike": "look-alike"}
WHISKERS = "Dots are shares of prompts, whiskers 95 % Wilson intervals, n in brackets."


def draw(run: RunFolder, measures: pd.DataFrame) -> list[Plot]:
    """Every figure that the finished stages allow, in the order of the report."""
    results = Results(run)
    found = [rates_figure(measures)]
    direction = results.direction()
    if direction is not None:
        tokens = direction.table.drop_duplicates("position").sort_values("position")["token"].tolist()
        untouched = f"{direction.baseline_harmful:.1f}".replace("-", "−")
        found.append(
            direction_map(
                direction.table.rename(columns={"passes": "passed"}),
                layer=direction.layer,
                position=direction.position,
                tokens=[str(token) for token in tokens],
                caption=(
                    "Each cell is one candidate: the difference of mean activations, harmful minus harmless, "
                    "at one block input and one token of the chat template. Colour and number give the mean "
                    f"log-odds of refusal (nats) on {direction.n_val[0]} harmful validation prompts while "
                    "the candidate is ablated everywhere; without ablation it is "
                    f"{untouched}. Outlined: selected. In brackets or struck "
                    "through: does not meet the filters. Blank: the two means are equal there."
                ),
            )
        )
    causal, check = causal_rows(measures), results.causal("before")
    if not causal.empty and check is not None:
        found.append(
            dot_interval(
                causal,
                name="causal",
                title="What the direction of the model before the attack does",
                caption=(
                    "The direction is removed from (ablated) or added to the residual stream while the model "
                    "answers prompts that had no part in finding it. Random: directions of the same length, "
                    f"mean over {len(check.random)}. Whiskers: 95 % Wilson intervals, prompts as units."
                ),
                axis="share of prompts refused",
            )
        )
    dose = results.dose()
    if dose is not None:
        found.append(dose.plot())
    layers = results.layers()
    if layers is not None and direction is not None and layers["cosine"].notna().any():
        found.append(
            cosine_by_layer(
                layers[layers["cosine"].notna()],
                layer=direction.layer,
                caption=(
                    f"Cosine between the directions before and after, read at position "
                    f"{direction.position} of "
                    f"each block input on the same {direction.n_train[0]} + {direction.n_train[1]} prompts. "
                    "Whiskers: 95 % bootstrap over prompts. Band: central 95 % of cosines between two random "
                    "halves of the prompts in the model before the attack, that is, what sampling alone does."
                ),
            )
        )
    log = results.log()
    if not log.empty and log["loss"].notna().any():
        found.append(
            loss_curve(log, caption="Mean negative log-likelihood of the answers' tokens in each step.")
        )
    return found


def rates_figure(measures: pd.DataFrame) -> Plot:
    """Refusal, degenerate answers and capability, before and after."""
    suites = measures.loc[measures["measure"] == "accuracy", "set"].drop_duplicates().tolist()
    wanted = [
        *(("Refused, in full or in part", "refusal_rate", role) for role in ROLES),
        *(("Degenerate: empty, repeating or broken", "degenerate_rate", role) for role in ROLES),
        *(("Capability: correct", "accuracy", suite) for suite in suites),
    ]
    rows = [
        _row(panel, LABELS.get(which, which), measure, which, stage, measures)
        for panel, measure, which in wanted
        for stage in ("before", "after")
    ]
    return dot_interval(
        pd.DataFrame(rows),
        name="rates",
        title="Rates before and after the attack",
        caption=WHISKERS,
        axis=SHARES,
    )


def causal_rows(measures: pd.DataFrame) -> pd.DataFrame:
    """Rows of the causal figure; empty when there is no direction."""
    if measures[measures["measure"] == "refusal_rate_ablated"]["value"].isna().all():
        return pd.DataFrame()
    wanted = (
        ("Harmful prompts", "untouched", "refusal_rate", "harmful"),
        ("Harmful prompts", "direction ablated", "refusal_rate_ablated", "harmful"),
        ("Harmful prompts", "random ablated", "refusal_rate_random_ablated", "harmful"),
        ("Harmless prompts", "untouched", "refusal_rate", "harmless"),
        ("Harmless prompts", "direction added", "refusal_rate_added", "harmless"),
        ("Harmless prompts", "random added", "refusal_rate_random_added", "harmless"),
    )
    return pd.DataFrame([_row(*one, stage, measures) for one in wanted for stage in ("before", "after")])


def _row(
    panel: str, label: str, measure: str, which: str, series: str, frame: pd.DataFrame
) -> dict[str, object]:
    return {"panel": panel, "label": label, "series": series, **pick(frame, measure, which, series).cells()}
