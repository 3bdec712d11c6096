"""Several run folders on one self-contained page, and two of one kind beside each other."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tamperlens import report
from tamperlens.base.errors import InputError, RunFolderError, TamperlensError
from tamperlens.base.files import PathLike, inside, read_csv, read_text
from tamperlens.base.measurement import Difference, Measurement
from tamperlens.base.runs import RunFolder
from tamperlens.base.schemas import read_table
from tamperlens.base.stats import Estimate
from tamperlens.plots.style import themed_svg
from tamperlens.studies.evaluation import OLD_NAMES
from tamperlens.studies.trajectory.folders import MONITOR, blocks_of, holds_run, measured_in, read_run

ROWS = 100
"""Rows of a table that are shown; the rest stays in the CSV."""
TABLES = (
    "changes.csv",
    "measures.csv",
    "results_grid.csv",
    "order.csv",
    "rows.csv",
    "tuned/log.csv",
    "table.csv",
)
_NUMBERS = ("value", "low", "high", "n")
_GRID = ("rrr", "rd", "over_refusal_harmless", "capability")
_HIDDEN = (
    "fingerprint", "address", "reason", "tokens", "cut_from_steps", "definition", "unit", "share_of_1e25",
)  # fmt: skip


def merge(
    runs: Sequence[PathLike], out: PathLike, *, tell: Callable[[str], None] = lambda line: None
) -> Path:
    """Write one page about any run folders: what was run, its tables and figures, and comparisons.

    Two runs of one kind are compared: the settings and hashes that differ, and every measure that both have,
    with the difference and its interval. Nothing is recomputed. A file that cannot be read is left out, and
    so is a run whose manifest cannot, as long as another one is left; the page and `tell` name them.

    Args:
        runs: run folders, finished or not.
        out: the page to write.
        tell: called with a line for everything that was left out.

    Raises:
        InputError: no folders, or one named twice.
        RunFolderError: a folder that holds no run, no run that can be read, or the page cannot be written.
    """
    if not runs:
        raise InputError("report needs at least one run folder")
    places = [os.path.realpath(one) for one in runs]
    if len(set(places)) < len(places):
        raise InputError("report: one run folder is named twice; name each once")
    folders: list[RunFolder] = []
    lost: list[report.Block] = []
    for one in runs:
        try:
            folders.append(read_run(Path(one)))
        except TamperlensError as error:
            if len(runs) == 1 or not holds_run(Path(one)):
                raise
            lost.append(_left_out(f"the run {one}", error, tell))
    if not folders:
        raise RunFolderError("report: none of the runs can be read; see " + ", ".join(map(str, runs)))
    names = _names(folders)
    sections = [report.Section("Left out", lost)] if lost else []
    if len(folders) == 2 and len({folder.manifest.get("kind") for folder in folders}) == 1:
        beside = _part("the comparison", lambda: compare(folders, names), tell)
        sections.append(report.Section("The two beside each other", beside))
    for i, (name, folder) in enumerate(zip(names, folders, strict=True)):
        title = f"{name}: {folder.manifest.get('kind', 'run')}"
        sections.append(report.Section(title, _blocks(folder, f"run-{i}", tell), anchor=f"run-{i}"))
    states = ", ".join(f"{n} ({f.manifest.get('kind')}, {f.manifest.get('status')})"
                       for n, f in zip(names, folders, strict=True))  # fmt: skip
    page = report.Page(
        title=f"{len(folders)} run{'s' if len(folders) > 1 else ''}", headline=states,
        subtitle="Merged from run folders; every number as those runs wrote it.", sections=sections,
    )  # fmt: skip
    return report.write(out, page)


def _part(
    what: str, make: Callable[[], list[report.Block]], tell: Callable[[str], None]
) -> list[report.Block]:
    """The blocks, or a notice of why they are not there."""
    try:
        return make()
    except (TamperlensError, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        # Whatever a damaged file makes a table or figure stumble over, the rest of the page is worth having.
        return [_left_out(what, error, tell)]


def _left_out(what: str, error: Exception, tell: Callable[[str], None]) -> report.Notice:
    said = str(error) if isinstance(error, TamperlensError) else f"{type(error).__name__}: {error}"
    line = f"left out: {what}: {' '.join(said.split())[:400]}"
    tell(line)
    return report.Notice(line)


def compare(folders: Sequence[RunFolder], names: Sequence[str]) -> list[report.Block]:
    """What differs between two runs: settings, and measures with the interval of their difference."""
    one, two = (folder.manifest.get("config", {}) for folder in folders)
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    rows = [(key, _text(one.get(key)), _text(two.get(key))) for key in keys]
    # What a name stands for may have changed: another model under one id, another file under one path.
    mine, theirs = (folder.manifest.get("hashes", {}) for folder in folders)
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            here, there = (str(one.get(key, "not recorded"))[:16] for one in (mine, theirs))
            rows.append((f"{key} (sha256)", here, there))
    blocks: list[report.Block] = []
    if rows:
        blocks.append(
            report.Table(
                "Settings that differ, and hashes of models and prompts.",
                ("setting", *names),
                tuple(rows),
                (0, 1, 2),
            )
        )
    elif mine:
        blocks.append(report.Text(("Both runs have the same settings, models and prompts.",)))
    else:
        words = "Both runs have the same settings; neither recorded hashes of its model and prompts."
        blocks.append(report.Text((words,)))
    pairs = paired(folders)
    if not pairs:
        blocks.append(report.Text(("They have no measure in common.",)))
        return blocks
    same = [one for one in pairs if abs(one.difference.value) < 1e-9]
    apart = [one for one in pairs if one.difference.low > 0 or one.difference.high < 0]
    words = (
        f"Of {len(pairs)} measures that both have, {len(same)} are equal and in {len(apart)} the "
        "interval of the difference leaves zero out."
    )
    blocks.append(report.Text((words,)))
    if len(same) == len(pairs):
        return blocks
    rest = [one for one in pairs if one not in apart and one not in same]
    shown = tuple(
        (
            row.measure,
            _interval(row.difference.value, row.difference.low, row.difference.high),
            _text(row.before),
            _text(row.after),
            str(row.difference.n),
        )
        for row in [*apart, *rest][: 4 * ROWS]
    )
    caption = (
        "Measures that differ; first those whose interval leaves zero out. Difference: second less first. "
        "Its interval is put together from the two runs' own (Newcombe's way) as if they were independent: "
        "too wide where both asked the same prompts. n is the smaller one."
    )
    blocks.append(report.Table(caption, ("measure", "difference", *names, "n"), shown))
    return blocks


def paired(folders: Sequence[RunFolder]) -> list[Difference]:
    """Every measure that two runs have, with their difference, as if they were independent."""
    one, two = (_measured(folder) for folder in folders)
    return [
        Difference(what, "", a.value, b.value, _apart(a, b))
        for what, a in one.items()
        if (b := two.get(what)) is not None
    ]


def _apart(a: Measurement, b: Measurement) -> Estimate:
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, low, high, min(a.n, b.n), "Newcombe 95%, unpaired")


def _measured(folder: RunFolder) -> dict[str, Measurement]:
    """What a run measured, by names that tell its rows apart."""
    found = measured_in(folder)
    audit, grid = folder.path / "measures.csv", folder.path / "results_grid.csv"
    if audit.is_file():
        frame = read_table(inside(folder.path, audit), _NUMBERS, ("measure",))
        for _, row in frame.iterrows():
            made = Measurement.from_row(row.to_dict())
            found[" · ".join(part for part in (made.measure, made.set, made.stage) if part)] = made
    if grid.is_file():
        places = ("model", "attack", "defence", "rank", "data_size", "learning_rate", "steps", "seed")
        # Tables from before measures named their set have the older names.
        there = read_csv(inside(folder.path, grid)).columns
        measures = [one if one in there else OLD_NAMES.get(one, one) for one in _GRID]
        columns = [f"{measure}{end}" for measure in measures for end in ("", "_low", "_high", "_n")]
        frame = read_table(inside(folder.path, grid), columns, places)
        for _, row in frame.iterrows():
            cell = " · ".join(_text(row[part]) for part in places if _text(row[part]))
            for measure in measures:
                named = zip(_NUMBERS, ("", "_low", "_high", "_n"), strict=True)
                made = Measurement.from_row({name: row[f"{measure}{end}"] for name, end in named})
                if not math.isnan(made.value):
                    found[f"{measure}: {cell}"] = made
    return found


def _blocks(folder: RunFolder, name: str, tell: Callable[[str], None]) -> list[report.Block]:
    """What a run found: its figures, its tables, and at the end what it was."""
    blocks: list[report.Block] = []
    if folder.manifest.get("status") != "finished":
        blocks.append(report.Notice(f"This run is {folder.manifest.get('status')}; its numbers are partial."))
    for changed, what in folder.altered().items():
        line = f"{folder.path / changed} is {what} since the run wrote it"
        tell(line)
        blocks.append(report.Notice(f"{line}."))
    blocks += _part(f"what {folder.path} recorded", lambda: blocks_of(folder, name), tell)
    for svg in sorted((folder.path / "figures").glob("*.svg")):
        blocks += _part(str(svg), functools.partial(_figure, folder, name, svg), tell)
    if folder.manifest.get("kind") != MONITOR:
        for table in TABLES:
            path = folder.path / table
            if path.is_file():
                blocks += _part(str(path), functools.partial(_table_of, folder, table), tell)
    return [*blocks, report.Facts(_facts(folder))]


def _figure(folder: RunFolder, name: str, svg: Path) -> list[report.Block]:
    words = svg.stem.replace("_", " ")
    # Prefixed, so that figures of several runs do not draw with each other's marks and clips.
    drawn = themed_svg(read_text(inside(folder.path, svg)), f"{name}-{svg.stem}")
    said = f"As drawn by that run ({svg.name})."
    report.check_drawing(drawn)
    return [report.FigureBlock(f"{name}-{svg.stem}", words, said, words, drawn)]


def _table_of(folder: RunFolder, table: str) -> list[report.Block]:
    return [_table(table, read_csv(inside(folder.path, folder.path / table)))]


def _facts(folder: RunFolder) -> tuple[tuple[str, str], ...]:
    manifest = folder.manifest
    rows = [("folder", str(folder.path)), ("kind", _text(manifest.get("kind")))]
    for key in (
        "status",
        "model",
        "created",
        "finished",
        "wall_seconds",
        "training_flops",
        "counts",
        "command",
    ):
        if manifest.get(key) not in (None, ""):
            rows.append((key.replace("_", " "), _text(manifest[key])))
    for name, value in manifest.get("hashes", {}).items():
        rows.append((name, str(value)))
    packages = manifest.get("versions", {})
    if packages:
        rows.append(("versions", ", ".join(f"{name} {value}" for name, value in packages.items())))
    return tuple(rows)


def _table(name: str, frame: pd.DataFrame) -> report.Table:
    """A run's table with its intervals behind the values: NAME_low and NAME_high, or low and high."""
    columns = {str(c): frame[c] for c in frame if c not in _HIDDEN and not str(c).endswith("_n")}
    plain = next((c for c in ("difference", "value") if c in columns), "")
    for c in list(columns):
        low, high = (f"{c}_low", f"{c}_high") if f"{c}_low" in columns else ("low", "high")
        if low in columns and (low != "low" or c == plain):
            columns[c] = pd.Series(
                [_interval(*map(float, row)) for row in zip(columns[c], columns.pop(low), columns.pop(high),
                                                           strict=True)], dtype=object
            )  # fmt: skip
    more = f"; the first {ROWS} of {len(frame)} rows" if len(frame) > ROWS else ""
    cells = zip(*(column.head(ROWS) for column in columns.values()), strict=True)
    rows = tuple(tuple(_text(value) for value in row) for row in cells)
    words = tuple(i for i, c in enumerate(columns) if i == 0 or not pd.api.types.is_numeric_dtype(frame[c]))
    return report.Table(f"{name}{more}. In brackets: 95 % intervals.", tuple(columns), rows, words)


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Folder names, with as much of their path as tells them apart."""
    short = [Path(os.path.realpath(folder.path)).name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder.path) for folder in folders]


def _interval(value: Any, low: Any, high: Any) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{value:.3g}" if math.isnan(low) else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)
