"""`DriftTrace`: what was measured, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tamperlens import plots
from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.plots import Plot

COLUMNS = ("step", "group", "layer", "module", "measure", "value", "n")
WHOLE = "all weights"
MEASURES: dict[str, str] = {
    "l2": "‖Δ_G‖",
    "relative_l2": "‖Δ_G‖ / ‖W_G‖",
    "one_minus_cosine": "1 − cos(W_G, W_G + Δ_G)",
    "max": "largest |Δ| in the group",
    "share_moved": "share of the group's weights with |Δ| above `moved` × rms(W0) of their matrix",
    "row_relative_l2": "mean over rows of ‖Δ_i‖ / ‖w_i‖ (whole matrices only)",
    "row_one_minus_cosine": "mean over rows of 1 − cos(w_i, w_i + Δ_i) (whole matrices only)",
    "effective_rank": "exp of the entropy of Δ's singular values, Roy & Vetterli 2007 (whole matrices only)",
    "alignment_cosine": "cosine of Δ and V Vᵀ Δ, V = W_aligned − W_unaligned (SafeLoRA, Hsu et al. 2024)",
}


@dataclass(frozen=True, eq=False)
class DriftTrace(Result):
    """How far each group of weights was from the start, at each recorded step.

    Attributes:
        keys: tidy rows without their values: step, group, layer, module, measure, n (weights or rows).
        values: one per row, fp64; NaN with n = 0 where a measure is undefined.
        model: name of the model before training.
        fingerprint: of it.
        definitions: group to how it was chosen.
        controls: group to its matched control.
        measures: measure to its formula.
        moved: threshold of `share_moved`.
    """

    keys: pd.DataFrame = field(repr=False)
    values: Tensor = field(repr=False)
    model: str
    fingerprint: str
    definitions: dict[str, str]
    controls: dict[str, str]
    measures: dict[str, str]
    moved: float

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, object]] | pd.DataFrame,
        *,
        model: str = "",
        fingerprint: str = "",
        definitions: Mapping[str, str] | None = None,
        controls: Mapping[str, str] | None = None,
        moved: float = float("nan"),
    ) -> DriftTrace:
        """A trace of tidy rows, such as `finetune` collects.

        Raises:
            InputError: no rows, or a column is missing.
        """
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise InputError(f"drift rows need {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
        used = {name: MEASURES.get(name, name) for name in dict.fromkeys(frame["measure"])}
        return cls(
            keys=frame[[c for c in COLUMNS if c != "value"]].reset_index(drop=True),
            values=torch.tensor(frame["value"].to_numpy(float), dtype=torch.float64),
            model=model,
            fingerprint=fingerprint,
            definitions=dict(definitions or {}),
            controls=dict(controls or {}),
            measures=used,
            moved=moved,
        )

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: step, group, layer, module, measure, value, n."""
        return self.keys.assign(value=self.values.numpy())[list(COLUMNS)]

    @property
    def steps(self) -> list[int]:
        """Recorded steps in order."""
        return sorted(int(step) for step in self.keys["step"].unique())

    @property
    def groups(self) -> list[str]:
        """Groups in order, whole matrices ("all weights") included."""
        return list(dict.fromkeys(self.keys["group"]))

    def table(self, measure: str = "relative_l2", step: int | None = None) -> pd.DataFrame:
        """One row per layer and module, one column per group.

        Args:
            measure: one of `measures`.
            step: a recorded step; the last by default.

        Raises:
            InputError: a measure or a step that was not recorded.
        """
        if measure not in self.measures:
            raise InputError(f"no measure {measure!r} in this trace; it has {', '.join(self.measures)}")
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise InputError(f"step {step} was not recorded; recorded were {', '.join(map(str, self.steps))}")
        here = (self.keys["measure"] == measure) & (self.keys["step"] == step)
        rows = self.keys[here].assign(value=self.values.numpy()[here.to_numpy()])
        wide = rows.pivot(index=["layer", "module"], columns="group", values="value")
        wide = wide.reindex(pd.MultiIndex.from_frame(rows[["layer", "module"]].drop_duplicates()))
        return wide[[name for name in self.groups if name in wide]]

    def plot(self, measure: str = "relative_l2") -> Plot:
        """Drift over steps: median over matrices with the middle half as a band."""
        return over_steps(self, measure)

    def plots(self, measure: str = "relative_l2") -> list[Plot]:
        """Over steps, by group at the end, and layer × module."""
        found = [over_steps(self, measure), by_group(self, measure)]
        return [*found, *(layer_map(self, group, measure) for group in self.controls)]


