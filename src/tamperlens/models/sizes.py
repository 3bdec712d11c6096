"""What a model needs, said before it is read: layers, weights, memory, vocabulary."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tamperlens.base.errors import ModelLoadError
from tamperlens.models.reasons import SMALLER

MOST_LAYERS = 1_000  # no published decoder comes near it
GB = 1e9
_INTEGER = re.compile(r"[IU]\d+|BOOL")


def check_layers(config: Any, name: str) -> None:
    """Refuse a config that asks for absurdly many layers, before anything is built from it."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise ModelLoadError(
            f"{name}: config.json asks for {layers} layers (num_hidden_layers), which no model has; "
            "it is damaged: copy the model again"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < 1:
        raise ModelLoadError(
            f"{name}: config.json allows {positions} tokens (max_position_embeddings); it is damaged: copy "
            "the model again"
        )


def check_stored(size: int, config: Any, folder: Path, name: str) -> None:
    """Refuse a config that asks for far more weights than the folder holds, or weights that are no numbers.

    Before they are allocated.

    Args:
        size: parameters of the model that the config describes.
        config: of the model; packed weights have no such relation.
        folder: with its safetensors files.
        name: what to call it.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files or hasattr(config, "quantization_config"):
        return
    stored, packed = 0, ""
    try:
        for file in files:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118
                    part = tensors.get_slice(key)
                    stored += int(torch.Size(part.get_shape()).numel())
                    if key.endswith(".weight") and _INTEGER.fullmatch(part.get_dtype()):
                        packed = packed or f"{key} ({part.get_dtype()})"
    except Exception:
        return  # damaged: said when the weights are read
    if packed:
        raise ModelLoadError(
            f"{name} stores {packed} in whole numbers and its config.json has no quantization_config that "
            "says what they stand for; convert it to a floating type"
        )
    if size > 2 * stored + 2**20:
        raise ModelLoadError(
            f"{name}: config.json asks for {size:.3g} weights and the files hold {stored:.3g}; "
            "they belong to different models"
        )


def check_memory(
    size: int,
    config: Any,
    wanted: torch.dtype | str,
    device: torch.device,
    quantization: str | None,
    name: str,
) -> None:
    """Refuse a model that does not fit, with what it needs, before its weights are read."""
    stored = getattr(config, "dtype", None)
    dtype = wanted if isinstance(wanted, torch.dtype) else stored
    width: float = dtype.itemsize if isinstance(dtype, torch.dtype) else 4
    if quantization is not None or hasattr(config, "quantization_config"):
        width = 1.0 if quantization == "8bit" else 0.6
    need, there = size * width, available_bytes(device)
    if need > there:
        raise ModelLoadError(
            f"{name} needs {need / GB:.3g} GB for its weights and {there / GB:.3g} GB are free on {device}; "
            f"{SMALLER}"
        )


def available_bytes(device: torch.device) -> float:
    """Free memory on a device, or of the machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped, unused-ignore]

    return float(psutil.virtual_memory().available)


def vocabulary_notes(tokenizer: Any, rows: int) -> list[str]:
    """What to know where tokenizer and embedding differ in size; a prompt that meets it is refused."""
    known = len(tokenizer)
    sizes = f"the tokenizer knows {known} tokens and the model embeds {rows}"
    if known > rows:
        return [f"{sizes}: prompts with the others are refused"]
    if known < rows // 2:
        return [f"{sizes}: is it this model's own?"]
    return []


def speed_notes(
    dtype: torch.dtype, device: torch.device, machine: str | None = None, capability: str | None = None
) -> list[str]:
    """What to know where half precision is the slow one: an x86 processor without AVX-512 has no bf16.

    Args:
        dtype: of the weights.
        device: where they are.
        machine: the processor's kind; this one's by default.
        capability: the widest instructions that torch uses; what it found by default.
    """
    machine = platform.machine() if machine is None else machine
    capability = torch.backends.cpu.get_cpu_capability() if capability is None else capability
    half = dtype in (torch.bfloat16, torch.float16)
    if (
        half
        and device.type == "cpu"
        and machine.lower() in ("x86_64", "amd64")
        and "AVX512" not in capability
    ):
        kind = str(dtype).removeprefix("torch.")
        return [f"computed in {kind}, which this processor has no instructions for: float32 is far faster"]
    return []
