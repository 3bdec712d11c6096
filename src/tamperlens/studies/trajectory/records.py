"""`Record`: everything seen at one step, and its file, one line of JSON a record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor

from tamperlens.base.deprecation import warn
from tamperlens.base.files import read_text
from tamperlens.base.measurement import NO_SPAN, NULL_COLUMNS, PAIRED_COLUMNS, Measurement, Span
from tamperlens.base.schemas import Schema, checked
from tamperlens.base.stats import Estimate

COLUMNS = ("measure", "set", "value", "low", "high", "n", *NULL_COLUMNS, *PAIRED_COLUMNS)
"""What a record's rows hold, in files and tables."""
OLD_NAMES = {
    "broken text": "degenerate rate",
    "nats on harmless answers": "loss on harmless answers",
    "over-refusal log-odds": "over-refusal log-odds (harmless)",
    "over-refusal rate": "over-refusal rate (look-alikes)",
}


def current(measure: str) -> str:
    """The name of a measure that was renamed; any other as it is."""
    if measure not in OLD_NAMES:
        return measure
    warn(f"the measure {measure!r}", repr(OLD_NAMES[measure]))
    return OLD_NAMES[measure]


@dataclass
class Record:
    """Everything seen at one step.

    Attributes:
        step: optimizer steps made.
        rows: one per measure.
        draws: measure to its value under each resample of prompts (drift: of matrices).
        layers: cosine of the direction at every layer.
        heads: score by layer and head.
        examples: generated answers with labels.
        sampled: whether answers were generated.
    """

    step: int
    rows: list[Measurement] = field(default_factory=list)
    draws: dict[str, list[float]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    heads: list[list[float]] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)
    sampled: bool = False

    def add(
        self,
        measure: str,
        which: str,
        value: float,
        draws: Tensor | None,
        n: int,
        null: Estimate | None = None,
        reason: str = "",
        unchanged: Span = NO_SPAN,
    ) -> None:
        """One measure; its interval is the middle 95 % of the draws, widened to hold the value."""
        low, high = _bounds(draws, value)
        found = Estimate(value, low, high, n, "bootstrap 95%", reason)
        self.rows.append(Measurement.of(measure, which, "", found, null=null, unchanged=unchanged))
        if draws is not None:
            self.draws[measure] = [float(f"{one:.6g}") for one in draws.tolist()]

    def row(self, measure: str) -> Measurement | None:
        """The row of a measure; None where it was not measured."""
        return next((row for row in self.rows if row.measure == measure), None)


class _Line(Schema):
    """One line of records.jsonl."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: int
    rows: list[dict[str, str | bool | int | float | None]]
    draws: dict[str, list[float | None]]
    layers: list[dict[str, int | float | None]]
    heads: list[list[float | None]]
    examples: list[dict[str, str]]
    sampled: bool = False


def line(record: Record) -> str:
    """A record as one line of JSON; NaN as null."""
    fields = {**vars(record), "rows": [row.row(COLUMNS) for row in record.rows]}
    return json.dumps(_plain(fields), ensure_ascii=False, allow_nan=False) + "\n"


def append(path: Path, record: Record, *, first: bool = False) -> None:
    """Add one record in a single write, so that a kill leaves at most one broken last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w" if first else "a", encoding="utf-8") as handle:
        handle.write(line(record))


def read(path: Path) -> list[Record]:
    """Whole records of a file; a broken last line is what a kill leaves and is dropped."""
    found: list[Record] = []
    if not path.is_file():
        return found
    for text in read_text(path).split("\n"):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            break
        checked(_Line, fields, path, remedy="delete it and the run starts over")
        fields["rows"] = [Measurement.from_row(row) for row in fields["rows"]]
        fields["layers"] = [
            {k: math.nan if v is None else v for k, v in row.items()} for row in fields["layers"]
        ]
        fields["draws"] = {
            name: [math.nan if v is None else v for v in row] for name, row in fields["draws"].items()
        }
        found.append(Record(**fields))
    return found


def _bounds(draws: Tensor | None, value: float) -> tuple[float, float]:
    known = torch.empty(0) if draws is None else draws[torch.isfinite(draws)]
    if not len(known):
        return math.nan, math.nan
    return min(value, float(known.quantile(0.025))), max(value, float(known.quantile(0.975)))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
