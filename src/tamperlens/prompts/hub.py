"""Hugging Face datasets, through the optional extra `datasets`: folders saved on disk, and hub ids."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tamperlens.base.errors import InputError
from tamperlens.prompts.names import KNOWN_COLUMNS
from tamperlens.prompts.tables import SUFFIXES, Table

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_saved_folder(path: Path) -> bool:
    """Whether datasets' `save_to_disk` wrote this folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def is_hub_id(text: str) -> bool:
    """Whether a name that is no local file can be a hub id, "owner/name"."""
    return bool(_HUB_ID.fullmatch(text)) and Path(text).suffix.lower() not in SUFFIXES


def read_folder(path: Path, *, split: str | None, wanted: tuple[str | None, ...]) -> Table:
    """Rows of a saved folder; `wanted` names columns to keep beside the known ones.

    Raises:
        InputError: the extra is not installed, the folder is damaged, or the split is missing or unclear.
    """
    datasets = _library(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises whatever its file formats raise
        raise InputError(f"cannot read the dataset folder {path}: {_line(error)}; save it again") from error
    return table_of(str(path), loaded, split, wanted)


def read_hub(name: str, *, split: str | None, wanted: tuple[str | None, ...]) -> Table:
    """Rows of a data set on the hub, or in the local hub cache. Remote code is never run.

    Raises:
        InputError: the extra is not installed, the hub has no such set or cannot be reached, or the split is
            missing or unclear.
    """
    datasets = _library(name)
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:
        raise InputError(
            f"no file {name}, and the hub data set of that name cannot be loaded ({_line(error)}); check the "
            "name and the network, or save_to_disk it elsewhere and give the folder"
        ) from error
    return table_of(name, loaded, split, wanted)


def _library(what: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"reading {what} needs the optional extra 'datasets': pip install 'tamperlens[datasets]'"
        ) from error


def table_of(source: str, loaded: Any, split: str | None, wanted: tuple[str | None, ...]) -> Table:
    """Rows of a loaded `Dataset` or of one split of a `DatasetDict`.

    Raises:
        InputError: no such split, several and none named, or no rows.
    """
    if isinstance(loaded, Mapping):
        names = list(loaded)
        if split is None and len(names) > 1:
            raise InputError(f"{source} has the splits {', '.join(names)}; choose one with split=")
        split = names[0] if split is None else split
        if split not in loaded:
            raise InputError(f"{source} has no split {split!r}; it has {', '.join(names)}")
        loaded, source = loaded[split], f"{source}, split {split}"
    elif split is not None:
        raise InputError(f"{source} has no splits; leave split= out")
    columns = list(loaded.column_names)
    # Pictures and embeddings beside the text are never decoded.
    kept = [name for name in columns if name in wanted or name.lower() in KNOWN_COLUMNS]
    rows = loaded.select_columns(kept).to_list() if kept else [{} for _ in range(len(loaded))]
    if not len(loaded):
        raise InputError(f"{source} has no rows")
    return Table(source, columns, rows, [f"row {i}" for i in range(1, len(rows) + 1)])


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
