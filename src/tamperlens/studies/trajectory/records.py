"""`Record`: everything seen at one step, and its file, one line of JSON a record."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tamperlens.base.stats import Estimate


@dataclass
class Record:
    """Everything seen at one step.

    Attributes:
        step: optimizer steps made.
        rows: one per measure: measure, value, low, high, n, null, null_low, null_high, null_kind, reason.
        draws: measure to its value under each resample of prompts (drift: of matrices).
        layers: cosine of the direction at every layer.
        heads: score by layer and head.
        examples: generated answers with labels.
        sampled: whether answers were generated.
    """

    step: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    draws: dict[str, list[float]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    heads: list[list[float]] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)
    sampled: bool = False

    def add(
        self,
        measure: str,
        value: float,
        draws: Tensor | None,
        n: int,
        null: Estimate | None = None,
        reason: str = "",
    ) -> None:
        """One measure; its interval is the middle 95 % of the draws, widened to hold the value."""
        low, high = _bounds(draws, value)
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        band = nothing if null is None else null
        self.rows.append(
            {
                "measure": measure, "value": value, "low": low, "high": high, "n": n, "null": band.value,
                "null_low": band.low, "null_high": band.high, "null_kind": band.method, "reason": reason,
            }
        )  # fmt: skip
        if draws is not None:
            self.draws[measure] = [float(f"{one:.6g}") for one in draws.tolist()]

    def value(self, measure: str) -> float:
        """Value of a measure; NaN where it was not measured."""
        return next((float(row["value"]) for row in self.rows if row["measure"] == measure), math.nan)


def line(record: Record) -> str:
    """A record as one line of JSON; NaN as null."""
    return json.dumps(_plain(dataclasses.asdict(record)), ensure_ascii=False, allow_nan=False) + "\n"


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
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            fields = json.loads(text)
        except ValueError:
            break
        for name in ("rows", "layers"):
            fields[name] = [{k: math.nan if v is None else v for k, v in row.items()} for row in fields[name]]
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
