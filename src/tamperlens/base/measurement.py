"""One measured number, and one difference of two: the rows that tables, figures, pages and sentences of every
study are made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, PairedTest, holm

COLUMNS = ("measure", "set", "stage", "value", "low", "high", "n", "unit")
"""What every table of measurements has."""
NULL_COLUMNS = ("null", "null_low", "null_high", "null_kind", "reason")
"""What tables have besides where measurements stand beside a null."""
DIFFERENCES = (
    "measure", "set", "before", "after", "difference", "low", "high", "n", "gained", "lost", "p", "p_holm",
)  # fmt: skip
"""What every table of differences has."""
WHOLE = ("n", "null_n", "gained", "lost")
WORDS = ("measure", "set", "stage", "unit", "reason", "method", "null_kind")
NO_NULL = Estimate(math.nan, math.nan, math.nan, 0)
Span = tuple[float, float]
NO_SPAN: Span = (math.nan, math.nan)
PAIRED_COLUMNS = ("unchanged_low", "unchanged_high", "changed")
"""What tables have where a value is held against no change on the same prompts."""


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
        method: of the interval.
        unchanged: the 95 % band of what the same prompts give when nothing changes; NaN where there is none.
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
    method: str = ""
    unchanged: Span = NO_SPAN

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
        unchanged: Span = NO_SPAN,
    ) -> Measurement:
        """The row of an estimate; an undefined one has n = 0."""
        n = 0 if math.isnan(found.value) else found.n
        band = NO_NULL if null is None else null
        return cls(
            measure, which, stage, found.value, found.low, found.high, n, band, unit, found.reason,
            found.method, unchanged,
        )  # fmt: skip

    @property
    def estimate(self) -> Estimate:
        """Value, interval and n."""
        return Estimate(self.value, self.low, self.high, self.n, self.method, self.reason)

    @property
    def changed(self) -> bool | None:
        """Whether the value lies outside `unchanged`; None where either is unknown."""
        low, high = self.unchanged
        if math.isnan(low) or math.isnan(self.value):
            return None
        slack = 1e-9 * max(1.0, abs(self.value))
        return not low - slack <= self.value <= high + slack

    def summary(self) -> str:
        """Measure, set and stage with the value, its interval and the null."""
        where = ", ".join(part for part in (self.set, self.stage) if part)
        beside = "" if math.isnan(self.null.value) else f"; by chance {self.null}"
        return f"{self.measure}{f' ({where})' if where else ''}: {self.estimate}{beside}."

    def row(self, columns: Sequence[str] = (*COLUMNS, *NULL_COLUMNS)) -> dict[str, object]:
        """Plain values by column, null and all."""
        low, high = self.unchanged
        every = {**vars(self), **_null(self.null), "unchanged_low": low, "unchanged_high": high}
        return {name: every[name] if name != "changed" else self.changed for name in columns}

    @classmethod
    def from_row(cls, row: Mapping[Hashable, object]) -> Measurement:
        """What `row` gave, back; columns that are not there are empty, None is NaN."""
        cell = _Cells(row)
        return cls(
            cell.text("measure"), cell.text("set"), cell.text("stage"), cell.number("value"),
            cell.number("low"), cell.number("high"), cell.count("n"), cell.null(), cell.text("unit"),
            cell.text("reason"), cell.text("method"),
            (cell.number("unchanged_low"), cell.number("unchanged_high")),
        )  # fmt: skip


@dataclass(frozen=True)
class Difference(Result):
    """How far one measure lies apart in two states of a model.

    Attributes:
        measure: what was measured.
        set: on what, or, where sets of weights are compared, which of them was removed.
        before: its value in the first state.
        after: its value in the second.
        difference: after − before, paired, with its interval; where there is a null, after − null.
        null: what the second state would be by chance alone, with its band and the number of draws.
        gained: prompts that turned from no to yes.
        lost: prompts that turned from yes to no.
        p: of no difference; `PairedTest` and `null.method` say by which test.
        p_holm: the same, adjusted for every test of the table.
    """

    measure: str
    set: str
    before: float
    after: float
    difference: Estimate
    null: Estimate = field(default=NO_NULL)
    gained: int = 0
    lost: int = 0
    p: float = math.nan
    p_holm: float = math.nan

    @classmethod
    def of(cls, measure: str, which: str, before: float, after: float, test: PairedTest) -> Difference:
        """The row of a paired test."""
        return cls(
            measure, which, before, after, test.difference, NO_NULL, test.gained, test.lost, test.p_value
        )

    def summary(self) -> str:
        """Both values and the difference, or what it is beyond the null."""
        where = f" ({self.set})" if self.set else ""
        beside = "" if math.isnan(self.null.value) else f" beyond {self.null.value:.3g} by chance"
        return (
            f"{self.measure}{where}: {self.before:.3g} before, {self.after:.3g} after; difference "
            f"{self.difference}{beside}."
        )

    def row(self, columns: Sequence[str] = DIFFERENCES) -> dict[str, object]:
        """Plain values by column, the parts of the difference and of the null in columns of their own."""
        found = self.difference
        every = {**vars(self), **vars(found), "difference": found.value, **_null(self.null)}
        return {name: every[name] for name in columns}

    @classmethod
    def from_row(cls, row: Mapping[Hashable, object]) -> Difference:
        """What `row` gave, back; columns that are not there are empty."""
        cell = _Cells(row)
        found = Estimate(
            cell.number("difference"), cell.number("low"), cell.number("high"), cell.count("n"),
            cell.text("method"), cell.text("reason"),
        )  # fmt: skip
        return cls(
            cell.text("measure"), cell.text("set"), cell.number("before"), cell.number("after"), found,
            cell.null(), cell.count("gained"), cell.count("lost"), cell.number("p"), cell.number("p_holm"),
        )  # fmt: skip


def adjusted(rows: Sequence[Difference]) -> list[Difference]:
    """The rows with Holm's p over all of them whose p is defined."""
    at = [i for i, one in enumerate(rows) if not math.isnan(one.p)]
    found = dict(zip(at, holm([rows[i].p for i in at]), strict=True))
    return [dataclasses.replace(one, p_holm=found.get(i, math.nan)) for i, one in enumerate(rows)]


