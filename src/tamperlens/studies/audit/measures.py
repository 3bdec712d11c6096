"""The rows of `measures.csv`, and how a number is written for a reader."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import pandas as pd

from tamperlens.base.stats import Estimate, PairedTest, holm

COLUMNS = ("measure", "set", "stage", "value", "low", "high", "n", "unit")
CHANGES = (
    "measure",
    "set",
    "before",
    "after",
    "difference",
    "low",
    "high",
    "n",
    "gained",
    "lost",
    "p",
    "p_holm",
)
Stage = Literal["before", "after"]
SHARE = "proportion"


class Measures:
    """Collects rows; an undefined estimate becomes NaN with n = 0."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, measure: str, which: str, stage: Stage, estimate: Estimate, unit: str = SHARE) -> None:
        """One row of `measures.csv`."""
        undefined = math.isnan(estimate.value)
        row = (
            measure,
            which,
            stage,
            estimate.value,
            estimate.low,
            estimate.high,
            0 if undefined else estimate.n,
            unit,
        )
        self.rows.append(dict(zip(COLUMNS, row, strict=True)))

    def frame(self) -> pd.DataFrame:
        """All rows, in the order they were added."""
        return measures_frame(self.rows)


def measures_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows (NaN perhaps written as None by JSON) as a frame with the columns of `measures.csv`."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    for column in ("value", "low", "high"):
        frame[column] = pd.to_numeric(frame[column]).astype("float64")
    frame["n"] = frame["n"].astype("int64")
    return frame


def pick(frame: pd.DataFrame, measure: str, which: str, stage: str) -> Estimate:
    """One row as an estimate; undefined when there is no such row."""
    rows = frame[(frame["measure"] == measure) & (frame["set"] == which) & (frame["stage"] == stage)]
    if rows.empty:
        return Estimate(math.nan, math.nan, math.nan, 0, "", "not measured")
    row = rows.iloc[0]
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))


def changes_frame(tests: Iterable[tuple[str, str, Estimate, Estimate, PairedTest]]) -> pd.DataFrame:
    """Paired tests as a frame, with Holm's correction over all of them."""
    listed = list(tests)
    defined = [i for i, (*_, test) in enumerate(listed) if not math.isnan(test.p_value)]
    adjusted = dict(zip(defined, holm([listed[i][4].p_value for i in defined]), strict=True))
    rows = []
    for i, (measure, which, before, after, test) in enumerate(listed):
        change = test.difference
        shift = (change.value, change.low, change.high, change.n, test.gained, test.lost)
        p_values = (test.p_value, adjusted.get(i, math.nan))
        rows.append((measure, which, before.value, after.value, *shift, *p_values))
    return pd.DataFrame(rows, columns=list(CHANGES))


def share(estimate: Estimate, *, n: bool = False) -> str:
    """A proportion for a reader: "98 % [95, 99]"."""
    if math.isnan(estimate.value):
        return f"undefined{f' ({estimate.reason})' if estimate.reason else ''}"
    text = _percent(estimate.value) + "\u00a0%"
    if not math.isnan(estimate.low):
        text += f"\u00a0[{_percent(estimate.low)},\u00a0{_percent(estimate.high)}]"
    return f"{text} (n\u00a0=\u00a0{estimate.n})" if n else text


def points(estimate: Estimate, *, sign: bool = True) -> str:
    """A difference of proportions in percentage points: "−96 [−98, −93]"."""
    if math.isnan(estimate.value):
        return "undefined"
    parts = [signed(100 * x) for x in (estimate.value, estimate.low, estimate.high)]
    value, low, high = parts if sign else [part.replace("+", "") for part in parts]
    return f"{value}\u00a0[{low},\u00a0{high}]"


def number(estimate: Estimate, digits: int = 2) -> str:
    """A plain number with its interval."""
    if math.isnan(estimate.value):
        return "undefined"
    value, low, high = (
        f"{x:.{digits}f}".replace("-", "−") for x in (estimate.value, estimate.low, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value}\u00a0[{low},\u00a0{high}]"


def signed(value: float) -> str:
    """A number of points with its sign, to one decimal, whole numbers bare."""
    text = f"{abs(value):.1f}".removesuffix(".0")
    return text if text == "0" else f"{'−' if value < 0 else '+'}{text}"


def p_text(p: float) -> str:
    """A p-value for a reader."""
    if math.isnan(p):
        return "–"
    if p >= 0.9995:
        return "1"
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def scientific(value: float) -> str:
    """1.2 × 10¹²."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    mantissa = value / 10**exponent
    if f"{mantissa:.1f}" == "10.0":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}\u00a0×\u00a010{str(exponent).translate(_RAISED)}"


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _percent(value: float) -> str:
    """To one decimal, whole numbers bare; near 50 % the decimal says nothing at the usual n."""
    scaled = 100 * value
    return f"{scaled:.0f}" if 10 <= scaled <= 90 else f"{scaled:.1f}".removesuffix(".0")
