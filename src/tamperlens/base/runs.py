"""Run folders: one folder, one run, its manifest, and stages that survive an interruption.

A run folder is a plain folder with a `manifest.json`. Work is cut into named stages; a stage is marked done
only after everything it wrote is on disk, so a run that was killed continues at the first stage that is not
marked. What a stage wrote is held to its hash: a file that was lost since undoes its stage and those after
it, one that was changed is refused. Files that are not the run's own are never deleted, and a folder that
holds something else is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tamperlens.base.artefacts import Known, altered, inventory
from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import PathLike, inside, write_json
from tamperlens.base.locks import acquire, release, unwritable
from tamperlens.base.manifests import (
    MANIFEST,
    article,
    differences,
    done_stages,
    fresh,
    lost_stages,
    manifest_of,
    plain,
    top,
)
from tamperlens.base.provenance import PeakMemory, now, versions

FRONTIER_FLOPS = 1e25
"""Training compute above which the EU AI Act (Regulation 2024/1689, Art. 51) presumes systemic risk."""


class RunFolder:
    """One run on disk. Make one with `RunFolder.open` (to work) or `RunFolder.read` (to look).

    Attributes:
        path: the folder.
        manifest: the content of `manifest.json`; change it through the methods, which write it at once.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], held: Sequence[str] = ()) -> None:
        self.path = path
        self.manifest = manifest
        self._held = held
        self._known: Known = {}
        self._lock: IO[str] | None = None

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        kind: str,
        config: Mapping[str, Any],
        artefacts: Sequence[str] = (),
        held: Sequence[str] | None = None,
        derived: Mapping[str, str] | None = None,
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
            held: those of them whose files are hashed when a stage ends; all by default.
            derived: those that follow from the others, with the stage that makes them again when they are
                lost or changed.
            resume: continue (or reread) a run that has finished stages.
            command: the command line or call, for the manifest.
            seeds: named seeds, for the manifest.
            wait: seconds to wait for a folder that is in use.

        Raises:
            RunFolderError: the folder cannot be written, is in use, or holds another run, a finished run
                (without `resume`), foreign files with the run's names, or a file that was changed since.
        """
        wanted, keep = plain(config), artefacts if held is None else held
        cls.check(path, kind=kind, config=wanted, artefacts=artefacts, derived=derived, resume=resume)
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        lock, run = acquire(folder, wait), None
        try:
            old = manifest_of(folder)
            if old is not None and done_stages(old):
                run = cls(folder, old, keep)
                run._undo(lost_stages(folder, old, derived or {}))
            else:
                run = cls(folder, fresh(kind, wanted, command, dict(seeds or {})), keep)
            if run.manifest["status"] != "finished":
                run.manifest["status"] = "running"
            if resume and old is not None and done_stages(old) and not run.finished:
                again: dict[str, Any] = {"at": now(), "command": command}
                if versions() != run.manifest.get("versions"):
                    again["versions"] = versions()
                run.manifest.setdefault("resumed", []).append(again)
            run._write()
        except BaseException as error:
            # Told to end while the manifest was written, which takes long on a busy disk.
            if (
                isinstance(error, KeyboardInterrupt)
                and run is not None
                and run.manifest["status"] == "running"
            ):
                run.manifest["status"] = "interrupted"
                run._write()
            release(lock)
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
        derived: Mapping[str, str] | None = None,
        resume: bool = False,
    ) -> None:
        """Raise what `open` would raise, writing nothing: call it before anything slow.

        Raises:
            RunFolderError: see `open`.
        """
        folder = Path(path)
        _check_writable(folder)
        manifest = manifest_of(folder)
        if manifest is None:
            foreign = [name for name in artefacts if (folder / name).exists()]
            if foreign:
                raise RunFolderError(
                    f"{folder} holds {foreign[0]} and no manifest.json, so it is not a run folder; "
                    "choose another folder"
                )
            return
        done = done_stages(manifest)
        if not done:  # nothing of value there yet: a run that failed on its input may be started over
            return
        if manifest.get("kind") != kind:
            raise RunFolderError(
                f"{folder} holds another run: {article(manifest.get('kind'))}, not {article(kind)}; "
                "choose another folder"
            )
        differing = differences(manifest.get("config", {}), plain(config))
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
                f"{folder} holds {state}; add resume=True to go on from it, or choose another folder"
            )
        changed = [
            name
            for name, what in altered(folder, manifest).items()
            if what == "changed" and top(name) not in (derived or {})
        ]
        if changed:
            more = f" (nor are {len(changed) - 1} others)" if len(changed) > 1 else ""
            raise RunFolderError(
                f"{folder / changed[0]} is not as the run wrote it{more}; put it back, or delete it and "
                "what rests on it will be made again"
            )

    @classmethod
    def read(cls, path: PathLike) -> RunFolder:
        """An existing run folder, for reading.

        Raises:
            RunFolderError: the folder has no manifest.
        """
        manifest = manifest_of(Path(path))
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
        lock = acquire(self.path, wait)
        try:
            yield RunFolder.read(self.path)
        finally:
            release(lock)

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
        wall = round(time.perf_counter() - clock, 3)
        self.manifest["stages"][name] = {
            "done": True, "started": began, "wall_seconds": wall, **memory.read(),
        }  # fmt: skip
        entries = self.manifest.setdefault("artefacts", {})
        for path, digest in inventory(self.path, self._held, self._known).items():
            if entries.get(path, {}).get("sha256") != digest:
                entries[path] = {"sha256": digest, "stage": name}
        self._total()
        self._write()

    def undo(self, stage: str) -> None:
        """Mark a stage and those after it as not done."""
        self._undo({stage})
        self._write()

    def _undo(self, lost: Iterable[str]) -> None:
        stages = list(self.manifest["stages"])
        first = min((stages.index(name) for name in lost if name in stages), default=len(stages))
        if first == len(stages):
            return
        for name in stages[first:]:
            del self.manifest["stages"][name]
        entries = self.manifest.get("artefacts", {})
        self.manifest["artefacts"] = {k: v for k, v in entries.items() if v["stage"] in stages[:first]}
        self.manifest["status"] = "interrupted"

    def altered(self) -> dict[str, str]:
        """Relative path to "missing" or "changed" for every file that is not what a stage left."""
        return altered(self.path, self.manifest)

    def forget(self, *folders: str) -> None:
        """Hold the files of these folders no longer, because they are about to be removed."""
        for name in list(self.manifest.get("artefacts", {})):
            if name.startswith(tuple(f"{one}/" for one in folders)):
                del self.manifest["artefacts"][name]
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
            value = plain(value)
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
            release(self._lock)
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
