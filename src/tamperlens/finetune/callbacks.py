"""What happens around the steps: recorders, the progress bar, the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Recorder
from tamperlens.finetune import processes
from tamperlens.finetune.compute import Meter
from tamperlens.finetune.sharding import Mirror
from tamperlens.models import ChatModel
from tamperlens_hooks import preserve_state


class Recording(TrainerCallback):  # type: ignore[misc]
    """Calls each recorder at step 0, at every `every`-th step (its attribute, 1 by default) and at the end.

    A recorder sees the model in evaluation mode and may do with it what leaves the weights alone: training
    flags, gradients and random states are put back, so that watching changes nothing.
    """

    def __init__(
        self,
        recorders: Sequence[Recorder],
        base: ChatModel,
        tuned: ChatModel,
        rows: list[dict[str, Any]],
        meter: Meter,
        mirror: Mirror | None = None,
    ) -> None:
        self.mirror = mirror
        self.recorders = list(recorders)
        self.base, self.tuned, self.rows, self.meter = base, tuned, rows, meter
        self.every = [_every(one) for one in recorders]
        self.names = _names(recorders)
        self.last: list[int | None] = [None] * len(self.recorders)

    def start(self) -> None:
        """Hand every recorder the untouched model."""
        with self._measuring():
            for recorder in self.recorders:
                if hasattr(recorder, "follow"):
                    recorder.follow(self.meter)
                recorder.start(self.base)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Step 0; or, in a resumed run, the rows of earlier sessions, for recorders that have `restore`."""
        if state.global_step == 0:
            self._record(0, final=True)
            return
        for i, (name, recorder) in enumerate(zip(self.names, self.recorders, strict=True)):
            mine = [row for row in self.rows if row["recorder"] == name]
            if mine and mine[-1]["step"] == state.global_step:
                self.last[i] = int(state.global_step)
            if hasattr(recorder, "restore"):
                recorder.restore([{k: v for k, v in row.items() if k != "recorder"} for row in mine])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an update."""
        self._record(int(state.global_step), final=state.global_step >= state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The end, for runs that stop early."""
        self._record(int(state.global_step), final=True)

    def finish(self) -> tuple[Any, ...]:
        """Every recorder's result, in order."""
        with self._measuring():
            return tuple(recorder.finish() for recorder in self.recorders)

    def _record(self, step: int, *, final: bool) -> None:
        due = [
            i
            for i, every in enumerate(self.every)
            if (final or (step % every == 0 and _wanted(self.recorders[i], step))) and self.last[i] != step
        ]
        if self.mirror is not None:
            # The first process knows who is due, and all must bring their slices.
            if processes.numbers([len(due)], processes.trains_on(self.base))[0] == [0]:
                return
            self.mirror.refresh()
        if not due:
            return
        with self._measuring():
            for i in due:
                self.last[i] = step
                rows = self.recorders[i].record(step, self.tuned)
                for row in rows:
                    self.rows.append({"recorder": self.names[i], **_with_step(row, step, self.names[i])})

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """The model's state is preserved, and the time goes on the meter."""
        began = time.perf_counter()
        try:
            with preserve_state(self.tuned.module, rng=True, grad=True):
                yield
        finally:
            self.meter.recorder_seconds += time.perf_counter() - began


class Follow(TrainerCallback):  # type: ignore[misc]
    """A bar with the loss, and steps and seconds on the meter."""

    def __init__(self, meter: Meter, show: bool) -> None:
        self.meter, self.show = meter, show
        self.began = 0.0
        self.bar: Any = None
        self.task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock and open the bar."""
        # Seconds of earlier sessions count, those of recorders do not.
        self.began = time.perf_counter() - self.meter.wall_seconds - self.meter.recorder_seconds
        if not self.show:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("fine-tuning"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            transient=True,
        )
        self.bar.start()
        self.task = self.bar.add_task("steps", total=state.max_steps, completed=state.global_step, loss="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step further."""
        self.meter.steps = int(state.global_step)
        self.meter.wall_seconds = time.perf_counter() - self.began - self.meter.recorder_seconds
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.update(self.task, loss=f"loss {logs['loss']:.3f}")

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def check_recorders(recorders: Sequence[Any]) -> None:
    """Refuse what is no recorder, before anything slow.

    Raises:
        InputError: one that lacks start, record or finish, or whose `every` is not a positive number.
    """
    for one in recorders:
        if not isinstance(one, Recorder):
            raise InputError(f"{type(one).__name__} is no recorder; it needs start, record and finish")
        _every(one)


def _every(recorder: Any) -> int:
    every = getattr(recorder, "every", 1)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InputError(
            f"{type(recorder).__name__}.every is {every!r}; it must be a whole number of at least 1"
        )
    return every


def _wanted(recorder: Any, step: int) -> bool:
    """What a recorder that picks its own steps says."""
    due = getattr(recorder, "due", None)
    return due is None or bool(due(step))


def _names(recorders: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for one in recorders:
        name = str(getattr(one, "name", type(one).__name__))
        same = sum(known == name or known.startswith(f"{name}-") for known in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names


def _with_step(row: object, step: int, name: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"recorder {name} returned a {type(row).__name__} where a row (a mapping) is wanted")
    return {"step": step, **row}
