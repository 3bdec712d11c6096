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
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core

import copy
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)  # what passed passes again
settings.load_profile("same")

# Before any module of ours: inside one that jaxtyping loads, theirs are compiled from source every time.
for library in (
    "hypothesis.strategies",
    "matplotlib.figure",
    "pandas",
    "peft",
    "plotly.graph_objects",
    "scipy.optimize",
    "scipy.stats",
    "torch",
    "transformers",
):
    importlib.import_module(library)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))  # helpers: `from tiny_models import ...`
sys.path.append(str(ROOT / "docs" / "tools"))  # recipes: `from organism_training.train import ...`


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real prompt files beside the checkout; tests that use them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real prompt files are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """`tiny(family)` -> (small random transformers model in eval mode, byte-level tokenizer with a template).

    Made once per session: leave what you get as it was. `tiny(family, fresh=True)` gives one of your own, and
    so do keyword arguments (`seed=`, `dtype=`, entries of the configuration).
    Families: `tiny_models.FAMILIES`.
    """
    from tiny_models import make_model, make_tokenizer

    made: dict[str, Any] = {}
    tokenizer = make_tokenizer()

    def make(family: str, *, fresh: bool = False, **settings: Any) -> tuple[Any, Any]:
        if settings or fresh:  # not a copy: transformers leaves hooks of its own on a model that has run
            return make_model(family, **settings), copy.deepcopy(tokenizer)
        if family not in made:
            made[family] = make_model(family)
        return made[family], tokenizer

    return make


@pytest.fixture(scope="session")
def chat(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """`chat(family, **settings)` -> ChatModel around `tiny`; shared without settings: leave it whole."""
    from tamperlens.models import ChatModel

    def make(family: str, **settings: Any) -> ChatModel:
        module, tokenizer = tiny(family, **settings)
        return ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)

    return make
