"""Progress of long loops: a bar with the time left in a terminal, a line every 30 s in a pipe or log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0  # seconds between lines where there is no terminal


@contextmanager
def progress_bar(
    total: int, label: str, show: bool, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Call what this yields with the number of steps done, as they are done.

    Args:
        total: steps in all.
        label: what they are.
        show: False shows nothing.
        clock: seconds, for tests.
    """
    if not show or total < 1:
        yield lambda steps: None
        return
    if not sys.stderr.isatty():
        yield _Lines(total, label, clock)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


class _Lines:
    def __init__(self, total: int, label: str, clock: Callable[[], float]) -> None:
        self.total, self.label, self.clock, self.done = total, label, clock, 0
        self.begun = self.said = clock()

    def __call__(self, steps: int) -> None:
        self.done += steps
        now = self.clock()
        if now - self.said < EVERY or not self.done:
            return
        self.said = now
        left = (now - self.begun) * max(0, self.total - self.done) / self.done
        print(
            f"{self.label}: {self.done} of {self.total}, about {left:.0f} s left", file=sys.stderr, flush=True
        )
