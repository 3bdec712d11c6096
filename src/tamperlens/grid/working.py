"""The worker: one model loaded, training runs on it, one record a cell."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tamperlens import finetune
from tamperlens.base.errors import (
    AnatomyError,
    ModelLoadError,
    NumericsError,
    RunFolderError,
    UnsupportedModelError,
)
from tamperlens.base.files import sha256_bytes
from tamperlens.base.runs import RunFolder
from tamperlens.base.stats import Estimate
from tamperlens.finetune import Compute, FlopModel, TunedModel
from tamperlens.finetune.compute import Meter
from tamperlens.grid.declaration import Cell, Grid
from tamperlens.grid.measuring import Bench
from tamperlens.grid.memory import too_large
from tamperlens.grid.records import (
    DONE,
    FAILED,
    SKIPPED,
    Baseline,
    Record,
    baseline_address,
    baseline_file,
    cell_file,
    read_baseline,
    read_record,
)
from tamperlens.models import ChatModel

Told = Callable[[Record], None]

UNLOADABLE = (ModelLoadError, AnatomyError, UnsupportedModelError, NumericsError, MemoryError)


@dataclass(frozen=True)
class Task:
    """Cells of one training run that are still to be made, with what a worker must know.

    Attributes:
        cells: shortest first.
        addresses: of the cells, in order.
        attempts: of each cell so far.
        limit: GB that a worker may use; None for what is free.
        deaths: workers that died over it.
    """

    cells: tuple[Cell, ...]
    addresses: tuple[str, ...]
    attempts: tuple[int, ...]
    limit: float | None = None
    deaths: int = 0

    @property
    def model(self) -> str:
        """The model of all of them."""
        return self.cells[0].model


class Worker:
    """Makes cells. Keeps the model of its last task loaded; adapters come and go.

    Args:
        grid: the declaration.
        root: the grid's folder.
    """

    def __init__(self, grid: Grid, root: Path) -> None:
        self.grid, self.root = grid, root
        self._bench: Bench | None = None
        self._baseline: Baseline | None = None

    def bench(self, model: str) -> Bench:
        """The loaded model; the one before is let go first."""
        if self._bench is None or self._bench.name != model:
            self._bench = self._baseline = None
            self._bench = Bench(self.grid, model)
        return self._bench

    def describe(self, model: str) -> dict[str, str]:
        """Hashes of the model and its inputs."""
        return self.bench(model).pins()

    def baseline(self, model: str) -> Baseline:
        """The model before the attack, from its file or measured now."""
        bench = self.bench(model)
        if self._baseline is None:
            where = baseline_address(self.grid, model, bench.pins())
            if read_baseline(self.root, where) is None:
                bench.baseline().save(baseline_file(self.root, where))
            # Read back even when just made, so that a resumed grid computes with the same numbers.
            self._baseline = Baseline.load(baseline_file(self.root, where))
        return self._baseline

    def work(self, task: Task, told: Told = lambda record: None) -> list[Record]:
        """Make the cells of a task, each written as soon as it is measured.

        Errors of a cell go into its record. Those of the folder (a full disk) are raised.
        """
        return _Run(self, task, told).make()


class _Run:
    """One training run and the cells measured in it."""

    def __init__(self, worker: Worker, task: Task, told: Told) -> None:
        self.worker, self.task, self.told = worker, task, told
        self.bench = worker.bench(task.model)
        self.first = task.cells[0].training()
        self.steps = task.cells[-1].steps
        self.made: dict[str, Record] = {}

    def make(self) -> list[Record]:
        try:
            self._train()
        except (RunFolderError, OSError):
            raise
        except Exception as error:
            status = SKIPPED if _out_of_memory(error) else FAILED
            self._rest(status, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return list(self.made.values())

    def _train(self) -> None:
        bench, cell = self.bench, self.first
        config = bench.config(cell, self.steps)
        data = bench.data(cell)
        turns = bench.model.encode_pairs(data, max_length=config.max_length)
        why = too_large(bench.model, config, max(map(len, turns)), self.task.limit)
        if why:
            self._rest(SKIPPED, why)
            return
        baseline = self.worker.baseline(cell.model)
        freeze = bench.mask(cell.defence) if cell.defence.kind == "freeze" else None
        folder = self.worker.root / "training" / f"{name_of_run(self.task)}-{self.steps}"
        _drop_finished(folder)
        cuts = Cuts(self, config, baseline)
        finetune.run(bench.model, data, config, freeze=freeze, recorders=[cuts], out=folder, progress=False)
        shutil.rmtree(folder, ignore_errors=True)

    def measured(self, cell: Cell, cuts: Cuts, tuned: ChatModel) -> None:
        """Measure one cell and write its record; an error becomes the record."""
        where = self.task.addresses[self.task.cells.index(cell)]
        if self._is_there(where):
            return
        began = time.perf_counter()
        meter = cuts.meter
        flops = cuts.flops.flops(meter.positions, meter.squares)
        common: dict[str, Any] = {
            "flops": flops, "tokens": meter.tokens, "sequences": meter.sequences,
            "trained_parameters": cuts.trained, "cut_from": self.steps,
        }  # fmt: skip
        try:
            if cell.defence.kind == "rewind":
                tuned = self._rewound(cell, cuts, tuned)
            measures, labels = self.bench.measure(tuned, cuts.baseline)
        except (RunFolderError, OSError):
            raise
        except Exception as error:
            status = SKIPPED if _out_of_memory(error) else FAILED
            self._write(cell, status, reason=f"{type(error).__name__}: {' '.join(str(error).split())}")
            return
        measures |= {"flops": Estimate(flops, flops, flops, meter.sequences, "counted")}
        self._write(cell, DONE, measures=measures, labels=labels,
                    seconds=round(time.perf_counter() - began, 3), **common)  # fmt: skip

    def _rewound(self, cell: Cell, cuts: Cuts, model: ChatModel) -> ChatModel:
        base = self.bench.model
        nothing = Compute(0, 0, 0, 0, 0, 0.0, "", 0, 0.0, 0.0, "")
        tuned = TunedModel(model, base, cuts.config, "", "", pd.DataFrame(), nothing)
        return finetune.rewind(tuned, base, self.bench.mask(cell.defence)).model

    def _is_there(self, where: str) -> bool:
        old = read_record(self.worker.root, where)
        return where in self.made or (old is not None and old.status == DONE)

    def _rest(self, status: str, reason: str) -> None:
        for cell, where in zip(self.task.cells, self.task.addresses, strict=True):
            if not self._is_there(where):
                self._write(cell, status, reason=reason)

    def _write(self, cell: Cell, status: str, **fields: Any) -> None:
        at = self.task.cells.index(cell)
        model = self.bench.model
        record = Record(
            address=self.task.addresses[at], status=status, cell=dataclasses.asdict(cell),
            parameters=model.n_parameters, fingerprint=model.fingerprint,
            attempts=self.task.attempts[at] + 1, **fields,
        )  # fmt: skip
        record.save(cell_file(self.worker.root, record.address))
        self.made[record.address] = record
        self.told(record)


class Cuts:
    """The recorder that measures cells where their budgets end, without touching the training."""

    name = "cuts"

    def __init__(self, run: _Run, config: Any, baseline: Baseline) -> None:
        self.run, self.config, self.baseline = run, config, baseline
        self.every = math.gcd(*(cell.steps for cell in run.task.cells))
        self.flops: FlopModel = _flop_model(run.bench.model, config)
        self.meter = Meter()
        self.trained = 0

    def follow(self, meter: Meter) -> None:
        """The training's own counts, which checkpoints keep."""
        self.meter = meter

    def start(self, model: ChatModel) -> None:
        """Nothing to do on the untouched model."""

    def record(self, step: int, model: ChatModel) -> list[dict[str, Any]]:
        """Measure where a cell's budget ends."""
        self.trained = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
        for cell in self.run.task.cells:
            if cell.steps == step:
                self.run.measured(cell, self, model)
        return []

    def finish(self) -> None:
        """Nothing is kept here."""


def name_of_run(task: Task) -> str:
    """A name for the folder of a task's training; finetune itself refuses a folder of other inputs."""
    family = json.dumps(dataclasses.asdict(task.cells[0].family()), sort_keys=True)
    return sha256_bytes(family.encode())[:24]


def _flop_model(model: ChatModel, config: Any) -> FlopModel:
    again = config.gradient_checkpointing
    if isinstance(config, finetune.FullConfig):
        return finetune.flop_model(
            model.anatomy, checkpointing=again, unembedding_trained=config.train_embeddings
        )
    paths = finetune.resolve_targets(model, config.targets)
    return finetune.flop_model(model.anatomy, adapted=paths, rank=config.rank, checkpointing=again)


def _drop_finished(folder: Path) -> None:
    """Training that ended without all of its cells (one failed, and is tried again) starts over."""
    if (folder / "manifest.json").is_file() and RunFolder.read(folder).finished:
        shutil.rmtree(folder, ignore_errors=True)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
