"""What a run wrote, by hash: a file that was lost or changed since is not trusted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tamperlens.base.files import sha256_file

_OF_NESTED_RUNS = ("manifest.json", ".lock")  # a run inside a run changes these whenever it is opened
_PASSING = ("checkpoints",)


Known = dict[str, tuple[int, int, str]]
"""Path to size, time of change and hash, so that what stays is hashed once."""


def inventory(folder: Path, names: Iterable[str], known: Known) -> dict[str, str]:
    """Relative path to sha256 of every file that lies under these names; `known` is brought up to date."""
    found = {}
    for path in _files(folder, names):
        name, state = str(path.relative_to(folder)), path.stat()
        old = known.get(name)
        if old is None or old[:2] != (state.st_size, state.st_mtime_ns):
            known[name] = (state.st_size, state.st_mtime_ns, sha256_file(path))
        found[name] = known[name][2]
    return found


def _files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in [one for one in names if one not in _PASSING]:
        top = folder / name
        if top.is_file():
            yield top
        for place, inner, files in os.walk(top):  # which follows no links
            inner[:] = sorted(one for one in inner if one not in _PASSING)
            for one in sorted(files):
                path = Path(place) / one
                if not one.endswith(".tmp") and one not in _OF_NESTED_RUNS and path.is_file():
                    yield path


def altered(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Relative path to "missing" or "changed" for every file that is not what a finished stage left."""
    found = {}
    for name, entry in manifest.get("artefacts", {}).items():
        path = folder / name
        if not path.is_file():
            found[name] = "missing"
        elif sha256_file(path) != entry["sha256"]:
            found[name] = "changed"
    return found
