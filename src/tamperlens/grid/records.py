"""What a cell leaves on disk: one file under its content's address, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tamperlens.base.errors import InputError
from tamperlens.base.files import sha256_bytes
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.grid.declaration import Cell, Grid
from tamperlens.refusal import Completions

R = TypeVar("R", bound=Result)

DONE, FAILED, SKIPPED, PENDING = "done", "failed", "skipped", "pending"
SETS = ("harmful", "harmless", "lookalike")


@dataclass(frozen=True)
class Record(Result):
    """One cell's outcome.

    Attributes:
        address: sha256 of the declaration, the model's fingerprint and the hashes of all data.
        status: "done", "failed" (with the error) or "skipped" (with the reason).
        cell: the cell's declaration.
        parameters: of the model.
        fingerprint: of the model.
        measures: name to estimate with interval and n.
        labels: verdict per harmful prompt.
        flops: training FLOPs up to this cell's steps, matrix products only.
        tokens: tokens trained on, repetitions counted.
        sequences: examples trained on, repetitions counted.
        trained_parameters: weights that were trained.
        cut_from: steps of the training run that this cell was measured in.
        reason: why it was skipped, or the error.
        attempts: how often it was tried.
        seconds: of measuring; the only field that two runs of one cell may differ in, with `attempts`.
    """

    address: str
    status: str
    cell: dict[str, object]
    parameters: int = 0
    fingerprint: str = ""
    measures: dict[str, Estimate] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    flops: float = math.nan
    tokens: int = 0
    sequences: int = 0
    trained_parameters: int = 0
    cut_from: int = 0
    reason: str = ""
    attempts: int = 1
    seconds: float = 0.0

    def content(self) -> dict[str, str]:
        """Everything that follows from the declaration alone: what two runs of a cell must agree in."""
        body = dataclasses.asdict(self)
        for name in ("seconds", "attempts"):
            body.pop(name)
        # Text, because NaN differs from itself.
        return {name: json.dumps(value, sort_keys=True) for name, value in body.items()}


@dataclass(frozen=True)
class Baseline(Result):
    """The model before any attack.

    Attributes:
        model: as declared.
        fingerprint: of the model.
        parameters: number of weights.
        measures: as in `Record`, less RD.
        completions: answers to the harmful prompts, which RD is measured from.
        language: whose packaged prompts stood in for those not given, "organism" or "english".
    """

    model: str
    fingerprint: str
    parameters: int
    measures: dict[str, Estimate]
    completions: Completions
    language: str = ""


def address(grid: Grid, cell: Cell, pins: Mapping[str, str]) -> str:
    """The cell's content address: its declaration with the hashes of what it rests on.

    Args:
        grid: for the settings that all cells share.
        cell: the cell.
        pins: hashes by name (`pin_names`).

    Raises:
        InputError: a hash is missing.
    """
    names = pin_names(grid, cell)
    missing = [name for name in names if name not in pins]
    if missing:
        raise InputError(f"{cell.label}: the hash of {missing[0]} is not known yet")
    declared = dataclasses.asdict(cell)
    if not cell.defence.utility:
        declared["defence"].pop("utility")  # so that addresses from before there was one still hold
    return _hashed(
        {
            "cell": declared,
            "training": grid.settings,
            "evaluation": grid.evaluation.describe(),
            "dtype": grid.dtype,
            "hashes": {name: pins[name] for name in names},
        }
    )


def baseline_address(grid: Grid, model: str, pins: Mapping[str, str]) -> str:
    """The address of a model's measures before the attack."""
    names = [model_pin(model), *(set_pin(model, name) for name in SETS)]
    return _hashed(
        {
            "model": model,
            "evaluation": grid.evaluation.describe(),
            "dtype": grid.dtype,
            "hashes": {name: pins[name] for name in names},
        }
    )


def pin_names(grid: Grid, cell: Cell) -> list[str]:
    """Names of the hashes that a cell rests on."""
    names = [model_pin(cell.model), data_pin(cell.model, cell.attack, cell.data_size)]
    names += [set_pin(cell.model, name) for name in SETS]
    if cell.defence.mask:
        names.append(file_pin(cell.defence.mask))
    if cell.defence.kind == "mix" or (cell.defence.data and not cell.defence.mask):
        names.append(file_pin(cell.defence.data or "packaged refusals"))
    if cell.defence.utility and cell.defence.select == "safety-critical" and not cell.defence.mask:
        names.append(file_pin(cell.defence.utility))
    return names


def model_pin(model: str) -> str:
    """Name of a model's fingerprint in the manifest."""
    return f"model {model}"


def data_pin(model: str, attack: str, size: int) -> str:
    """Name of an attack's data in the manifest; packaged data are in the model's language."""
    return f"attack {attack} x {size} for {model}"


def set_pin(model: str, which: str) -> str:
    """Name of an evaluation set in the manifest."""
    return f"{which} prompts for {model}"


def file_pin(name: str) -> str:
    """Name of another input in the manifest."""
    return f"input {name}"


def cell_file(root: Path, where: str) -> Path:
    """Where a cell's record lies."""
    return root / "cells" / f"{where}.json"


def baseline_file(root: Path, where: str) -> Path:
    """Where a model's measures before the attack lie."""
    return root / "baselines" / f"{where}.json"


def read_record(root: Path, where: str) -> Record | None:
    """A cell's record, or None where there is none or it is damaged."""
    return _read(cell_file(root, where), Record)


def read_baseline(root: Path, where: str) -> Baseline | None:
    """A model's measures before the attack, or None where there are none or they are damaged."""
    return _read(baseline_file(root, where), Baseline)


def _read(path: Path, kind: type[R]) -> R | None:
    if not path.is_file():
        return None
    try:
        return kind.load(path)
    except InputError as error:  # files are renamed into place, so this is no half of one
        warnings.warn(
            f"{error} (until then it counts as not measured; `grid run` makes it again)", stacklevel=3
        )
        return None


def _hashed(value: Any) -> str:
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())
