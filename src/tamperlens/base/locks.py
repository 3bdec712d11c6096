"""One process at a time in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import PathLike, remove_strays

LOCK = ".lock"
OLD = 3600.0
"""Seconds after which nobody is still writing a temporary file."""


@contextmanager
def locked(folder: PathLike) -> Iterator[Path]:
    """Hold a folder, which is made if absent, against other processes; temporary files of killed ones go.

    Raises:
        RunFolderError: another process holds it, or it cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    lock = acquire(path)
    try:
        yield path
    finally:
        release(lock)


def acquire(folder: Path, wait: float = 0.0) -> IO[str] | None:
    """An advisory lock that the system lets go even when the process is killed; None where there is none.

    Temporary files of killed writers go; where processes share a folder in turns (`wait`), only old ones.

    Raises:
        RunFolderError: another process holds it (for longer than `wait` seconds), or it cannot be written.
    """
    end = time.monotonic() + wait
    try:
        import fcntl
    except ImportError:
        return None
    try:
        # Never through a link: that would empty whatever file it points to.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.fdopen(os.open(folder / LOCK, flags, 0o666), "r+")
    except OSError as error:
        raise unwritable(folder, error) from error
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_strays(folder, older=OLD if wait else 0.0)
            return handle
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
            handle.close()
            raise RunFolderError(
                f"{folder} is in use by another process; wait for it or choose another folder"
            ) from error
        except OSError:  # some network file systems know no locks
            handle.close()
            return None


def release(lock: IO[str] | None) -> None:
    """Let a folder go."""
    if lock is not None:
        lock.close()


def unwritable(folder: Path, error: OSError) -> RunFolderError:
    """The error of a folder that cannot be written."""
    return RunFolderError(f"cannot write {folder}: {error.strerror or error}; choose another folder")
