"""Run folders: one folder, one run, its manifest, and stages that survive an interruption.

A run folder is a plain folder with a `manifest.json`. Work is cut into named stages; a stage is marked done
only after everything it wrote is on disk, so a run that was killed continues at the first stage that is not
marked. Files that are not the run's own are never deleted, and a folder that holds something else is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from pydantic import Field

from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import PathLike, inside, read_json, write_json
from tamperlens.base.provenance import PeakMemory, machine, now, versions
from tamperlens.base.schemas import Schema, checked

MANIFEST = "manifest.json"
FORMAT = 1
FRONTIER_FLOPS = 1e25
"""Training compute above which the EU AI Act (Regulation 2024/1689, Art. 51) presumes systemic risk."""


class RunFolder:
    """One run on disk. Make one with `RunFolder.open` (to work) or `RunFolder.read` (to look).

    Attributes:
        path: the folder.
        manifest: the content of `manifest.json`; change it through the methods, which write it at once.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._lock: IO[str] | None = None

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        kind: str,
        config: Mapping[str, Any],
        artefacts: Sequence[str] = (),
        resume: bool = False,
        command: str = "",
        seeds: Mapping[str, int] | None = None,
        wait: float = 0.0,
    ) -> RunFolder:
        """Create a run folder, or reopen one that holds the same run.

        Args:
            path: the folder; made if absent.
            kind: what sort of run, e.g. "audit".
            config: everything that decides the numbers, in JSON terms; compared on reopening.
            artefacts: names (relative) that the run will write; a folder without a manifest that already
                holds one of them is refused, so that foreign files are never overwritten.
            resume: continue (or reread) a run that has finished stages.
            command: the command line or call, for the manifest.
            seeds: named seeds, for the manifest.
            wait: seconds to wait for a folder that is in use.

        Raises:
            RunFolderError: the folder cannot be written, is in use, or holds another run, a finished run
                (without `resume`), or foreign files with the run's names.
        """
        wanted = _plain(config)
        cls.check(path, kind=kind, config=wanted, artefacts=artefacts, resume=resume)
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        lock = _acquire(folder, wait)
        try:
            old = _manifest_of(folder)
            if old is not None and _done(old):
                run = cls(folder, old)
            else:
                run = cls(folder, _fresh(kind, wanted, command, dict(seeds or {})))
            if run.manifest["status"] != "finished":
                run.manifest["status"] = "running"
            if resume and old is not None and _done(old) and not run.finished:
                again: dict[str, Any] = {"at": now(), "command": command}
                if versions() != run.manifest.get("versions"):
                    again["versions"] = versions()
                run.manifest.setdefault("resumed", []).append(again)
            run._write()
        except BaseException:
            _release(lock)
            raise
        run._lock = lock
        return run

    @classmethod
    def check(
        cls,
        path: PathLike,
        *,
        kind: str,
        config: Mapping[str, Any],
        artefacts: Sequence[str] = (),
        resume: bool = False,
    ) -> None:
        """Raise what `open` would raise, writing nothing: call it before anything slow.

        Raises:
            RunFolderError: see `open`.
        """
        folder = Path(path)
        _check_writable(folder)
        manifest = _manifest_of(folder)
        if manifest is None:
            foreign = [name for name in artefacts if (folder / name).exists()]
            if foreign:
                raise RunFolderError(
                    f"{folder} holds {foreign[0]} and no manifest.json, so it is not a run folder; "
                    "choose another folder"
                )
            return
        done = _done(manifest)
        if not done:  # nothing of value there yet: a run that failed on its input may be started over
            return
        if manifest.get("kind") != kind:
            raise RunFolderError(
                f"{folder} holds another run: {_article(manifest.get('kind'))}, not {_article(kind)}; "
                "choose another folder"
            )
        differing = _differences(manifest.get("config", {}), _plain(config))
        if differing:
            key, there, here = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise RunFolderError(
                f"{folder} holds another run: {key} is {there} there and {here} here{more}; "
                "choose another folder or repeat its settings"
            )
        if not resume:
            state = (
                "a finished run"
                if manifest.get("status") == "finished"
                else (f"an unfinished run ({len(done)} finished stages)")
            )
            raise RunFolderError(
                f"{folder} holds {state}; add --resume to go on from it, or choose another folder"
            )

    @classmethod
    def read(cls, path: PathLike) -> RunFolder:
        """An existing run folder, for reading.

        Raises:
            RunFolderError: the folder has no manifest.
        """
        manifest = _manifest_of(Path(path))
        if manifest is None:
            raise RunFolderError(
                f"{path} is not a run folder: it has no manifest.json; name the folder of a run"
            )
        return cls(Path(path), manifest)

    @contextmanager
    def turn(self, wait: float) -> Iterator[RunFolder]:
        """This run, newly read and held for a moment, among processes that share its folder.

        Args:
            wait: seconds to wait for one that holds it now.

        Raises:
            RunFolderError: it is held for longer.
        """
        lock = _acquire(self.path, wait)
        try:
            yield RunFolder.read(self.path)
        finally:
            _release(lock)

    def file(self, *parts: str) -> Path:
        """A path inside the folder; its parent is made.

        Raises:
            RunFolderError: it leads out of the folder.
        """
        target = inside(self.path, self.path.joinpath(*parts))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def done(self, stage: str) -> bool:
        """Whether the stage finished, in this session or an earlier one."""
        return bool(self.manifest["stages"].get(stage, {}).get("done"))

    @property
    def finished(self) -> bool:
        """Whether the whole run finished."""
        return bool(self.manifest.get("status") == "finished")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and mark it done when the body succeeds; a body that raises leaves it undone."""
        memory, began, clock = PeakMemory(), now(), time.perf_counter()
        try:
            yield
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.manifest["status"] = "interrupted" if interrupted else "failed"
            self._write()
            raise
        self.manifest["stages"][name] = {
            "done": True,
            "started": began,
            "wall_seconds": round(time.perf_counter() - clock, 3),
            **memory.read(),
        }
        self._total()
        self._write()

    def pin(self, **hashes: str) -> None:
        """Store hashes of inputs; on a resumed run refuse those that changed.

        Raises:
            RunFolderError: a hash differs from the one stored by an earlier session.
        """
        for name, value in hashes.items():
            there = self.manifest["hashes"].get(name)
            if there is not None and there != value:
                raise RunFolderError(
                    f"{self.path} holds another run: {name} is {there[:12]} there and {value[:12]} here; "
                    "the input changed, so choose another folder"
                )
        self.manifest["hashes"].update(hashes)
        self._write()

    def note(self, **entries: Any) -> None:
        """Add entries to the manifest; mappings are merged into those of the same name."""
        for name, value in entries.items():
            value = _plain(value)
            if isinstance(value, dict) and isinstance(self.manifest.get(name), dict):
                self.manifest[name].update(value)
            else:
                self.manifest[name] = value
        self._write()

    def note_training(self, *, tokens: int, flops: float, formula: str) -> None:
        """Store the training compute and its ratio to 1e25 FLOPs."""
        self.note(
            tokens={"training": tokens},
            training_flops=flops,
            training_flops_ratio_to_1e25=flops / FRONTIER_FLOPS,
            training_flops_formula=formula,
        )

    def finish(self) -> None:
        """Mark the whole run finished."""
        self.manifest["status"] = "finished"
        self.manifest["finished"] = now()
        self._write()

    def close(self) -> None:
        """Let another process use the folder; done by the context manager."""
        if self._lock is not None:
            _release(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interruption between two stages counts as one too.
        if kind is not None and self.manifest.get("status") == "running":
            self.manifest["status"] = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
            self._write()
        self.close()

    def _total(self) -> None:
        stages = self.manifest["stages"].values()
        self.manifest["wall_seconds"] = round(sum(s["wall_seconds"] for s in stages), 3)
        for key in ("peak_rss_bytes", "peak_cuda_bytes"):
            peaks = [s[key] for s in stages if key in s]
            if peaks:
                self.manifest[key] = max(peaks)

    def _write(self) -> None:
        self.manifest["updated"] = now()
        write_json(self.path / MANIFEST, self.manifest)


class _Stage(Schema):
    """One entry of a manifest's stages."""

    done: bool = False
    wall_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    peak_rss_bytes: int = Field(default=0, ge=0)
    peak_cuda_bytes: int = Field(default=0, ge=0)


