"""Atomic writes and hashes: a reader never sees half a file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tamperlens.base.cells import each_cell, neutral, plain
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.lazy import pd

PathLike = str | os.PathLike[str]


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the body succeeds.

    The temporary file is removed when the body raises, and `path` keeps its old content.

    Raises:
        RunFolderError: the folder cannot be written, the disk is full, or the path is a pipe or a device.
    """
    target = _target(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {target}: {error.strerror or error}; choose a folder that exists and is writable"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; results are meant to be shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {target}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


_STRAY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp|\.checkpoint-\d+\.tmp")


def remove_strays(folder: PathLike, *, older: float = 0.0) -> None:
    """Delete temporary files that killed writers left in a folder, `older` than so many seconds."""
    for place, inner, files in os.walk(folder):
        for name in filter(_STRAY.fullmatch, [*files, *inner]):
            path = Path(place) / name
            with suppress(OSError):
                if older and time.time() - path.stat().st_mtime < older:
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_target(path: PathLike) -> None:
    """Say before the work, not after it, that its result could not be written there.

    Raises:
        RunFolderError: as `atomic_path` would.
    """
    target = _target(path)
    try:
        if os.path.lexists(target.parent):
            with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent):
                return
        above = next(one for one in target.parents if os.path.lexists(one))
        if above.is_dir() and os.access(above, os.W_OK):
            return
        why = "it is no folder that can be written"
    except OSError as error:
        above, why = target.parent, str(error.strerror or error)
    raise RunFolderError(
        f"cannot write {target}: {above}: {why}; choose a folder that exists and is writable"
    )


def _target(path: PathLike) -> Path:
    target = Path(path)
    if _endless(target):  # renamed onto, /dev/null would be a file from then on
        raise RunFolderError(f"cannot write {target}: it is a pipe or a device; name a file")
    if target.is_dir():
        raise RunFolderError(f"cannot write {target}: it is a folder; name a file in it")
    return target


def regular(path: PathLike) -> Path:
    """The path, when it is no pipe or device, which may never end.

    Raises:
        InputError: it is one.
    """
    if _endless(Path(path)):
        raise InputError(f"{path} is a pipe or a device, not a file; write its content to a file first")
    return Path(path)


def _endless(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # missing, or a name that no file can have: said by who reads or writes
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def inside(folder: PathLike, path: PathLike) -> Path:
    """The path, when it lies in the folder with every link followed.

    Raises:
        RunFolderError: a link leads out of the folder.
    """
    root, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise RunFolderError(f"{path} is a link that leaves {folder}; put the file itself there")
    return Path(path)


def write_text(path: PathLike, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def read_text(path: PathLike) -> str:
    """Read UTF-8 text.

    Raises:
        InputError: the file is missing, or is no such text.
    """
    where = regular(path)
    try:
        return where.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or a name with a NUL character
        raise InputError(f"{path} is damaged ({error}); delete it, it will be made again") from error


def write_json(path: PathLike, value: Any) -> Path:
    """Write JSON atomically; NaN and infinities are written as null so that any reader can load it."""
    return write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def as_read(value: Any) -> Any:
    """What `read_json` gives of a value that `write_json` wrote."""
    return json.loads(json.dumps(_finite(value)))


def read_json(path: PathLike) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); it may be from an interrupted copy") from error


def write_csv(path: PathLike, frame: pd.DataFrame) -> Path:
    """Write a frame as CSV atomically, without its index; cells are made harmless (see `cells.neutral`)."""
    ready = each_cell(frame, neutral)
    with atomic_path(path) as temporary:
        ready.to_csv(temporary, index=False, lineterminator="\n")
    return Path(path)


def read_csv(path: PathLike, **options: Any) -> pd.DataFrame:
    """Read what `write_csv` wrote: numbers to the bit, text as it was; options go to `pandas.read_csv`.

    Raises:
        InputError: the file is missing or is no table.
    """
    # From 3.1 on pandas reads numbers to the bit by default, and the option that asks for it is deprecated.
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
        options = {"float_precision": "round_trip", **options}
    where = regular(path)
    try:
        return each_cell(pd.read_csv(where, **options), plain)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # pandas' own errors and those of the encoding are of this kind
        line = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({line:.120}); delete it, it will be made again") from error


def write_tensors(path: PathLike, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write tensors and JSON metadata into one safetensors file, atomically.

    Args:
        path: target file.
        tensors: name to tensor; each is detached, moved to the CPU and made contiguous.
        metadata: anything JSON can hold; stored under the key `tamperlens` of the header.
    """
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"tamperlens": json.dumps(_finite(metadata), ensure_ascii=False, allow_nan=False)}
    with atomic_path(path) as temporary:
        try:
            save_file(ready, str(temporary), metadata=header)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
    return Path(path)


def read_tensors(path: PathLike) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        InputError: the file is missing, damaged, or was not written by tamperlens.
    """
    where = regular(path)
    try:
        with safe_open(str(where), framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Exception as error:  # safetensors raises its own class, which is not importable in every version
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    if "tamperlens" not in header:
        raise InputError(f"{path} was not written by tamperlens: its header has no 'tamperlens' entry")
    try:
        metadata = json.loads(header["tamperlens"])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its header is not valid JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is damaged: its header is no table of named entries")
    return tensors, metadata


def sha256_bytes(*chunks: bytes) -> str:
    """Hex sha256 over chunks, each preceded by its length so that boundaries count."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "little"))
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(path: PathLike) -> str:
    """Hex sha256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [_finite(item) for item in items]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and callable(value.item) and getattr(value, "ndim", None) == 0:
        return _finite(value.item())
    return value
