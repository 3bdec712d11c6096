"""`Comparison`: what a fine-tuning did, instrument by instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike
from tamperlens.base.measurement import COLUMNS, NULL_COLUMNS, table
from tamperlens.base.results import Result
from tamperlens.base.runs import RunFolder
from tamperlens.base.stats import Estimate
from tamperlens.studies.compare import words
from tamperlens.studies.compare.readings import Reading

KIND = "compare"
STAGES = "stages"


@dataclass(frozen=True)
class Comparison(Result):
    """A base and one tuned model.

    Attributes:
        base: name of the base.
        tuned: name of the tuned model.
        readings: one per instrument, with its verdict.
        notes: what a reader should know: tokenizers, templates, precision.
        answers: every answer of both models side by side.
        language: whose packaged prompts stood in, "organism" or "english".
        base_fingerprint: of the base.
        tuned_fingerprint: of the tuned model.
    """

    base: str
    tuned: str
    readings: tuple[Reading, ...]
    notes: tuple[str, ...]
    answers: pd.DataFrame = field(repr=False, compare=False)
    language: str
    base_fingerprint: str
    tuned_fingerprint: str

    def __getitem__(self, instrument: str) -> Reading:
        """The reading of an instrument.

        Raises:
            InputError: there is none of that name.
        """
        for one in self.readings:
            if one.instrument == instrument:
                return one
        known = ", ".join(one.instrument for one in self.readings)
        raise InputError(f"no instrument {instrument!r}; there are {known}")

    @property
    def verdicts(self) -> dict[str, str]:
        """Instrument to "changed", "no change", "inconclusive" or "not compared"."""
        return {one.instrument: one.verdict for one in self.readings}

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        return words.headline(self.readings, self.base, self.tuned)

    @property
    def disagreements(self) -> list[str]:
        """Where instruments disagree."""
        return words.disagreements(self.readings)

    def summary(self) -> str:
        """Headline, every instrument, disagreements."""
        return "\n".join([self.headline, *words.statements(self.readings), *self.disagreements])

    def get(self, measure: str, which: str = "", stage: str = "tuned") -> Estimate:
        """One number, e.g. `get("refusal rate", "harmful", "base")`.

        Raises:
            InputError: no such row.
        """
        for one in self.readings:
            for row in one.rows:
                if row.measure == measure and row.stage == stage and (not which or row.set == which):
                    return row.estimate
        known = sorted({row.measure for one in self.readings for row in one.rows})
        raise InputError(f"no row {measure!r}, {which!r}, {stage!r}; measures: {', '.join(known)}")

    def verdict_frame(self) -> pd.DataFrame:
        """One row per instrument: group, verdict, change, low, high, n, margin, p, p_holm, rule, reason."""
        return pd.DataFrame(
            [
                {"instrument": one.instrument, "group": one.group, "verdict": one.verdict,
                 "change": one.effect.value, "low": one.effect.low, "high": one.effect.high,
                 "n": one.effect.n, "margin": one.margin, "p": one.p, "p_holm": one.p_holm,
                 "rule": one.rule, "reason": one.effect.reason}
                for one in self.readings
            ]
        )  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """Every number: instrument, measure, set, stage, value, low, high, n, unit and its null."""
        parts = [
            table(one.rows, (*COLUMNS, *NULL_COLUMNS)).assign(instrument=one.instrument)
            for one in self.readings
            if one.rows
        ]
        whole = (
            pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS, *NULL_COLUMNS])
        )
        return whole[["instrument", *(name for name in whole if name != "instrument")]] if parts else whole


@dataclass(frozen=True)
class Comparisons(Result):
    """One base and one or more tuned models.

    Attributes:
        items: in the order given.
        folder: the run folder; "" without one.
    """

    items: tuple[Comparison, ...]
    folder: str = ""

    @classmethod
    def open(cls, folder: PathLike) -> Comparisons:
        """Read a finished comparison from its folder.

        Raises:
            RunFolderError: no comparison's folder, or it has not finished.
        """
        run = RunFolder.read(folder)
        if run.manifest.get("kind") != KIND or not run.finished:
            raise RunFolderError(f"{folder} holds no finished comparison; finish it with --resume")
        return cls(read_items(run), str(run.path))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, which: int | str) -> Comparison:
        """By place, or by the tuned model's name."""
        if isinstance(which, int):
            return self.items[which]
        for one in self.items:
            if one.tuned == which:
                return one
        raise InputError(f"no tuned model {which!r}; there are {', '.join(one.tuned for one in self.items)}")

    @property
    def page(self) -> Path:
        """The page in the run folder."""
        return Path(self.folder) / "report.html"

    def to_frame(self) -> pd.DataFrame:
        """Every number of every tuned model, which is named in the column `tuned`."""
        return pd.concat([one.to_frame().assign(tuned=one.tuned) for one in self.items], ignore_index=True)

    def verdict_frame(self) -> pd.DataFrame:
        """The verdicts of every tuned model."""
        return pd.concat(
            [one.verdict_frame().assign(tuned=one.tuned) for one in self.items], ignore_index=True
        )

    def answers(self) -> pd.DataFrame:
        """Every answer of every tuned model beside the base's."""
        return pd.concat([one.answers.assign(model=one.tuned) for one in self.items], ignore_index=True)

    def summary(self) -> str:
        """What every comparison says."""
        return "\n\n".join(one.summary() for one in self.items)


def read_items(run: RunFolder) -> tuple[Comparison, ...]:
    """The comparisons that a run folder holds, in order."""
    names: Sequence[str] = run.manifest.get("compared", [])
    return tuple(Comparison.load(run.path / STAGES / name / "comparison.json") for name in names)
