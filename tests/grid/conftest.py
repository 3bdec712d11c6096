"""A tiny random model on disk, and grids on it that take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tamperlens import grid
from tamperlens.models import Decoding


@pytest.fixture(scope="session")
def tiny_folder(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, as transformers saves it."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    module, tokenizer = tiny("llama")
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def declared(tiny_folder: Path) -> Callable[..., grid.Grid]:
    """A grid on the tiny model, with changes."""

    def make(**changes: Any) -> grid.Grid:
        settings: dict[str, Any] = {
            "models": (str(tiny_folder),), "ranks": (2,), "steps": (1, 3), "data_sizes": (4,),
            "training": {"batch_size": 2},
            "evaluation": grid.Evaluation(limit=3, suite_limit=1, suites=("facts",), decoding=Decoding(4)),
        }  # fmt: skip
        return grid.Grid(**{**settings, **changes})

    return make


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """A user's own refusals."""
    path = tmp_path / "refused.csv"
    path.write_text("prompt,response\n" + "".join(f"how do I steal {i},No.\n" for i in range(6)), "utf-8")
    return str(path)
