"""Folders of trajectories and monitors, as a report reads them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd

from tamperlens import report
from tamperlens.base.errors import RunFolderError
from tamperlens.base.measurement import Measurement
from tamperlens.base.runs import RunFolder
from tamperlens.base.schemas import Schema, read_document, read_table
from tamperlens.studies.trajectory.result import LOSS, Trajectory, order, read, read_plan

TRAJECTORY, MONITOR = "trajectory", "monitor"
ROWS = "rows.csv"


def holds_run(path: Path) -> bool:
    """Whether a folder looks like a run's."""
    return any((path / name).is_file() for name in ("manifest.json", "plan.json", ROWS))


def read_run(path: Path) -> RunFolder:
    """A run folder of any kind; those of `trajectory.record` and `Monitor` have a plan and get a manifest.

    Raises:
        RunFolderError: none of them.
    """
    plan = path / "plan.json"
    if (path / "manifest.json").is_file():
        return RunFolder.read(path)
    if plan.is_file():
        found = read_plan(path)
        settings = {**found.pop("config"), **found}
        kind = found.get("kind", TRAJECTORY)
        done, begun = _seeds(path), [one for one in path.glob("seed-*") if one.is_dir()]
        state = "finished" if done and len(done) >= len(begun) else "unfinished"
        hashes = {"model": found["fingerprint"], "data": found["data"], "watch": found["watch"]}
        facts = {"kind": kind, "status": state, "model": found["model"], "config": settings}
        return RunFolder(path, {**facts, "hashes": hashes})
    if (path / ROWS).is_file():  # a monitor's from before it had a plan
        bill = path / "monitor.json"
        found = read_document(bill, Schema) if bill.is_file() else {}
        state = "finished" if found else "unfinished"
        return RunFolder(path, {"kind": MONITOR, "status": state, "config": found})
    raise RunFolderError(f"{path} is not a run folder: it has no manifest.json; name the folder of a run")


def blocks_of(folder: RunFolder, name: str) -> list[report.Block]:
    """Order, figure and table of a trajectory; first and last rows of a monitor; nothing of other runs."""
    found = _load(folder)
    if isinstance(found, pd.DataFrame):
        return [_ends(found)]
    if found is None:
        return []
    if not _can_be_ordered(found):
        return [_ends(found.table)]
    result = order(found)
    plot = found.plot(result)
    plot = dataclasses.replace(plot, name=f"{name}-{plot.name}")  # ids of several runs' figures differ
    half = result.half()
    rows = tuple(
        (str(row["measure"]), _said(row["step"], row["low"], row["high"]), f"{row['n_seeds']:.0f}")
        for row in half.to_dict("records")
    )
    cost = found.cost[["recording_seconds", "training_seconds"]].sum()
    spent = f"Recording took {cost.iloc[0]:.1f} s beside {cost.iloc[1]:.1f} s of training."
    said = (result.summary(), spent) if found.cost["training_seconds"].notna().all() else (result.summary(),)
    return [
        report.Text(said),
        report.FigureBlock.of(plot),
        report.Table(f"Step of half the final change, with its interval: {result.rule}.",
                     ("measure", "step", "seeds"), rows),
    ]  # fmt: skip


def measured_in(folder: RunFolder) -> dict[str, Measurement]:
    """Last values and half-change steps of a trajectory, all rows of a monitor; nothing of other runs."""
    found = _load(folder)
    if isinstance(found, pd.DataFrame):
        return _rows_of(found)
    if found is None:
        return {}
    last = found.table["step"] == found.table["step"].max()
    changed = order(found).half().to_dict("records") if _can_be_ordered(found) else []
    half = {
        f"half of the change of {row['measure']} (step)": Measurement.from_row(
            {**row, "value": row["step"], "n": row["n_seeds"]}
        )
        for row in changed
    }
    return {**half, **_rows_of(found.table[last])}


def _can_be_ordered(found: Trajectory) -> bool:
    """Whether there are the three records that an order takes."""
    return found.table.loc[found.table["measure"] != LOSS, "step"].nunique() >= 3


def _rows_of(table: pd.DataFrame) -> dict[str, Measurement]:
    places = [place for place in ("step", "seed") if place in table]
    return {
        " · ".join(
            [str(row["measure"]), *(f"{place} {row[place]:.0f}" for place in places)]
        ): Measurement.from_row(row)
        for row in table.to_dict("records")
    }


def _ends(table: pd.DataFrame) -> report.Table:
    rows = []
    for measure, part in table.groupby("measure", sort=False):
        ends = [part.iloc[i] for i in (0, -1)]
        told = [f"{_said(row['value'], row['low'], row['high'])} (step {row['step']:.0f})" for row in ends]
        rows.append((str(measure), *told, _said(math.nan, ends[0]["null_low"], ends[0]["null_high"])))
    return report.Table(
        "First and last record of each measure with its 95 % interval, and the band of the base against "
        "itself; the others are in rows.csv.",
        ("measure", "first", "last", "null band"), tuple(rows),
    )  # fmt: skip


def _said(value: float, low: float, high: float) -> str:
    band = "" if math.isnan(low) else f"[{low:.3g}, {high:.3g}]"
    return band if math.isnan(value) else f"{value:.3g} {band}".rstrip()


def _seeds(path: Path) -> list[Path]:
    return sorted(path.glob("seed-*.safetensors"))


def _load(folder: RunFolder) -> Trajectory | pd.DataFrame | None:
    """The trajectory of a folder with a plan, the rows of a monitor's without, or None."""
    if folder.manifest.get("kind") not in (TRAJECTORY, MONITOR):
        return None
    if not (folder.path / "plan.json").is_file():
        numbers = ("step", "value", "low", "high", "n", "null_low", "null_high")
        return read_table(folder.path / ROWS, numbers, ("measure",))
    recorded = _seeds(folder.path) or list(folder.path.glob("seed-*/records.jsonl"))
    return read(folder.path) if recorded else None
