"""The grid's folder: manifest, pinned hashes, state of every cell, table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import PathLike, write_csv
from tamperlens.base.results import Result
from tamperlens.base.runs import FRONTIER_FLOPS, RunFolder
from tamperlens.base.stats import Estimate, undefined
from tamperlens.grid.declaration import Cell, Grid
from tamperlens.grid.records import (
    DONE,
    FAILED,
    PENDING,
    SKIPPED,
    Baseline,
    Record,
    address,
    baseline_address,
    cell_file,
    model_pin,
    read_baseline,
    read_record,
)
from tamperlens.studies.evaluation import OLD_NAMES

KIND = "grid"
TABLE = "results_grid.csv"
ARTEFACTS = ("cells", "baselines", "training", TABLE, "figures")
MEASURES = (
    "rrr", "ce", "rd", "rd_refused", "over_refusal_harmless", "over_refusal_lookalike", "degenerate_harmful",
    "capability",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A cell with its place and what became of it."""

    cell: Cell
    address: str
    record: Record | None
    broken: str = ""

    @property
    def status(self) -> str:
        """ "done", "failed", "skipped" or "pending"."""
        if self.record is not None:
            return self.record.status
        return FAILED if self.broken else PENDING


@dataclass(frozen=True)
class GridResult(Result):
    """A grid as far as it has come.

    Attributes:
        path: the folder.
        table: one row a cell that is done, and one a model before the attack; results_grid.csv.
        counts: cells done, failed, skipped and pending.
        problems: one line a cell that failed or was skipped.
    """

    path: str
    table: pd.DataFrame
    counts: dict[str, int]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{n} {name}" for name, n in self.counts.items())


def open_folder(grid: Grid, out: PathLike, command: str = "", wait: float = 0.0) -> RunFolder:
    """The folder of a grid to work in, made or gone on with.

    Raises:
        RunFolderError: it holds another grid or another run, is in use, or cannot be written.
    """
    # Cells are held by their addresses, and may be made on other machines.
    return RunFolder.open(out, kind=KIND, config=grid.describe(), artefacts=ARTEFACTS, held=(), resume=True,
                          command=command, wait=wait)  # fmt: skip


def begun(folder: RunFolder) -> None:
    """Something is made: from now on the folder is this grid's, and another declaration is refused."""
    if not folder.done("declared"):
        with folder.stage("declared"):
            pass


def read_folder(out: PathLike) -> tuple[RunFolder, Grid]:
    """An existing grid's folder, for reading.

    Raises:
        RunFolderError: not a grid's folder.
    """
    folder = RunFolder.read(out)
    if folder.manifest.get("kind") != KIND:
        raise RunFolderError(f"{out} holds a {folder.manifest.get('kind')}, not a grid; name a grid's folder")
    return folder, Grid.from_dict(folder.manifest["config"])


def points(grid: Grid, root: Path, manifest: Mapping[str, Any]) -> list[Point]:
    """Every cell with its state, in the order of the declaration."""
    pins, broken = manifest.get("hashes", {}), manifest.get("broken", {})
    found = []
    for cell in grid.cells():
        if model_pin(cell.model) not in pins or cell.model in broken:
            found.append(Point(cell, "", None, str(broken.get(cell.model, ""))))
            continue
        where = address(grid, cell, pins)
        found.append(Point(cell, where, read_record(root, where)))
    return found


def status(out: PathLike) -> GridResult:
    """How far a grid has come; works beside a running one."""
    folder, grid = read_folder(out)
    return result_of(grid, folder)


def result_of(grid: Grid, folder: RunFolder) -> GridResult:
    """Table, counts and problems of a folder."""
    all_points = points(grid, folder.path, folder.manifest)
    counts = dict.fromkeys((DONE, FAILED, SKIPPED, PENDING), 0)
    problems = []
    for point in all_points:
        counts[point.status] += 1
        if point.status in (FAILED, SKIPPED):
            why = point.record.reason if point.record is not None else point.broken
            problems.append(f"{point.status}: {point.cell.label}: {why}")
        elif point.record is None and point.address and cell_file(folder.path, point.address).is_file():
            problems.append(f"{PENDING}: {point.cell.label}: its file is damaged; `grid run` makes it again")
    return GridResult(str(folder.path), table_of(grid, folder, all_points), counts, tuple(problems))


def write_table(grid: Grid, folder: RunFolder) -> GridResult:
    """Write results_grid.csv as far as cells are done."""
    result = result_of(grid, folder)
    write_csv(folder.path / TABLE, result.table)
    return result


def table_of(grid: Grid, folder: RunFolder, all_points: list[Point]) -> pd.DataFrame:
    """One row per model before the attack (attack "none", 0 steps) and per cell that is done."""
    rows = []
    pins = folder.manifest.get("hashes", {})
    for model in grid.models:
        if model_pin(model) not in pins:
            continue
        if (base := read_baseline(folder.path, baseline_address(grid, model, pins))) is not None:
            rows.append(_before(base))
    for point in all_points:
        if point.record is not None and point.record.status == DONE:
            rows.append(_row(point.cell, point.record))
    return pd.DataFrame(rows)


def _before(base: Baseline) -> dict[str, Any]:
    nothing = Estimate(0.0, 0.0, 0.0, 0, "counted")
    cell = {**dict.fromkeys(("rank", "steps", "data_size"), 0), "learning_rate": None, "seed": -1}
    measures = {**base.measures, "flops": nothing}
    whole = Record("", DONE, {}, base.parameters, base.fingerprint, measures, flops=0.0)
    return _numbers({"model": base.model, "attack": "none", "defence": "none", **cell}, whole)


def _row(cell: Cell, record: Record) -> dict[str, Any]:
    return _numbers({**vars(cell), "defence": cell.defence.name}, record)


def _numbers(cell: dict[str, Any], record: Record) -> dict[str, Any]:
    """A row: the cell, every measure with its interval and n, and what it rests on."""
    row = {"model": cell["model"], "parameters": record.parameters, "attack": cell["attack"]}
    row |= {name: cell[name] for name in ("rank", "steps", "data_size")}
    rate = float("nan") if cell["learning_rate"] is None else cell["learning_rate"]
    row |= {"learning_rate": rate, "seed": cell["seed"], "defence": cell["defence"]}
    known = record.measures
    for name in (*MEASURES, "flops"):
        one = known.get(name, known.get(OLD_NAMES.get(name, name), undefined("not measured")))
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_n": one.n}
    return row | {
        "share_of_1e25": record.flops / FRONTIER_FLOPS, "tokens": record.tokens,
        "cut_from_steps": record.cut_from, "fingerprint": record.fingerprint, "address": record.address,
    }  # fmt: skip
