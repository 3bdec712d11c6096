"""`AuditResult`: a finished audit, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike, read_csv
from tamperlens.base.measurement import pick
from tamperlens.base.results import Result
from tamperlens.base.runs import RunFolder
from tamperlens.base.stats import Estimate
from tamperlens.plots import Plot
from tamperlens.refusal import Direction, DoseCurve
from tamperlens.studies.audit import tables
from tamperlens.studies.audit.figures import rates_figure
from tamperlens.studies.audit.stages import Results
from tamperlens.studies.audit.words import headline

KIND = "audit"


@dataclass(frozen=True)
class AuditResult(Result):
    """A finished audit.

    Attributes:
        path: the run folder.
        headline: the finding in one sentence.
        measures: the rows of measures.csv (measure, set, stage, value, low, high, n, unit).
        changes: paired tests before against after (measure, set, difference, …, p, p_holm).
    """

    path: str
    headline: str
    measures: pd.DataFrame
    changes: pd.DataFrame

    @classmethod
    def open(cls, folder: PathLike) -> AuditResult:
        """Read a finished audit from its folder.

        Raises:
            RunFolderError: not an audit's folder, or the audit has not finished.
        """
        run = RunFolder.read(folder)
        if run.manifest.get("kind") != KIND or not run.finished:
            raise RunFolderError(f"{folder} holds no finished audit; finish it with resume=True")
        return cls.of(run)

    @classmethod
    def of(cls, run: RunFolder) -> AuditResult:
        """What a run folder holds."""
        results = Results(run)
        measures = tables.measures(results)
        return cls(str(run.path), headline(measures, results.attack()), measures, tables.changes(results))

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.path)

    def summary(self) -> str:
        """The finding in one sentence."""
        return self.headline

    @property
    def expected_costs(self) -> pd.DataFrame:
        """What each stage was expected to cost before it ran (`cost.StageCost`)."""
        manifest = RunFolder.read(self.folder).manifest
        return pd.DataFrame(list(manifest.get("expected_costs", {}).values()))

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    @property
    def direction(self) -> Direction:
        """The refusal direction of the model before the attack."""
        return Direction.load(self.folder / "direction.safetensors")

    @property
    def dose(self) -> DoseCurve | None:
        """What adding the direction does by scale; None where there is no direction."""
        return Results(RunFolder.read(self.folder)).dose()

    @property
    def completions(self) -> pd.DataFrame:
        """Every answer with its verdict, as in completions.csv."""
        return read_csv(self.folder / "completions.csv", keep_default_na=False)

    def get(self, measure: str, which: str, stage: str = "after") -> Estimate:
        """One measure as an estimate, e.g. `get("refusal_rate", "harmful", "before")`.

        Raises:
            InputError: no such row.
        """
        found = pick(self.measures, measure, which, stage)
        if found.reason == "not measured":
            known = sorted(set(self.measures["measure"]))
            raise InputError(f"no row {measure!r}, {which!r}, {stage!r}; measures: {', '.join(known)}")
        return found

    def plot(self) -> Plot:
        """Rates before and after, with intervals."""
        return rates_figure(self.measures)
