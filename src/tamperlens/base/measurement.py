"""One measured number: the row that tables, figures, pages and sentences of every study are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate

COLUMNS = ("measure", "set", "stage", "value", "low", "high", "n", "unit")
"""What every table of measurements has."""
NULL_COLUMNS = ("null", "null_low", "null_high", "null_kind", "reason")
"""What tables have besides where measurements stand beside a null."""
NO_NULL = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Measurement(Result):
    """One number with everything that a reader needs to judge it.

    Attributes:
        measure: what was measured, e.g. "refusal_rate".
        set: on what, e.g. "harmful"; "" where the measure says so.
        stage: of which state of the model, e.g. "before".
        value: the number; NaN where it is undefined.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        n: independent units behind it; 0 where it is undefined.
        null: what it would be by chance alone, with its band; `method` says of which kind.
        unit: of the value.
        reason: why it is undefined.
    """

    measure: str
    set: str
    stage: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    null: Estimate = NO_NULL
    unit: str = ""
    reason: str = ""

    @classmethod
    def of(
        cls,
        measure: str,
        which: str,
        stage: str,
        found: Estimate,
        *,
        null: Estimate | None = None,
        unit: str = "",
    ) -> Measurement:
        """The row of an estimate; an undefined one has n = 0."""
        n = 0 if math.isnan(found.value) else found.n
        band = NO_NULL if null is None else null
        return cls(measure, which, stage, found.value, found.low, found.high, n, band, unit, found.reason)

    @property
    def estimate(self) -> Estimate:
        """Value, interval and n."""
        return Estimate(self.value, self.low, self.high, self.n, "", self.reason)

    def row(self, columns: Sequence[str] = (*COLUMNS, *NULL_COLUMNS)) -> dict[str, Any]:
        """Plain values by column, null and all."""
        every = {**vars(self), **self.null.null_cells(), "null_kind": self.null.method}
        return {name: every[name] for name in columns}

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Measurement:
        """What `row` gave, back; columns that are not there are empty, None is NaN."""

        def number(name: str) -> float:
            value = row.get(name)
            return math.nan if value is None else float(value)

        def text(name: str) -> str:
            value = row.get(name)
            return value if isinstance(value, str) else ""

        kind = text("null_kind")
        null = Estimate(number("null"), number("null_low"), number("null_high"), 0, kind)
        n = number("n")
        return cls(
            text("measure"), text("set"), text("stage"), number("value"), number("low"), number("high"),
            0 if math.isnan(n) else int(n), null, text("unit"), text("reason"),
        )  # fmt: skip


def table(rows: Iterable[Measurement], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Measurements as a frame, one row each, in order."""
    frame = pd.DataFrame([one.row(columns) for one in rows], columns=list(columns))
    numbers = dict.fromkeys(("value", "low", "high", "null", "null_low", "null_high"), "float64")
    return frame.astype({name: kind for name, kind in {**numbers, "n": "int64"}.items() if name in frame})


def pick(frame: pd.DataFrame, measure: str, which: str, stage: str) -> Estimate:
    """One row of a table as an estimate; undefined when there is no such row."""
    rows = frame[(frame["measure"] == measure) & (frame["set"] == which) & (frame["stage"] == stage)]
    if rows.empty:
        return Estimate(math.nan, math.nan, math.nan, 0, "", "not measured")
    return Measurement.from_row(rows.iloc[0].to_dict()).estimate
