"""`TrajectoryRecorder`: the observer inside `finetune.run`, with records on disk as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tamperlens.base.files import write_text
from tamperlens.models import ChatModel
from tamperlens.studies.trajectory.observing import Observer
from tamperlens.studies.trajectory.records import Record, append, line, read
from tamperlens.studies.trajectory.schedule import Every, is_due, sampled_by_default


class TrajectoryRecorder:
    """Calls an observer at the due steps. `finetune` sees light rows; draws and examples go to `path`."""

    name = "trajectory"
    every = 1

    def __init__(
        self,
        observer: Observer,
        *,
        every: Every = "log",
        sampled: Every | None = None,
        last: int | None = None,
        path: Path | None = None,
    ) -> None:
        """See the class.

        Args:
            observer: what measures; it may serve several runs.
            every: see `schedule.is_due`.
            sampled: steps at which answers are generated; by default few (`schedule.sampled_by_default`).
            last: the run's last step.
            path: file of records, one JSON object a line; needed to go on after an interruption.
        """
        self.observer, self.last, self.path = observer, last, path
        self.when, self.answers = every, sampled
        self.records: list[Record] = []
        self.due(1)  # refuses nonsense before training

    def start(self, model: ChatModel) -> None:
        """Begin anew; `restore` puts back what there was."""
        self.records = []

    def due(self, step: int) -> bool:
        """Whether a step is measured; `finetune` does not even stop for others."""
        return self._sampled(step) or is_due(self.when, step, self.last)

    def record(self, step: int, model: ChatModel) -> Sequence[Mapping[str, object]]:
        """Measure the model as it is now."""
        record = self.observer.observe(step, model, sampled=self._sampled(step))
        self.records.append(record)
        if self.path is not None:
            append(self.path, record, first=len(self.records) == 1)
        return [{"step": step, "measure": row.measure, "value": row.value} for row in record.rows]

    def restore(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take over the records of an interrupted run, up to where its checkpoint was."""
        until = max((int(str(row["step"])) for row in rows), default=-1)
        assert self.path is not None
        self.records = [record for record in read(self.path) if record.step <= until]
        write_text(self.path, "".join(line(record) for record in self.records))

    def finish(self) -> list[Record]:
        """The records."""
        return self.records

    def _sampled(self, step: int) -> bool:
        if self.answers is None:
            return sampled_by_default(step, self.last)
        return is_due(self.answers, step, self.last)
