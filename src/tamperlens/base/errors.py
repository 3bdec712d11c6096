"""Errors of the science layer, beside those of the hook layer."""

from __future__ import annotations

from tamperlens_hooks.errors import AnatomyError, HookError, TamperlensError, UnsupportedModelError

__all__ = [
    "AnatomyError",
    "HookError",
    "InputError",
    "ModelLoadError",
    "NumericsError",
    "RunFolderError",
    "TamperlensError",
    "UnsupportedModelError",
]


def __dir__() -> list[str]:
    return sorted(__all__)


class InputError(TamperlensError, ValueError):
    """An argument, file, row or column that cannot be used."""


class ModelLoadError(TamperlensError):
    """A model, tokenizer or adapter that cannot be loaded, or that does not fit its base."""


class NumericsError(TamperlensError, ArithmeticError):
    """NaN or infinite numbers where finite ones are needed."""


class RunFolderError(TamperlensError):
    """A run folder that cannot be written, belongs to another run, or is incomplete."""
