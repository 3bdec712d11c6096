"""The same work on Ray: one worker a CPU or GPU, tasks given out as workers come free.

A worker that dies is replaced and its task given out again; cells that it had written stay. Ray is imported
here and nowhere else.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tamperlens.base.errors import InputError
from tamperlens.grid.declaration import Grid
from tamperlens.grid.records import FAILED, Record, read_record
from tamperlens.grid.working import UNLOADABLE, Task, Worker

DEATHS = 3
"""How often a task may take its worker down before its cells, or a model its worker before all of its cells,
are recorded as failed."""
ANSWER_SECONDS = 5.0


class RemoteWorker:
    """What a Ray actor is made of.

    Args:
        declaration: of the grid, in JSON terms.
        root: the grid's folder, where this machine has it; a folder of its own is used where it has not.
    """

    def __init__(self, declaration: dict[str, Any], root: str) -> None:
        shared = (Path(root) / "manifest.json").is_file()
        where = Path(root) if shared else Path(tempfile.mkdtemp(prefix="tamperlens-grid-"))
        self.worker = Worker(Grid.from_dict(declaration), where)

    def describe(self, model: str) -> tuple[str, dict[str, str] | str]:
        """("pins", hashes), or ("broken", why the model cannot be loaded)."""
        try:
            return "pins", self.worker.describe(model)
        except UNLOADABLE as error:
            return "broken", f"{type(error).__name__}: {error}"

    def baseline(self, model: str) -> Any:
        """The model before the attack."""
        return self.worker.baseline(model)

    def work(self, task: Task) -> list[Record]:
        """Make the cells of a task."""
        return self.worker.work(task)

    def process(self) -> int:
        """The worker's process id."""
        return os.getpid()


class Pool:
    """A Ray cluster to make cells on.

    Args:
        address: "local", "auto", "host:port" or "ray://host:port".
        workers: how many; one a CPU, or one a `gpus` of the cluster's GPUs, by default.
        gpus: of one worker.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str, workers: int | None, gpus: float) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("ray= needs Ray; pip install 'tamperlens[ray]'") from error
        self.ray, self.gpus = ray, gpus
        self.ours = not ray.is_initialized()
        if self.ours:
            try:
                with _signals_afterwards(ray):
                    _connect(ray, address, workers)
            except BaseException:
                ray.shutdown()
                raise
        there = ray.cluster_resources()
        most = int(there.get("GPU", 0) // gpus) if gpus else int(there.get("CPU", 1))
        if most < 1:
            raise InputError(f"the Ray cluster at {address} has no {gpus:g} GPUs for a worker; lower gpus")
        self.size = most if workers is None else min(workers, most)

    def run(self, session: Any) -> None:
        """Make every cell of a session that is left."""
        try:
            _Driver(self, session).run()
        finally:
            if self.ours:
                self.ray.shutdown()

    def hire(self, session: Any) -> Any:
        """A new worker."""
        kind = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(RemoteWorker)
        return kind.remote(session.grid.describe(), str(session.folder.path.absolute()))


class _Driver:
    """Gives out tasks and takes in records."""

    def __init__(self, pool: Pool, session: Any) -> None:
        self.pool, self.session, self.ray = pool, session, pool.ray
        gone = pool.ray.exceptions
        self.gone = (gone.RayActorError, gone.TaskCancelledError)  # the latter: the worker was told by SIGINT
        self.first: Any = None

    def run(self) -> None:
        left = self._plan()
        idle: list[Any] = []
        hired = 0
        busy: dict[Any, tuple[Any, Task]] = {}
        while left or busy:
            while left and (idle or hired < self.pool.size):
                if not idle:
                    idle.append(self.pool.hire(self.session))
                    hired += 1
                worker, task = idle.pop(), left.pop(0)
                busy[worker.work.remote(task)] = (worker, task)
            ready, _ = self.ray.wait(list(busy), num_returns=1)
            worker, task = busy.pop(ready[0])
            try:
                records = self.ray.get(ready[0])
            except self.gone as error:
                self.ray.kill(worker)
                hired -= 1
                self._died(task, left, error)
                continue
            idle.append(worker)
            self.session.take(records)
            for record in records:
                self.session.told(record)
            self.session.table()

    def _plan(self) -> list[Task]:
        """Pin every model, measure it before the attack, and collect what is left to do."""
        left: list[Task] = []
        for model in self.session.grid.models:
            try:
                kind, found = self._ask("describe", model)
                if kind == "pins":
                    self.session.pin(model, found)
                    self.session.keep(self._ask("baseline", model))
            except self.gone as error:
                kind = "broken"
                found = f"{type(error).__name__}: the worker died {DEATHS} times while reading it"
            if kind == "broken":
                self.session.broken(model, found)
                continue
            left += self.session.tasks(model)
        if self.first is not None:
            self.ray.kill(self.first)
        return left

    def _ask(self, method: str, model: str) -> Any:
        """What the first worker says of a model; another one is hired when it dies."""
        for death in range(1, DEATHS + 1):
            self.first = self.first or self.pool.hire(self.session)
            try:
                return self.ray.get(getattr(self.first, method).remote(model))
            except self.gone:
                self.ray.kill(self.first)
                self.first = None
                if death == DEATHS:
                    raise
                self.session.say(f"a worker died; {model} is read again")
        return None

    def _died(self, task: Task, left: list[Task], error: BaseException) -> None:
        """Give a dead worker's task out again, less the cells that it had finished."""
        root = self.session.folder.path
        open_ = []
        for i, (where, tries) in enumerate(zip(task.addresses, task.attempts, strict=True)):
            made = read_record(root, where)
            if made is None or made.attempts <= tries:  # none, or that of an earlier session
                open_.append(i)
            else:
                self.session.told(made)
        if not open_:
            return
        rest = Task(
            tuple(task.cells[i] for i in open_), tuple(task.addresses[i] for i in open_),
            tuple(task.attempts[i] for i in open_), task.limit, task.deaths + 1,
        )  # fmt: skip
        if rest.deaths >= DEATHS:
            why = f"{type(error).__name__}: the worker died {DEATHS} times while making it"
            self.session.give_up(rest, FAILED, why)
            return
        self.session.say(f"a worker died; {len(open_)} cells of {task.model} are given out again")
        left.insert(0, rest)


@contextmanager
def _signals_afterwards(ray: Any) -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect when the body has ended.

    An exception of a handler that comes while Ray starts its processes is lost (Python ignores those in what
    runs after a fork), and Ray's own handler of SIGTERM would raise one and leave with another exit code.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, frame: heard.append(number)) for one in numbers}
    theirs = getattr(ray._private.utils, "set_sigterm_handler", None)
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = theirs
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        signal.raise_signal(heard[0])


def _connect(ray: Any, address: str, workers: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        try:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **options)
        except Exception as error:  # Ray has no class of its own for it
            why = str(error).splitlines()[0]
            raise InputError(f"Ray did not start here ({why}); try again, or leave ray=local away") from error
        return
    if address != "auto":
        _knock(address)
    try:
        ray.init(address=address, **options)
    except Exception as error:
        raise InputError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); start one with "
            "'ray start --head', or use ray=local"
        ) from error


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would wait for a minute."""
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise InputError(f"Ray address {address!r} is not auto, local, host:port or ray://host:port")
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address!r} ({error}); start one with 'ray start --head', or use "
            "ray=local"
        ) from error
