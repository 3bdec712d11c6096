"""Two contestants taking turns in one process, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def ratio(over: Callable[[], Any], under: Callable[[], Any], repetitions: int) -> tuple[float, float, float]:
    """(median of over / under, median seconds of each), the two taking turns."""
    over(), under()
    pairs = []
    for turn in range(repetitions):
        seconds = {}
        for name, run in (("o", over), ("u", under))[:: 1 if turn % 2 else -1]:
            clock = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - clock
        pairs.append((seconds["o"], seconds["u"]))
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return statistics.median(a / b for a, b in pairs), medians[0], medians[1]
