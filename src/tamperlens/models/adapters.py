"""PEFT adapters: saved with the fingerprint of their base, checked against it before they are attached."""

from __future__ import annotations

import copy
import json
import os
import re
import typing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tamperlens.base.errors import (
    InputError,
    ModelLoadError,
    NumericsError,
    RunFolderError,
    TamperlensError,
)
from tamperlens.base.files import sha256_file, write_json
from tamperlens.base.kinds import Misfit, fit
from tamperlens.base.masks import WeightMask
from tamperlens.base.schemas import Schema, read_document
from tamperlens.models.chat import ChatModel, refuse_nonfinite_weights
from tamperlens.models.fingerprint import base_fingerprint_of
from tamperlens.models.ownership import wrap_without_writing
from tamperlens.models.reasons import first_line
from tamperlens.models.saving import write_adapter_card
from tamperlens.models.vision_text import rename_for_text
from tamperlens_hooks import unwrap
from tamperlens_hooks.freeze import freeze_adapter

SIDECAR = "tamperlens.json"
FROZEN = "frozen.safetensors"
# Tuners that add states, modules or experts beside the model's weights (and prompt learning, which says so).
_NOT_WEIGHTS = {"ADAPTION_PROMPT", "CARTRIDGE", "POLY", "SHADOW", "XLORA"}
# What torch.compile, FSDP and gradient checkpointing put into names of modules.
_VOCABULARY = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight", "embed_out.weight")
_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def save_adapter(model: ChatModel, folder: str | os.PathLike[str]) -> Path:
    """Write the adapter of a PEFT-wrapped model, with the name and fingerprint of the base it belongs to.

    Only the adapter is written (safetensors); the base is not. A card beside it says what it is.

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
    write_adapter_card(target, model.name, str(note["base_fingerprint"]))
    return target


def attach_adapter(model: ChatModel, adapter: str | os.PathLike[str]) -> ChatModel:
    """Attach a PEFT adapter, unmerged, to a copy of the model, if it was made for this base.

    The copy shares the weights and owns those that the adapter overwrites (biases, embeddings, weights that
    its initialisation rewrites): the model that was handed in stays as it is, to the bit, and any number of
    adapters may be attached to it. What the file holds is what the copy carries: every parameter of the
    adapter must be in the file, and every tensor of the file must find its place.

    Checked in this order: the base's fingerprint where tamperlens saved the adapter; the base that the
    adapter's config names; shapes and ranks; that nothing is left over or missing. Where the config names
    another base than the model at hand and nothing proves that they differ, `.notes` says so.

    Raises:
        InputError: the model already carries an adapter.
        ModelLoadError: not an adapter, damaged, incomplete, or made for another base.
        NumericsError: a tensor of the adapter holds NaN or infinite numbers.

    Examples:
        >>> tuned = attach_adapter(base, "runs/mine/adapter")  # doctest: +SKIP
        >>> other = attach_adapter(base, "runs/other/adapter")  # doctest: +SKIP
    """
    label = str(adapter)
    if unwrap(model.module) is not model.module:
        raise InputError(f"{model.name} already carries an adapter; attach {label} to its base")
    folder = _fetch(label)
    config = _read_config(folder, label)
    stored = _read_tensors(folder, label)
    notes = _unknown_settings(folder, config, label)
    if not _check_sidecar(folder, model, label):
        notes += _check_named_base(str(config.base_model_name_or_path or ""), model, label)
    if "niter" in str(getattr(config, "init_lora_weights", "")):
        notes.append(
            f"the adapter {label} starts from a random decomposition, which PEFT repeats only nearly"
        )
    stored, left_out = rename_for_text(stored, config, unwrap(model.module))
    notes += left_out
    modules = dict(unwrap(model.module).named_modules())
    _check_shapes(stored, modules, config, model.name, label)
    module = wrap_without_writing(
        model.module, lambda copy: _build(copy, config, stored, model, label), label
    )
    if (folder / FROZEN).is_file():
        # Without its mask a frozen adapter is another model.
        freeze_adapter(module, WeightMask.load(folder / FROZEN))
    refuse_nonfinite_weights(module, label)
    module.eval()
    tuned = model.with_module(module, name=f"{model.name} + {label}")
    return replace(tuned, notes=(*model.notes, *notes))


def _read_config(folder: Path, label: str) -> Any:
    from peft import PeftConfig

    if not (folder / "adapter_config.json").is_file():
        below = sorted(one.parent.name for one in folder.glob("*/adapter_config.json"))
        holds = f" ({', '.join(below[:5])} in it has one)" if below else ""
        raise ModelLoadError(f"{label} has no adapter_config.json{holds}; name the folder that holds it")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        for name, hint in typing.get_type_hints(type(config)).items():
            kinds = {typing.get_origin(one) or one for one in typing.get_args(hint) or (hint,)}
            if dict in kinds and kinds <= {dict, type(None)}:
                fit(getattr(config, name), dict[str, typing.Any] | None)
    except Misfit as error:
        raise ModelLoadError(
            f"{label} is damaged ({name} in adapter_config.json must be {error}); copy the adapter again"
        ) from None
    except Exception as error:
        raise ModelLoadError(f"{label} is damaged ({first_line(error)}); copy the adapter again") from error
    if config.peft_type is None:
        raise ModelLoadError(f"{label}: adapter_config.json names no peft_type; copy the adapter again")
    if config.is_prompt_learning or config.peft_type.value in _NOT_WEIGHTS:
        raise ModelLoadError(
            f"{label} is a {config.peft_type.value} adapter, which is no change of the model's weights; "
            "not supported yet: use one that is, such as LoRA"
        )
    config.inference_mode = True
    return config


def _read_tensors(folder: Path, label: str) -> dict[str, Tensor]:
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelLoadError(
            f"{label} has no adapter_model.safetensors (pickled ones are not read); save it again with PEFT"
        )
    try:
        stored: dict[str, Tensor] = load_file(file)
    except Exception as error:
        raise ModelLoadError(f"{label} is damaged ({first_line(error)}); copy the adapter again") from error
    for key, tensor in stored.items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise NumericsError(f"{label}: {key} holds NaN or infinite numbers; the adapter is damaged")
    return {_WRAPPERS.sub("", key): tensor for key, tensor in stored.items()}


def _unknown_settings(folder: Path, config: Any, label: str) -> list[str]:
    """A note on settings of a newer PEFT, which this one leaves out: they may change what is computed."""
    given = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    known = {*type(config).__dataclass_fields__, "peft_version"}
    beyond = sorted(name for name, value in given.items() if name not in known and value)
    note = (
        f"the adapter {label} has settings that this PEFT does not know and leaves out: {', '.join(beyond)}"
    )
    return [note] if beyond else []


def _build(
    module: nn.Module, config: Any, stored: dict[str, Tensor], model: ChatModel, label: str
) -> nn.Module:
    """PEFT around the module with the file's tensors in it; refused unless it holds them and nothing else."""
    from peft import get_peft_model, set_peft_model_state_dict

    other = f"it was made for another base than {model.name}, or is damaged"
    try:
        with warnings.catch_warnings(), _same_draws(model.device):
            warnings.simplefilter("ignore")  # what they say is checked below
            wrapped: Any = get_peft_model(module, copy.deepcopy(config), autocast_adapter_dtype=True)
            # AdaLoRA's factors take the file's shape when they are loaded.
            shapes = config.peft_type.value != "ADALORA"
            _check_complete(stored, _would_save(wrapped, stored), label, other, shapes=shapes)
            placed = {name: tensor.to(model.device) for name, tensor in stored.items()}
            set_peft_model_state_dict(wrapped, placed)
            if hasattr(wrapped.base_model, "_cast_adapter_dtype"):
                wrapped.base_model._cast_adapter_dtype("default", autocast_adapter_dtype=True)
    except TamperlensError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{label} does not fit {model.name} ({first_line(error)}); {other}") from error
    wrapped.requires_grad_(False)
    return cast("nn.Module", wrapped)


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Some initialisations draw at random and rewrite the base by it: the same draw on every attaching."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _would_save(wrapped: nn.Module, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """What PEFT would write of the adapter: the definition of its parameters, for every tuner."""
    from peft import get_peft_model_state_dict

    inner: Any = unwrap(wrapped)
    layers = {id(inner.get_input_embeddings()), id(inner.get_output_embeddings())}
    names = [f"base_model.model.{path}." for path, part in inner.named_modules() if id(part) in layers]
    carried = any(key.startswith(tuple(names)) and ".lora_" not in key for key in stored)
    found: dict[str, Tensor] = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    if carried:
        for key, tensor in get_peft_model_state_dict(wrapped, save_embedding_layers=True).items():
            if key in stored:
                found.setdefault(key, tensor)
    return found


def _check_complete(
    stored: dict[str, Tensor], wanted: dict[str, Tensor], label: str, other: str, *, shapes: bool
) -> None:
    missing, beyond = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    if missing and beyond:
        raise ModelLoadError(
            f"{label} holds {beyond[0]}{_more(beyond)}, and its settings ask for "
            f"{missing[0]}{_more(missing)}; {other}"
        )
    if missing:
        raise ModelLoadError(
            f"{label} lacks {missing[0]}{_more(missing)}, which its settings ask for; "
            "copy the adapter again, or save it again with PEFT"
        )
    if beyond:
        raise ModelLoadError(f"{label} holds {beyond[0]}{_more(beyond)}, which fits nowhere; {other}")
    for key, tensor in wanted.items() if shapes else ():
        here, there = stored[key].shape, tensor.shape
        if len(here) == len(there) == 2 and here[0] != there[0] and key.endswith(_VOCABULARY):
            raise ModelLoadError(
                f"{label} was trained with a vocabulary of {here[0]} and its base has {there[0]}; load the "
                f"base with transformers, resize_token_embeddings({here[0]}), save it with the adapter's "
                "tokenizer, and load that"
            )
        if here != there:
            raise ModelLoadError(
                f"{label}: {key} is {list(stored[key].shape)} and the model needs "
                f"{list(tensor.shape)}; {other}"
            )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


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


class _Sidecar(Schema):
    """What was written beside an adapter."""

    base: str = "another base"
    base_fingerprint: str
    base_dtype: str


def _check_sidecar(folder: Path, model: ChatModel, label: str) -> bool:
    """True when the adapter was saved with this very base; raises when it was saved with another."""
    if not (folder / SIDECAR).is_file():
        return False
    note = read_document(
        folder / SIDECAR, _Sidecar, remedy="delete it; shapes then decide", error=ModelLoadError
    )
    if note.get("base_fingerprint") == base_fingerprint_of(model.module):
        return True
    if note.get("base_dtype") != str(model.dtype).removeprefix("torch."):
        return False  # the same base in another precision has another fingerprint
    raise ModelLoadError(
        f"{label} was made for {note.get('base', 'another base')}, not for {model.name}; load that base"
    )


def _check_named_base(named: str, model: ChatModel, label: str) -> list[str]:
    """Compare the base that the adapter's config names with the one at hand, as far as names can tell.

    Returns a note where they may be the same and nothing proves it.
    """
    here = str(getattr(unwrap(model.module).config, "_name_or_path", "") or model.name)
    if not named or named == here:
        return []
    note = [f"the adapter {label} names {named} as its base; it was attached to {model.name} by its shapes"]
    if Path(named).is_dir() and Path(here).is_dir():
        same = os.path.samefile(named, here)
        if same or _weight_files(Path(named)) == _weight_files(Path(here)):
            return []
    elif Path(named).is_absolute() or Path(here).is_dir():
        return note  # a folder that has moved, or a local copy of a hub model: its shapes decide
    elif _last(named) in (_last(here), _last(model.name)):
        return note
    raise ModelLoadError(
        f"{label} was made for {named}, not for {model.name}; load that base, or (if they are the same) "
        "correct base_model_name_or_path in adapter_config.json"
    )


def _weight_files(folder: Path) -> list[tuple[str, str]]:
    return sorted((path.name, sha256_file(path)) for path in folder.glob("*.safetensors"))


def _check_shapes(
    stored: dict[str, Tensor], modules: dict[str, nn.Module], config: Any, name: str, label: str
) -> None:
    """Every LoRA factor must find a module whose weight has its shape, and have the rank of the settings."""
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
        if weight.ndim != 2 or kind not in ("A.weight", "B.weight"):
            continue
        if tensor.ndim != 2:
            raise ModelLoadError(f"{label}: {key} is {list(tensor.shape)}, not a matrix; it is damaged")
        rank = tensor.shape[0] if kind[0] == "A" else tensor.shape[1]
        wanted = _rank(config, path)
        if wanted is not None and rank != wanted:
            raise ModelLoadError(
                f"{label}: {key} has rank {rank} and adapter_config.json says {wanted}; it is damaged"
            )
        rows, columns = weight.shape if isinstance(module, nn.Linear) else tuple(weight.shape)[::-1]
        fits = tensor.shape[1] == columns if kind.startswith("A") else tensor.shape[0] == rows
        if not fits and not hasattr(weight, "quant_state"):
            raise ModelLoadError(
                f"{label}: {key} is {tuple(tensor.shape)} and {path} of {name} is [{rows}, {columns}]; "
                "the adapter was made for another base"
            )


def _rank(config: Any, path: str) -> Any:
    """The rank that a LoRA's settings give one module."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    if not isinstance(config, LoraConfig) or config.peft_type.value != "LORA":
        return None
    pattern = config.rank_pattern or {}
    return pattern.get(get_pattern_key(pattern.keys(), path), config.r)


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
