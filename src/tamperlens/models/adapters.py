"""PEFT adapters: saved with the fingerprint of their base, checked against it before they are attached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tamperlens.base.errors import InputError, ModelLoadError, RunFolderError
from tamperlens.base.files import read_json, sha256_file, write_json
from tamperlens.base.masks import WeightMask
from tamperlens.models.chat import ChatModel, refuse_nonfinite_weights, share_parameters_copy
from tamperlens.models.fingerprint import base_fingerprint_of
from tamperlens.models.reasons import first_line
from tamperlens_hooks import unwrap
from tamperlens_hooks.freeze import freeze_adapter

SIDECAR = "tamperlens.json"
FROZEN = "frozen.safetensors"


def save_adapter(model: ChatModel, folder: str | os.PathLike[str]) -> Path:
    """Write the adapter of a PEFT-wrapped model, with the name and fingerprint of the base it belongs to.

    Only the adapter is written (safetensors); the base is not.

    Raises:
        InputError: the model carries no adapter.
        RunFolderError: the folder cannot be written or the disk is full.
    """
    if unwrap(model.module) is model.module:
        raise InputError(f"{model.name} carries no adapter; only PEFT-wrapped models have one to save")
    target = Path(folder)
    saver: Any = model.module
    # "auto" would ask the hub whether the base's vocabulary has changed.
    try:
        saver.save_pretrained(target, safe_serialization=True, save_embedding_layers=False)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"cannot write {target}: {first_line(error)}; free some space or choose another folder"
        ) from error
    note = {
        "base": model.name,
        "base_fingerprint": base_fingerprint_of(model.module),
        "base_dtype": str(model.dtype).removeprefix("torch."),
    }
    write_json(target / SIDECAR, note)
    return target


def attach_adapter(model: ChatModel, adapter: str | os.PathLike[str]) -> ChatModel:
    """Attach a PEFT adapter, unmerged, to a copy that shares the weights, if it was made for this base.

    Checked in this order: the base's fingerprint where tamperlens saved the adapter; the base that the
    adapter's config names; that every tensor of the adapter finds a module of its shape.

    Raises:
        ModelLoadError: not an adapter, damaged, or made for another base.
    """
    from peft import PeftConfig, PeftModel

    label = str(adapter)
    folder = _fetch(label)
    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config_file.is_file():
        raise ModelLoadError(f"{label} has no adapter_config.json; name the folder that holds it")
    if not weights_file.is_file():
        raise ModelLoadError(
            f"{label} has no adapter_model.safetensors (pickled ones are not read); save it again with PEFT"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
        stored = load_file(weights_file)
    except Exception as error:
        raise ModelLoadError(f"{label} is damaged ({first_line(error)}); copy the adapter again") from error
    if not _check_sidecar(folder, model, label):
        _check_named_base(str(config.base_model_name_or_path or ""), model, label)
    _check_shapes(stored, unwrap(model.module), model.name, label)
    copy = share_parameters_copy(model)
    try:
        wrapped = PeftModel.from_pretrained(copy.module, str(folder), config=config, is_trainable=False)
    except Exception as error:
        raise ModelLoadError(
            f"{label} does not fit {model.name} ({first_line(error)}); it was made for another base"
        ) from error
    if (folder / FROZEN).is_file():
        # Without its mask a frozen adapter is another model.
        freeze_adapter(wrapped, WeightMask.load(folder / FROZEN))
    refuse_nonfinite_weights(wrapped, label)
    wrapped.eval()
    return copy.with_module(wrapped, name=f"{model.name} + {label}")


def _fetch(label: str) -> Path:
    """The adapter's folder; a hub id is downloaded (or found in the cache), safetensors only."""
    folder = Path(label).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        patterns = ["adapter_config.json", "adapter_model.safetensors", SIDECAR, FROZEN]
        return Path(snapshot_download(label, allow_patterns=patterns))
    except Exception as error:
        raise ModelLoadError(
            f"no adapter {label!r}: no such folder here, and the hub did not give it ({first_line(error)})"
        ) from error


def _check_sidecar(folder: Path, model: ChatModel, label: str) -> bool:
    """True when the adapter was saved with this very base; raises when it was saved with another."""
    if not (folder / SIDECAR).is_file():
        return False
    note = read_json(folder / SIDECAR)
    if note.get("base_fingerprint") == base_fingerprint_of(model.module):
        return True
    if note.get("base_dtype") != str(model.dtype).removeprefix("torch."):
        return False  # the same base in another precision has another fingerprint
    raise ModelLoadError(
        f"{label} was made for {note.get('base', 'another base')}, not for {model.name}; load that base"
    )


def _check_named_base(named: str, model: ChatModel, label: str) -> None:
    """Compare the base that the adapter's config names with the one at hand, as far as names can tell."""
    here = str(getattr(unwrap(model.module).config, "_name_or_path", "") or model.name)
    if not named:
        return
    if Path(named).is_dir() and Path(here).is_dir():
        if Path(named).resolve() == Path(here).resolve() or _weight_files(Path(named)) == _weight_files(
            Path(here)
        ):
            return
    elif Path(named).is_absolute() or Path(here).is_dir():
        return  # a folder that has moved, or a local copy of a hub model: its shapes decide
    elif _last(named) in (_last(here), _last(model.name)):
        return
    raise ModelLoadError(
        f"{label} was made for {named}, not for {model.name}; load that base, or (if they are the same) "
        "correct base_model_name_or_path in adapter_config.json"
    )


def _weight_files(folder: Path) -> list[tuple[str, str]]:
    return sorted((path.name, sha256_file(path)) for path in folder.glob("*.safetensors"))


def _check_shapes(stored: dict[str, Any], base: nn.Module, name: str, label: str) -> None:
    """Every LoRA factor must find a module whose weight has its shape."""
    modules = dict(base.named_modules())
    for key, tensor in stored.items():
        path, _, kind = key.removeprefix("base_model.model.").partition(".lora_")
        if not kind:
            continue
        module = modules.get(path)
        weight = getattr(module, "weight", None)
        if module is None or weight is None:
            raise ModelLoadError(
                f"{label} adapts {path}, which {name} does not have; it was made for another base"
            )
        if weight.ndim != 2 or kind.split(".")[0] not in ("A", "B"):
            continue
        rows, columns = weight.shape if isinstance(module, nn.Linear) else tuple(weight.shape)[::-1]
        fits = tensor.shape[1] == columns if kind.startswith("A") else tensor.shape[0] == rows
        if not fits and not hasattr(weight, "quant_state"):
            raise ModelLoadError(
                f"{label}: {key} is {tuple(tensor.shape)} and {path} of {name} is [{rows}, {columns}]; "
                "the adapter was made for another base"
            )


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
