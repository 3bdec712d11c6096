"""What went wrong while loading, in one line: transformers' many-line errors read once, here."""

from __future__ import annotations

import re
from pathlib import Path

import torch

SMALLER = "use device_map='auto', a smaller dtype, or quantization='4bit'"


def why_no_config(source: str | Path, name: str, revision: str | None, error: Exception) -> str:
    """Why a config could not be read."""
    words = str(error)
    if "custom code" in words or "trust_remote_code" in words:
        return f"{name} needs code from its own repository, which is never run; use a model of transformers"
    if "does not recognize this architecture" in words or "Unrecognized model" in words:
        found = re.search(r"model type `([^`]*)`", words)
        kind = f"model_type {found.group(1)!r}" if found else "the model_type in its config.json"
        return f"{name}: {kind} is unknown to this transformers; update transformers or check config.json"
    if "valid JSON" in words:
        return f"{name}: config.json is not valid JSON; copy the model again"
    if isinstance(source, Path):
        return f"{name}: config.json cannot be used ({first_line(error)})"
    if revision is not None and "revision" in words.lower():
        return f"{name} has no revision {revision!r}"
    return (
        f"no model {name!r}: no such folder here, and the hub did not give it ({first_line(error)}); "
        "check the spelling, the network (or HF_HUB_OFFLINE) and, for gated models, HF_TOKEN"
    )


def why_no_weights(name: str, error: Exception) -> str:
    """Why weights could not be read."""
    words = str(error)
    if "SafetensorError" in type(error).__name__:
        return f"{name}: a safetensors file is damaged or cut short ({first_line(error)}); copy it again"
    if isinstance(error, torch.OutOfMemoryError):
        return f"{name} does not fit on the device; {SMALLER}"
    if isinstance(error, ImportError):
        return f"{name} needs a package that is not installed ({first_line(error)})"
    if isinstance(error, OSError) and ("no file named" in words or "does not appear to have a file" in words):
        return (
            f"{name} has no complete safetensors weights ({first_line(error)}); convert them, or pass "
            "allow_pickle=True if you trust the source"
        )
    return f"{name}: its weights cannot be read ({first_line(error)})"


def first_line(error: Exception) -> str:
    """First line of an error's message, or its class when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")
