"""`DriftTrace`: what was measured, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result

if TYPE_CHECKING:
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
        rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
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
        from tamperlens.drift.figures import over_steps

        return over_steps(self, measure)

    def plots(self, measure: str = "relative_l2") -> list[Plot]:
        """Over steps, by group at the end, and layer × module."""
        from tamperlens.drift.figures import by_group, layer_map, over_steps

        found = [over_steps(self, measure), by_group(self, measure)]
        return [*found, *(layer_map(self, group, measure) for group in self.controls)]
