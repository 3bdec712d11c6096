"""What models are at hand: embedded ones, the hub cache, and what lies in a folder. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, read_json
from tamperlens.models.loading import ORGANISM, VARIANTS

COLUMNS = ["name", "kind", "size_mb", "where"]
DEPTH = 4


def at_hand(folder: PathLike | None = None) -> pd.DataFrame:
    """One row per model: name, kind, size_mb (weight files), where.

    Kinds: "organism", "planted", "hub cache", "model", "gguf", "adapter (LORA)" and so on, "checkpoint".

    Args:
        folder: also look here, at most four levels deep.

    Raises:
        InputError: there is no such folder.

    Examples:
        >>> from tamperlens.models.listing import at_hand
        >>> at_hand()["name"].tolist()[:2]
        ['organism', 'organism:base']
    """
    rows = []
    for name in VARIANTS:
        place = ORGANISM / name
        if (place / "config.json").is_file():
            label = "organism" if name == "aligned" else f"organism:{name}"
            rows.append((label, "organism", _size(place), "embedded"))
    planted = ORGANISM / "planted"
    for one in sorted(planted.glob("*.safetensors")):
        rows.append((one.stem, "planted", one.stat().st_size / 1e6, "planted.make"))
    rows += _cached()
    if folder is not None:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise InputError(f"no folder {str(folder)!r}; check the spelling")
        rows += _within(root, root, 0)
    return pd.DataFrame(rows, columns=COLUMNS).round({"size_mb": 1})


def _cached() -> list[tuple[str, str, float, str]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return []
    found = [(one.repo_id, "hub cache", one.size_on_disk / 1e6, str(one.repo_path)) for one in repos
             if one.repo_type == "model"]  # fmt: skip
    return sorted(found)


def _within(root: Path, folder: Path, depth: int) -> list[tuple[str, str, float, str]]:
    found = []
    kind = _kind(folder)
    if kind:
        found.append((str(folder), kind, _size(folder), str(folder)))
    for one in sorted(folder.glob("*.gguf")):
        found.append((str(one), "gguf", one.stat().st_size / 1e6, str(folder)))
    if depth < DEPTH:
        for one in sorted(folder.iterdir()):
            if one.is_dir() and not one.is_symlink() and not one.name.startswith("."):
                found += _within(root, one, depth + 1)
    return found


def _kind(folder: Path) -> str:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return "checkpoint" if folder.name.startswith("checkpoint-") else "model"
    if (folder / "adapter_config.json").is_file():
        try:
            tuner = read_json(folder / "adapter_config.json").get("peft_type")
        except (InputError, AttributeError):
            tuner = None
        return f"adapter ({tuner or 'damaged'})"
    return ""


def _size(folder: Path) -> float:
    files = [one for pattern in ("*.safetensors", "*.bin") for one in folder.glob(pattern)]
    return sum(one.stat().st_size for one in files) / 1e6
