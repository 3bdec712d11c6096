"""Checkpoints for exact resumption, in safetensors and JSON: nothing is pickled.

A checkpoint holds the trained weights, the optimizer's moments, the schedule, every random state, the log and
the meter. It is written beside its place and renamed onto it, so that a process killed at any moment leaves
whole checkpoints only.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerState

from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import read_tensors, write_json, write_tensors
from tamperlens.base.schemas import Schema, read_document
from tamperlens.finetune import processes, sharding
from tamperlens.finetune.compute import Meter
from tamperlens_hooks.shards import fill, sharded_like
from tamperlens_hooks.state import random_state, set_random_state

KEPT = 2
_PREFIX = "checkpoint-"
_WEIGHTS, _OPTIMIZER, _STATE, _TRAINER = (
    "weights.safetensors",
    "optimizer.safetensors",
    "state.json",
    "trainer_state.json",
)


class SafeCheckpoints(Trainer):  # type: ignore[misc]
    """transformers' Trainer with checkpoints of our own; its other services are as they were.

    Args:
        meter: saved with every checkpoint.
        settings: whatever `Trainer` takes.
    """

    def __init__(self, *, meter: Meter, **settings: Any) -> None:
        super().__init__(**settings)
        self.meter = meter
        self.rows: list[dict[str, Any]] = []

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        states = processes.everyone(random_state())
        state = self.optimizer.state_dict()
        weights = sharding.gathered(sharding.trained(self.model))
        moments = sharding.gathered(
            (f"{index}/{key}", value)
            for index, entry in state["state"].items()
            for key, value in entry.items()
            if isinstance(value, torch.Tensor)
        )
        groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
        processes.by_first(lambda: self._write_checkpoint(states, weights, moments, groups))

    def _write_checkpoint(
        self,
        states: list[dict[str, Any]],
        weights: dict[str, torch.Tensor],
        moments: dict[str, torch.Tensor],
        groups: list[dict[str, Any]],
    ) -> None:
        folder = Path(self.args.output_dir)
        name = f"{_PREFIX}{self.state.global_step}"
        half = folder / f".{name}.tmp"
        shutil.rmtree(half, ignore_errors=True)
        scaler = getattr(self.accelerator, "scaler", None)
        write_tensors(half / _WEIGHTS, weights, {"step": self.state.global_step})
        write_tensors(half / _OPTIMIZER, moments, {"groups": _plain(groups)})
        write_json(
            half / _STATE,
            {
                "random": states,
                "schedule": _plain(self.lr_scheduler.state_dict()),
                "scaler": None if scaler is None else _plain(scaler.state_dict()),
                "meter": vars(self.meter),
                "rows": _plain(self.rows),
            },
        )
        self.state.save_to_json(str(half / _TRAINER))
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        os.replace(half, place)
        for old in checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def take_over(self, checkpoint: Path) -> None:
        """Be where a run was that had made its last step; `train` would make one step more."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / _TRAINER))
        self.callback_handler.on_train_begin(self.args, self.state, self.control)
        self.callback_handler.on_train_end(self.args, self.state, self.control)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        stored, _ = read_tensors(Path(resume_from_checkpoint) / _WEIGHTS)
        trained = sharding.trained(self.model)
        if stored.keys() != trained.keys():
            raise RunFolderError(
                f"{resume_from_checkpoint} holds other weights than this run trains; choose another folder"
            )
        for name, value in stored.items():
            fill(trained[name], value)
        state = _state_of(resume_from_checkpoint)
        vars(self.meter).update(state["meter"])
        self.rows[:] = state["rows"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        moments, header = read_tensors(Path(checkpoint) / _OPTIMIZER)
        state = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Any]] = {}
        for key, value in moments.items():
            index, _, name = key.partition("/")
            like = parameters[int(index)]
            # A step counter is whole everywhere; moments are cut as their weight is.
            moment = sharded_like(value, like) if value.shape == like.shape else value
            entries.setdefault(int(index), {})[name] = moment
        for group, settings in zip(state["param_groups"], header["groups"], strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
        state["state"] = entries
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(_state_of(checkpoint)["schedule"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if checkpoint is not None and scaler is not None:
            scaler.load_state_dict(_state_of(checkpoint)["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(_state_of(checkpoint)["random"][self.args.process_index])


class _State(Schema):
    """What a checkpoint's state.json holds."""

    random: list[dict[str, Any]]
    schedule: dict[str, Any]
    scaler: dict[str, Any] | None
    meter: dict[str, int | float]
    rows: list[dict[str, Any]]


def _state_of(checkpoint: str) -> dict[str, Any]:
    where = Path(checkpoint)
    remedy = f"delete {where.name}, training goes on from the one before"
    return read_document(where / _STATE, _State, remedy=remedy, error=RunFolderError)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in a folder, oldest first."""
    found = [one for one in folder.glob(f"{_PREFIX}*") if (one / _TRAINER).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def _plain(value: Any) -> Any:
    """JSON and back; what JSON cannot hold (functions of a schedule) is left out as None."""
    return json.loads(json.dumps(value, default=lambda one: one.item() if hasattr(one, "item") else None))
