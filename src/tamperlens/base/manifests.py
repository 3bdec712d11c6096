"""`manifest.json`: what it holds, how it is read, and what it says of the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tamperlens.base.artefacts import altered
from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import read_json
from tamperlens.base.provenance import machine, now, versions
from tamperlens.base.schemas import Schema, checked

MANIFEST = "manifest.json"
FORMAT = 1


class _Stage(Schema):
    """One entry of a manifest's stages."""

    done: bool = False
    wall_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    peak_rss_bytes: int = Field(default=0, ge=0)
    peak_cuda_bytes: int = Field(default=0, ge=0)


class _Artefact(Schema):
    """A file that a stage left."""

    sha256: str
    stage: str


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
    artefacts: dict[str, _Artefact] = Field(default_factory=dict)
    resumed: list[dict[str, Any]] = Field(default_factory=list)


def fresh(kind: str, config: dict[str, Any], command: str, seeds: dict[str, int]) -> dict[str, Any]:
    """The manifest of a run that begins."""
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
        "artefacts": {},
    }


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, checked; None where there is none.

    Raises:
        RunFolderError: it cannot be read, or is not one of this format.
    """
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


def done_stages(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the stages that are done, in order."""
    return [name for name, stage in manifest.get("stages", {}).items() if stage.get("done")]


def top(name: str) -> str:
    """The first part of a relative path."""
    return name.split("/", 1)[0]


def lost_stages(folder: Path, manifest: Mapping[str, Any], derived: Mapping[str, str]) -> set[str]:
    """Stages that must be done again because what they left is gone, or follows from what it no longer is."""
    entries = manifest.get("artefacts", {})
    gone = altered(folder, manifest)
    lost = {entries[name]["stage"] for name in gone if top(name) not in derived}
    # A kill may have come in the middle of a stage that writes these anew.
    if manifest["status"] == "finished":
        lost |= {derived[top(name)] for name in gone if top(name) in derived}
        lost |= {stage for name, stage in derived.items() if not (folder / name).exists()}
    return lost


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, there, here) of every setting that differs."""
    found = []
    for key in [*here, *(key for key in there if key not in here)]:
        if there.get(key) != here.get(key):
            found.append((key, _short(there.get(key)), _short(here.get(key))))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def article(kind: Any) -> str:
    """A kind of run with its article."""
    kind = str(kind or "run of unknown kind")
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def plain(value: Any) -> Any:
    """JSON and back, so that what is compared is what will be read from disk."""
    return json.loads(json.dumps(value, default=str))