def table(rows: Iterable[Measurement | Difference], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Measurements, or differences with their columns, as a frame: one row each, in order."""
    frame = pd.DataFrame([one.row(columns) for one in rows], columns=list(columns))
    kinds = {name: "int64" if name in WHOLE else "float64" for name in columns if name not in WORDS}
    return frame.astype(kinds)


def differences(frame: pd.DataFrame) -> list[Difference]:
    """The rows of a table of differences."""
    return [Difference.from_row(row) for row in frame.to_dict("records")]


def pick(frame: pd.DataFrame, measure: str, which: str, stage: str) -> Estimate:
    """One row of a table as an estimate; undefined when there is no such row."""
    rows = frame[(frame["measure"] == measure) & (frame["set"] == which) & (frame["stage"] == stage)]
    if rows.empty:
        return Estimate(math.nan, math.nan, math.nan, 0, "", "not measured")
    return Measurement.from_row(rows.iloc[0].to_dict()).estimate


def _null(null: Estimate) -> dict[str, object]:
    return {**null.null_cells(), "null_n": null.n, "null_kind": null.method}


@dataclass(frozen=True)
class _Cells:
    """Cells of a row by name, absent ones empty."""

    row: Mapping[Any, Any]

    def number(self, name: str) -> float:
        value = self.row.get(name)
        return math.nan if value is None else float(value)

    def count(self, name: str) -> int:
        value = self.number(name)
        return 0 if math.isnan(value) else int(value)

    def text(self, name: str) -> str:
        value = self.row.get(name)
        return value if isinstance(value, str) else ""

    def null(self) -> Estimate:
        value, low, high = (self.number(name) for name in ("null", "null_low", "null_high"))
        return Estimate(value, low, high, self.count("null_n"), self.text("null_kind"))
