"""A trajectory after the fact: the checkpoints that any training left, against their base."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike, read_json, write_json
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.studies.opening import checkpoints, pair_with, step_of
from tamperlens.studies.trajectory.observing import Observer
from tamperlens.studies.trajectory.result import Trajectory, joined, plan_of, trajectory_of
from tamperlens.studies.trajectory.setup import Setup, setup_for

Folders = PathLike | Sequence[PathLike]


def over(
    base: ModelLike,
    folders: Folders,
    *,
    setup: Setup | None = None,
    out: PathLike | None = None,
    **settings: object,
) -> Trajectory:
    """Measure the checkpoints of a finished training, in the order of their steps.

    Prompts, direction, answers of the base and resamples are fixed by the base, as in `record`; the result is
    what `record` gives, `order` and `write_page` included. Step 0 is the base.

    Args:
        base: the model before training.
        folders: a training folder with `checkpoint-N` folders (Trainer, TRL: whole models or adapters),
            several of them (one run, or seed, each), or the checkpoints of one run.
        setup: fixed prompts and direction at hand, instead of `settings`.
        out: folder for the trajectory, which `read` and a report read.
        settings: of `setup_for`: harmful, harmless, lookalike, direction, measures, judge, limit, …

    Raises:
        InputError: no checkpoints, checkpoints of two runs in one folder, or one that does not fit the base.
        RunFolderError: `out` holds something else.

    Examples:
        >>> found = over("organism", "trl-output")  # doctest: +SKIP
        >>> order(found).summary()  # doctest: +SKIP
    """
    model = as_chat_model(base, what="base")
    runs = _runs(folders)
    root = None if out is None else Path(out)
    if root is not None and root.is_dir() and any(root.iterdir()):
        raise RunFolderError(f"{root} is not empty; choose another folder")
    began = time.perf_counter()
    asked = setup_for(model, **cast("dict[str, Any]", settings)) if setup is None else setup
    observer = Observer(asked, model)
    first = time.perf_counter() - began
    named: dict[str, Any] = {"model": model.name, "fingerprint": model.fingerprint, "attack": _name(folders)}
    parts = []
    for seed, run in enumerate(runs):
        records, spent = [observer.start], 0.0
        for step, place in run.items():
            pair = pair_with(model, str(place))
            if pair.no_inside or pair.no_logits:
                raise InputError(
                    f"{place} is no checkpoint of {model.name}: {pair.no_inside or pair.no_logits}"
                )
            began = time.perf_counter()
            records.append(observer.observe(step, pair.tuned, sampled=True))
            spent += time.perf_counter() - began
            del pair
        last = list(run)[-1]
        part = trajectory_of(
            records, seed, asked, losses=_losses(run[last]), steps=last, recording_seconds=spent,
            setup_seconds=first if seed == 0 else 0.0, **named,
        )  # fmt: skip
        parts.append(part)
    found = joined(parts, named["attack"])
    if root is not None:
        listed = [str(place) for run in runs for place in run.values()]
        plan = plan_of(asked, kind="trajectory", **named, data="", config={"checkpoints": listed}, frozen=0)
        for part in parts:
            part.save(root / f"seed-{part.seeds[0]}.safetensors")
        write_json(root / "plan.json", plan)
    return found


def _runs(folders: Folders) -> list[dict[int, Path]]:
    """Step to checkpoint, run by run."""
    given = [folders] if isinstance(folders, (str, os.PathLike)) else list(folders)
    if not given:
        raise InputError("there are no checkpoints; name a training folder, or its checkpoints")
    paths = [Path(one).expanduser() for one in given]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"no folder {str(path)!r}; name a training folder, or its checkpoints")
    holding = [checkpoints(path) for path in paths]
    if all(holding):
        return [_by_step(found) for found in holding]
    if any(holding):
        raise InputError("training folders and single checkpoints together; name either")
    if any(step_of(path) is None for path in paths):
        unnamed = next(path for path in paths if step_of(path) is None)
        raise InputError(f"{unnamed} holds no checkpoint-N folders and is none; name a training folder")
    return [_by_step(sorted(paths, key=lambda path: step_of(path) or 0))]


def _by_step(paths: Sequence[Path]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in paths:
        step = step_of(path) or 0
        if step in found:
            raise InputError(
                f"{found[step]} and {path} are of the same step; name the checkpoints of one run"
            )
        found[step] = path
    if 0 in found and len(found) > 1:
        del found[0]  # the base is step 0
    return found


def _losses(checkpoint: Path) -> list[tuple[int, float]]:
    state = checkpoint / "trainer_state.json"
    rows = read_json(state).get("log_history", []) if state.is_file() else []
    return [(int(row["step"]), float(row["loss"])) for row in rows if "loss" in row]


def _name(folders: Folders) -> str:
    first = Path(folders if isinstance(folders, (str, os.PathLike)) else folders[0])
    return first.parent.name if step_of(first) is not None else first.name
