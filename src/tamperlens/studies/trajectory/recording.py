"""Fine-tune once per seed and record everything on the way."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamperlens import finetune
from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike, as_read, write_json
from tamperlens.base.locks import LOCK, locked
from tamperlens.base.masks import WeightMask
from tamperlens.finetune.arguments import steps_of
from tamperlens.finetune.fitting import settle
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import PromptsLike
from tamperlens.studies.trajectory.observing import Observer
from tamperlens.studies.trajectory.recorder import TrajectoryRecorder
from tamperlens.studies.trajectory.result import Trajectory, joined, plan_of, read_plan, trajectory_of
from tamperlens.studies.trajectory.schedule import Every
from tamperlens.studies.trajectory.setup import Setup, setup_for


@renamed_arguments(watch="setup")
def record(
    model: ModelLike,
    attack: finetune.Attack | PromptsLike | None = None,
    config: finetune.LoraConfig | finetune.FullConfig | None = None,
    *,
    measures: Sequence[str] | None = None,
    every: Every = "log",
    sampled: Every | None = None,
    freeze: WeightMask | None = None,
    seeds: int | Sequence[int] = 3,
    out: PathLike | None = None,
    setup: Setup | None = None,
    progress: bool = False,
    **settings: object,
) -> Trajectory:
    """Fine-tune once per seed and record everything on the way.

    Prompts, direction, answers of the base and resamples are fixed before the first step and are the same for
    all seeds. The base is measured once, before training; that time is `setup_seconds` and no part of the
    overhead, which at default settings on the organism (500 benign examples, 63 steps) is a quarter of the
    training time. A record costs about as much as two steps whatever the run's length, so that short runs
    bear more: of 20 steps, as much as the training itself.

    Args:
        model: the base; it is left as it was.
        attack: a `finetune.attacks` attack, or prompts with responses; `attacks.benign()` by default.
        config: settings of the fine-tuning; an attack brings its own.
        measures: some of `MEASURES`: "drift", "direction" (cosine, angle, projection gap), "log-odds"
            (refusal of harmful, over-refusal of harmless prompts), "kl" (per token), "loss" (on the base's
            own answers to harmless prompts) and "heads" are measured at every record; "rates" (refusal,
            over-refusal of look-alikes, degenerate answers), "rd" and "capability" need
            generated answers and are measured at `sampled` steps.
        every: "log" (0, 1, 2, 4, 8, 16, …), n for every n-th step, or a list of steps; step 0 and
            the last step are always recorded.
        sampled: the same for generated answers; by default 0, 64, 256, 1024, … and the last step.
        freeze: weights that must not move (`finetune.run`).
        seeds: how many runs (seeds 0, 1, …), or which.
        out: folder; a run that was killed goes on from there, and finished seeds are read.
        setup: fixed prompts and direction at hand, instead of `measures` and `settings`.
        progress: show a bar.
        settings: of `setup_for`: harmful, harmless, lookalike, direction, groups, judge, limit, …

    Raises:
        InputError: an unknown measure or schedule, too few prompts, or settings that do not fit.
        RunFolderError: `out` holds another trajectory.
    """
    model = as_chat_model(model)
    attack = finetune.attacks.benign() if attack is None else attack
    prompts, settled = settle(model, attack, config, None)
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"seeds={seeds!r} must be a number of at least 1, or different seeds")
    given: Any = settings
    asked = setup_for(model, measures=measures, **given) if setup is None else setup
    last = steps_of(settled, len(prompts))
    name = getattr(attack, "name", prompts.name)
    plan = plan_of(
        asked, kind="trajectory", model=model.name, fingerprint=model.fingerprint, attack=str(name),
        data=prompts.sha256, config=settled.describe(), every=every, sampled=sampled,
        frozen=0 if freeze is None else freeze.count,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tamperlens-") as spare, locked(out or spare) as root:
        _claim(root, plan)
        runner = _Runner(model, asked, prompts, settled, freeze, root, out is not None, progress)
        parts = [runner.run(seed, every, sampled, last) for seed in numbers]
    return joined(parts, str(name))


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan into an empty folder; refuse one that holds another trajectory."""
    note = folder / "plan.json"
    if note.is_file():
        before, now = read_plan(folder), as_read(plan)
        differing = [key for key in now if before.get(key) != now[key]]
        if differing:
            raise RunFolderError(
                f"{folder} holds another trajectory (other {', '.join(differing)}); choose another folder"
            )
    elif any(one.name != LOCK for one in folder.iterdir()):
        raise RunFolderError(f"{folder} holds something else; choose an empty folder")
    else:
        write_json(note, plan)


@dataclass
class _Runner:
    """One run per seed; the base is observed when the first of them needs it."""

    model: ChatModel
    setup: Setup
    prompts: Any
    config: Any
    freeze: WeightMask | None
    root: Path
    keep: bool
    progress: bool
    setup_seconds: float = 0.0
    observer: Observer | None = None

    def run(self, seed: int, every: Every, sampled: Every | None, last: int) -> Trajectory:
        """The trajectory of one seed, read where it is finished."""
        done = self.root / f"seed-{seed}.safetensors"
        if done.is_file():
            return Trajectory.load(done)
        work = self.root / f"seed-{seed}"
        if (work / "run" / "tuned").is_dir():
            shutil.rmtree(work)  # killed between its last step and its record: what it recorded last is lost
        spent = self.setup_seconds
        if self.observer is None:
            self.observer = self._observer()
        recorder = TrajectoryRecorder(
            self.observer, every=every, sampled=sampled, last=last,
            path=work / "records.jsonl" if self.keep else None,
        )  # fmt: skip
        tuned = finetune.run(
            self.model, self.prompts, dataclasses.replace(self.config, seed=seed), freeze=self.freeze,
            recorders=[recorder], out=work / "run" if self.keep else None, progress=self.progress,
        )  # fmt: skip
        bill = tuned.accounting
        found = trajectory_of(
            recorder.records, seed, self.setup, model=tuned.base.name, fingerprint=tuned.base.fingerprint,
            attack=tuned.data, losses=list(zip(tuned.log["step"], tuned.log["loss"], strict=True)),
            steps=bill.steps, training_seconds=bill.wall_seconds, recording_seconds=bill.recorder_seconds,
            flops=float(bill.flops), frozen=0 if tuned.frozen is None else tuned.frozen.count,
            setup_seconds=self.setup_seconds - spent,
        )  # fmt: skip
        if self.keep:
            found.save(done)
        return found

    def _observer(self) -> Observer:
        import time

        began = time.perf_counter()
        made = Observer(self.setup, self.model)
        self.setup_seconds += time.perf_counter() - began
        return made
