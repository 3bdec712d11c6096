"""`run`: make every cell of a grid that is not there yet, here or on Ray."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.runs import RunFolder
from tamperlens.grid.declaration import Cell, Grid
from tamperlens.grid.folder import GridResult, Point, begun, open_folder, points, write_table
from tamperlens.grid.measuring import check_inputs
from tamperlens.grid.records import (
    DONE,
    PENDING,
    Baseline,
    Record,
    baseline_address,
    baseline_file,
    cell_file,
    read_baseline,
    read_record,
)
from tamperlens.grid.working import UNLOADABLE, Task, Worker

WAIT = 600.0
"""Seconds for which one of several processes on a folder waits for its turn, which takes milliseconds."""


def run(
    grid: Grid | PathLike,
    out: PathLike,
    *,
    ray: str | None = None,
    workers: int | None = None,
    gpus: float = 0,
    retry: bool = False,
    memory: float | None = None,
    shard: str | None = None,
    progress: bool = False,
    command: str = "",
) -> GridResult:
    """Make every cell that is not in the folder yet; call it again after an interruption of any kind.

    Every cell is written whole under an address made of its declaration, its model's fingerprint and the
    hashes of its data, as soon as it is measured. Training goes on from its checkpoints, to the same bits.
    One training run serves all step budgets where the schedule allows (constant, the default here): the
    shorter cells are measured as it passes through them, which `cut_from_steps` says.

    Args:
        grid: the declaration, or a TOML file with one.
        out: the folder; made if absent.
        ray: address of a Ray cluster ("auto", "host:port", "ray://host:port"), or "local" for one on this
            machine; needs the extra `ray`. Where workers do not share the folder's storage, their cells are
            written when a training run ends.
        workers: on Ray; as many as there are CPUs (or GPUs, with `gpus`) by default.
        gpus: of a worker on Ray.
        retry: try failed and skipped cells again.
        memory: GB that a worker may use; cells that need more are skipped. What is free by default.
        shard: "i/n", such as "2/8": only the i-th of n parts of the training runs, from 1 on. Processes with
            all the parts (a Slurm array's jobs) work on one folder at the same time, without Ray; each part
            may be repeated after an interruption.
        progress: say on stderr what is being done.
        command: for the manifest.

    Returns:
        Table, counts, and one line a cell that failed or was skipped; those never stop the others.

    Raises:
        InputError: a declaration that is none, data that cannot be read, no Ray at that address, or a shard
            that is none.
        RunFolderError: the folder holds another grid, or the same one with another model or other data.
    """
    if ray is None and (workers is not None or gpus):
        raise InputError("workers and gpus are of a Ray cluster; name it by ray=local, or leave them away")
    declared = grid if isinstance(grid, Grid) else Grid.from_toml(grid)
    check_inputs(declared)
    pool = None
    if shard is not None:
        part = Shard.parse(shard)
        if ray is not None:
            raise InputError(
                "a shard is one process's part, and ray= spreads the work itself; give one of the two"
            )
        with open_folder(declared, out, command, wait=WAIT) as folder:
            begun(folder)  # from here on it is held for moments only
        session = _Session(declared, folder, retry, memory, progress, part)
        session.serial()
        return session.close()
    if ray is not None:
        from tamperlens.grid.cluster import Pool

        pool = Pool(ray, workers, gpus)
    with open_folder(declared, out, command) as folder:
        session = _Session(declared, folder, retry, memory, progress)
        session.announce()
        if pool is None:
            session.serial()
        else:
            pool.run(session)
        return session.close()


@dataclasses.dataclass(frozen=True)
class Shard:
    """The i-th of n parts of a grid's training runs, from 1 on."""

    i: int
    n: int

    @classmethod
    def parse(cls, words: str) -> Shard:
        """From "i/n".

        Raises:
            InputError: words that are none.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", words.strip())
        made = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= made.i <= made.n:
            raise InputError(f"shard {words!r} must be i/n with i from 1 to n, such as 2/8")
        return made

    def cells(self, grid: Grid) -> set[Cell]:
        """Its cells: whole training runs, dealt out in the order of the declaration."""
        return {cell for group in grid.groups()[self.i - 1 :: self.n] for cell in group}


class _Session:
    """What is the same wherever cells are made."""

    def __init__(
        self,
        grid: Grid,
        folder: RunFolder,
        retry: bool,
        memory: float | None,
        progress: bool,
        shard: Shard | None = None,
    ) -> None:
        self.grid, self.folder, self.retry, self.memory = grid, folder, retry, memory
        self.progress, self.shard = progress, shard
        self.mine = set(grid.cells()) if shard is None else shard.cells(grid)
        self.total = len(self.mine)
        self._tried: set[str] = set()

    def announce(self) -> None:
        """How much there is to do."""
        runs, models = len(self.grid.groups()), len(self.grid.models)
        self.say(f"{self.total} cells in {runs} training runs on {models} model{'s' * (models > 1)}")

    def estimate(self, worker: Worker, tasks: Sequence[Task], before: float) -> None:
        """How long a model's cells will take: each is measured as the model was before the attack.

        Args:
            worker: which has loaded the model.
            tasks: what is left to do.
            before: seconds that measuring the model took just now; hardly any where that was read.
        """
        if not tasks:
            return
        cells = [cell for task in tasks for cell in task.cells]
        there = points(self.grid, self.folder.path, self.folder.manifest)
        measuring = max([before, *(point.record.seconds for point in there if point.record is not None)])
        step = worker.bench(tasks[0].model).step_seconds(cells[0])
        seconds = measuring * len(cells) + step * sum(task.cells[-1].steps for task in tasks)
        said = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
        said = f"{seconds:.0f} s" if seconds < 90 else said
        self.say(f"{tasks[0].model}: {len(cells)} cells in {len(tasks)} training runs, about {said} here")

    def serial(self) -> None:
        """One worker, in this process; models in their order, each loaded once."""
        worker = Worker(self.grid, self.folder.path)
        for model in self.grid.models:
            if not any(cell.model == model for cell in self.mine):
                continue
            try:
                pins = worker.describe(model)
            except UNLOADABLE as error:
                self.broken(model, f"{type(error).__name__}: {error}")
                continue
            self.pin(model, pins)
            began = time.perf_counter()
            worker.baseline(model)
            tasks = self.tasks(model)
            if self.progress:
                self.estimate(worker, tasks, time.perf_counter() - began)
            for task in tasks:
                worker.work(task, self.told)
            self.table()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder for a moment: with a shard others work in it too, and what they wrote is read first."""
        if self.shard is None:
            yield
            return
        with self.folder.turn(WAIT) as self.folder:
            yield

    def pin(self, model: str, pins: dict[str, str]) -> None:
        """Hold hashes against those of earlier sessions."""
        with self.held():
            self._pin(model, pins)

    def _pin(self, model: str, pins: dict[str, str]) -> None:
        self.folder.pin(**pins)
        broken = dict(self.folder.manifest.get("broken", {}))
        if broken.pop(model, None) is not None:
            self.folder.manifest["broken"] = broken
            self.folder.note(repaired=model)

    def broken(self, model: str, why: str) -> None:
        """A model that cannot be loaded fails its cells, and no others."""
        why = " ".join(why.split())
        with self.held():
            self.folder.note(broken={model: why})
        self.say(f"failed: {model}: {why}")

    def tasks(self, model: str) -> list[Task]:
        """What is left to do of one model, by training run."""
        left: dict[object, Point] = {}
        for point in points(self.grid, self.folder.path, self.folder.manifest):
            if point.cell.model == model and point.cell in self.mine and self._wanted(point):
                left[point.cell] = point
        made = []
        for group in self.grid.groups([point.cell for point in left.values()]):
            chosen = [left[cell] for cell in group]
            tries = tuple(0 if p.record is None else p.record.attempts for p in chosen)
            made.append(Task(tuple(group), tuple(p.address for p in chosen), tries, self.memory))
        return made

    def _wanted(self, point: Point) -> bool:
        if point.status == PENDING:
            return True
        return self.retry and point.status != DONE and point.record is not None

    def take(self, records: Sequence[Record]) -> None:
        """Write records that a worker without this folder has made."""
        for record in records:
            old = read_record(self.folder.path, record.address)
            if old is None or (old.status != DONE and old.attempts < record.attempts):
                record.save(cell_file(self.folder.path, record.address))

    def keep(self, baseline: Baseline) -> None:
        """Write the measures before the attack that a worker without this folder has made."""
        pins = self.folder.manifest["hashes"]
        where = baseline_address(self.grid, baseline.model, pins)
        if read_baseline(self.folder.path, where) is None:
            baseline.save(baseline_file(self.folder.path, where))

    def give_up(self, task: Task, status: str, reason: str) -> None:
        """Record cells that no worker could make."""
        for cell, where, tries in zip(task.cells, task.addresses, task.attempts, strict=True):
            record = Record(where, status, dataclasses.asdict(cell), reason=reason, attempts=tries + 1)
            record.save(cell_file(self.folder.path, where))
            self.told(record)

    def told(self, record: Record) -> None:
        """A cell was made."""
        self._tried.add(record.address)
        if record.status == DONE:
            begun(self.folder)
        cell = record.cell
        short = f"{cell['model']}, {cell['attack']}, rank {cell['rank']}, {cell['steps']} steps"
        found = f"RRR {record.measures['rrr']}" if record.status == DONE else record.reason
        self.say(
            f"{len(self._tried)} of {self.total}: {short}, seed {cell['seed']}: {record.status}: {found}"
        )

    def say(self, line: str) -> None:
        """One line on stderr."""
        if self.progress:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def table(self) -> GridResult:
        """Write the table as far as it goes."""
        with self.held():
            return write_table(self.grid, self.folder)

    def close(self) -> GridResult:
        """The table, and the state in the manifest; the folder stays open to further sessions."""
        with self.held():
            return self._closed()

    def _closed(self) -> GridResult:
        result = write_table(self.grid, self.folder)
        self.folder.note(counts=result.counts)
        if result.counts[DONE] == len(self.grid.cells()):
            shutil.rmtree(self.folder.path / "training", ignore_errors=True)
            total = float(result.table["flops"].sum()) if len(result.table) else 0.0
            tokens = int(result.table["tokens"].sum()) if len(result.table) else 0
            self.folder.note(attack_flops_over_cells=total, attack_tokens_over_cells=tokens)
            self.folder.finish()
        return result