def over_steps(traces: DriftTrace | Sequence[DriftTrace], measure: str = "relative_l2") -> Plot:
    """Median over matrices (and seeds) by step, a line per group, with the middle half as a band.

    Controls are dashed, in the colour of their group.
    """
    found, label = _traces(traces), _label(measure)
    frame = pd.concat([trace.to_frame() for trace in found])
    frame = frame[(frame["measure"] == measure) & (frame["group"] != WHOLE)]
    if frame.empty:
        raise InputError(f"no group was recorded with {measure!r}")
    n = frame.groupby(["layer", "module"]).ngroups
    caption = (
        f"{label}; median over {n} matrices and {len(found)} run{'s' if len(found) > 1 else ''}, bands and "
        "bars hold the middle half. Dashed: weights matched on matrix and size."
    )
    name = f"drift-{measure.replace('_', '-')}"
    return plots.drift_over_steps(frame, _styles(found[0]), name=name, axis=label, caption=caption)


def by_group(traces: DriftTrace | Sequence[DriftTrace], measure: str = "relative_l2") -> Plot:
    """The last step's drift of every matrix (mean over seeds), group by group, on a logarithmic axis."""
    found, label = _traces(traces), _label(measure)
    styles = _styles(found[0])
    tables = [trace.table(measure) for trace in found]
    values = {
        g: np.nanmean(np.stack([t[g].to_numpy(float) for t in tables]), 0)
        for g in styles
        if all(g in t for t in tables)
    }
    moved = {g: kept for g, v in values.items() if (kept := v[np.isfinite(v) & (v > 0)]).size}
    if not moved:
        raise InputError("nothing has moved at the last step; there is no distribution to draw")
    step = found[0].steps[-1]
    caption = f"{label} at step {step}; one point per matrix, mean over {len(found)} runs; line: median."
    name = f"groups-{measure.replace('_', '-')}"
    return plots.drift_by_group(moved, styles, name=name, axis=label, caption=caption)


def layer_map(traces: DriftTrace | Sequence[DriftTrace], group: str, measure: str = "relative_l2") -> Plot:
    """log2 of the group's drift over its control's, by layer and module; mean over seeds.

    Raises:
        InputError: the group has no control in the trace.
    """
    found = _traces(traces)
    control = found[0].controls.get(group)
    if control is None:
        raise InputError(f"{group!r} has no control in this trace; it has {', '.join(found[0].controls)}")
    tables = [trace.table(measure) for trace in found]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.nanmean(np.stack([np.log2(t[group] / t[control]) for t in tables]), 0)
    finite = np.where(np.isfinite(logs), logs, np.nan)
    return plots.ratio_map(
        pd.Series(finite, index=tables[0].index).unstack(sort=False),
        name=f"map-{group.replace(' ', '-')}",
        title=f"{group[:1].upper()}{group[1:]} against control, by layer and module",
        label="log2 (group / control)",
        caption=f"{_label(measure)} of {group} over that of its matched control, log2, step "
        f"{found[0].steps[-1]}, mean over {len(found)} runs. 0: alike.",
        what=f"{group} moved further than its control",
    )


def _label(measure: str) -> str:
    """A measure's formula as an axis says it."""
    return MEASURES.get(measure, measure).replace("_G", "")


def _traces(traces: DriftTrace | Sequence[DriftTrace]) -> list[DriftTrace]:
    found = [traces] if isinstance(traces, DriftTrace) else list(traces)
    if not found:
        raise InputError("no traces to draw")
    return found


def _styles(trace: DriftTrace) -> dict[str, plots.drift.LineStyle]:
    owner = {control: group for group, control in trace.controls.items()}
    return plots.paired_styles({group: owner.get(group) for group in trace.groups if group != WHOLE})
