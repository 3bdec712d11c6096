"""Progress of long loops: a bar in a terminal or notebook, a line every 30 s in a pipe or log file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tamperlens.base.cells import visible

EVERY = 30.0  # seconds between lines where there is no terminal


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel."""
    python: Any = sys.modules.get("IPython")  # a notebook has it loaded
    return python is not None and hasattr(python.get_ipython(), "kernel")


def quiet_notebook() -> None:
    """In a notebook: no word from other libraries' bars about widgets that are not installed."""
    if in_notebook():
        warnings.filterwarnings("ignore", message="IProgress not found")


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
    if in_notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets a bar of text stands in, which it says
            from tqdm.auto import tqdm  # type: ignore[import-untyped]

            bar = tqdm(total=total, desc=label, leave=False)
        try:
            yield lambda steps: bar.update(steps)
        finally:
            bar.close()
        return
    if not sys.stderr.isatty():
        yield _Lines(total, label, clock)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True)) as shown:
        task = shown.add_task(label, total=total)
        yield lambda steps: shown.advance(task, steps)


def teller(show: bool) -> Callable[[str], None]:
    """What says a line on stderr, with characters that would act on a terminal written out; or nothing."""

    def tell(line: str) -> None:
        if show:
            print(visible(line), file=sys.stderr, flush=True)

    return tell


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
