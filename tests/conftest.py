"""Shared by every room's tests: no network, no telemetry, small models."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRANSFORMERS_OFFLINE="1",
    WANDB_MODE="disabled",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
)

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real prompt files beside the checkout; tests that use them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real prompt files are not beside this checkout")
    return folder