class _Manifest(Schema):
    """What every manifest of this format holds; studies add entries of their own."""

    kind: str
    status: Literal["running", "interrupted", "failed", "finished"]
    command: str
    created: str
    config: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    versions: dict[str, str]
    platform: dict[str, Any]
    tokens: dict[str, Any]
    stages: dict[str, _Stage]
    resumed: list[dict[str, Any]] = Field(default_factory=list)


def _fresh(kind: str, config: dict[str, Any], command: str, seeds: dict[str, int]) -> dict[str, Any]:
    return {
        "tamperlens_run": FORMAT,
        "kind": kind,
        "status": "running",
        "command": command,
        "created": now(),
        "config": config,
        "seeds": seeds,
        "hashes": {},
        "versions": versions(),
        "platform": machine(),
        "tokens": {},
        "stages": {},
    }


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except Exception as error:
        raise RunFolderError(f"{path} cannot be read ({error}); choose another folder") from error
    if not isinstance(manifest, dict) or "tamperlens_run" not in manifest:
        raise RunFolderError(f"{path} is the manifest of another program; choose another folder")
    if manifest["tamperlens_run"] != FORMAT:
        raise RunFolderError(
            f"{path} has format {manifest['tamperlens_run']}, this version reads {FORMAT}; "
            "choose another folder"
        )
    checked(_Manifest, manifest, path, remedy="delete it or choose another folder", error=RunFolderError)
    return manifest


def _done(manifest: Mapping[str, Any]) -> list[str]:
    return [name for name, stage in manifest.get("stages", {}).items() if stage.get("done")]


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key in [*here, *(key for key in there if key not in here)]:
        if there.get(key) != here.get(key):
            found.append((key, _short(there.get(key)), _short(here.get(key))))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _article(kind: Any) -> str:
    kind = str(kind or "run of unknown kind")
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def _plain(value: Any) -> Any:
    """JSON and back, so that what is compared is what will be read from disk."""
    return json.loads(json.dumps(value, default=str))


def _check_writable(folder: Path) -> None:
    if folder.exists():
        if not folder.is_dir():
            raise RunFolderError(f"cannot write {folder}: it is a file; choose another folder")
        nearest = folder
    else:
        nearest = next((p for p in folder.absolute().parents if p.exists()), Path("/"))
        if not nearest.is_dir():
            raise RunFolderError(f"cannot write {folder}: {nearest} is a file; choose another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunFolderError(f"cannot write {folder}: no permission in {nearest}; choose another folder")


def _unwritable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(f"cannot write {folder}: {error.strerror or error}; choose another folder")


def _acquire(folder: Path, wait: float = 0.0) -> IO[str] | None:
    """An advisory lock that the system lets go even when the process is killed; None where there is none."""
    end = time.monotonic() + wait
    try:
        import fcntl
    except ImportError:
        return None
    try:
        # Never through a link: that would empty whatever file it points to.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.fdopen(os.open(folder / ".lock", flags, 0o666), "r+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _release(lock: IO[str] | None) -> None:
    if lock is not None:
        lock.close()
