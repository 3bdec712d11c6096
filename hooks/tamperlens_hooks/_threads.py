"""One thread at a time: hooks, modes, zeroed weights and the global random states belong to the process.

A second thread that measures waits until the first has taken its hooks off; the same thread may nest.
"""

from __future__ import annotations

import os
import threading

alone = threading.RLock()
"""Held wherever a module or a global random state is not as everybody else expects it."""

if hasattr(os, "register_at_fork"):  # a forked child has none of the threads that may hold it
    os.register_at_fork(after_in_child=alone._at_fork_reinit)  # type: ignore[attr-defined]
