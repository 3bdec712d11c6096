"""Rules: what a monitor warns of, or stops for."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tamperlens.base.errors import InputError
from tamperlens.studies.trajectory.records import Record, current

_TIMES = {"once": 1, "twice": 2, "thrice": 3}
_WORDS = re.compile(
    r"^(?P<measure>.+?) (?P<side>below|above) (?:the )?(?P<bound>null(?: band)?|-?\d+(?:\.\d+)?)"
    r"(?: (?P<times>once|twice|thrice|\d+ times))?$"
)


@dataclass(frozen=True)
class Rule:
    """A bound on one measure.

    Attributes:
        measure: as in the rows, such as "refusal log-odds" or "direction cosine".
        side: "below" or "above".
        bound: a number, or None for the edge of the measure's null band.
        times: records in a row that must lie beyond it.
        stop: stop training and go back to the last good weights, instead of a warning.
    """

    measure: str
    side: str = "below"
    bound: float | None = None
    times: int = 2
    stop: bool = False

    def __post_init__(self) -> None:
        if self.side not in ("below", "above"):
            raise InputError(f"side={self.side!r} must be 'below' or 'above'")
        if self.times < 1:
            raise InputError(f"times={self.times} must be at least 1")

    @classmethod
    def parse(cls, words: str, *, stop: bool = False) -> Rule:
        """A rule in words: "refusal log-odds below the null band twice", "refusal rate below 0.5".

        Raises:
            InputError: words that are no rule.
        """
        found = _WORDS.match(words.strip())
        if found is None:
            raise InputError(
                f"{words!r} is no rule; write MEASURE below|above NUMBER|the null band [once|twice|N times]"
            )
        count = found["times"]
        times = 1 if count is None else _TIMES.get(count) or int(count.split()[0])
        bound = None if found["bound"].startswith("null") else float(found["bound"])
        return cls(current(found["measure"]), found["side"], bound, times, stop)

    def beyond(self, record: Record) -> bool | None:
        """Whether a record lies beyond the bound; None where the measure was not taken."""
        row = record.row(self.measure)
        if row is None:
            return None
        edge = self.bound
        if edge is None:
            edge = row.null.low if self.side == "below" else row.null.high
        if math.isnan(row.value):
            return True  # a model that gives no number is no good model
        return row.value < edge if self.side == "below" else row.value > edge

    def check(self, first: Record) -> None:
        """Refuse a rule that cannot speak, on the base's own record.

        Raises:
            InputError: the measure is not recorded, or has no null band.
        """
        row = first.row(self.measure)
        if row is None:
            known = ", ".join(row.measure for row in first.rows)
            raise InputError(f"no measure {self.measure!r} to make a rule of; recorded are {known}")
        if self.bound is None and math.isnan(row.null.low):
            raise InputError(f"{self.measure!r} has no null band; give the rule a number")

    def __str__(self) -> str:
        edge = "the null band" if self.bound is None else f"{self.bound:g}"
        return f"{self.measure} {self.side} {edge}, {self.times} in a row"


def rules_of(given: str | Rule | Sequence[str | Rule], *, stop: bool) -> list[Rule]:
    """Rules given in words or as they are."""
    several = [given] if isinstance(given, (str, Rule)) else list(given)
    return [
        Rule.parse(one, stop=stop) if isinstance(one, str) else dataclasses.replace(one, stop=stop)
        for one in several
    ]
