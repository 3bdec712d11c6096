"""Real pretrained models: `TAMPERLENS_REAL` names a folder that holds them, one folder a model.

`TAMPERLENS_REAL_MODEL` says which one the tier runs on (smollm2 unless told otherwise). Without the folder
every test here is skipped. Numbers of prompts are small: the tier shows that each measure works on a real
model, and equals its reference there; it proves no claim about the model.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tamperlens
from tamperlens import ChatModel, PromptSet, prompts

ROOT = os.environ.get("TAMPERLENS_REAL", "")
NAME = os.environ.get("TAMPERLENS_REAL_MODEL", "smollm2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.real)
            if not ROOT:
                item.add_marker(pytest.mark.skip(reason="TAMPERLENS_REAL names no folder of real models"))


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder of the model that the tier runs on."""
    folder = Path(ROOT) / NAME
    if not (folder / "config.json").is_file():
        pytest.skip(f"{folder} holds no model")
    return folder


@pytest.fixture(scope="session")
def model(real_folder: Path) -> ChatModel:
    return tamperlens.load(real_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def harmful() -> PromptSet:
    return prompts.packaged("english-harmful")


@pytest.fixture(scope="session")
def harmless() -> PromptSet:
    return prompts.packaged("english-harmless")


@pytest.fixture(scope="session")
def pairs(model: ChatModel, harmless: PromptSet) -> PromptSet:
    """Harmless requests with the model's own answers, cut after 16 tokens."""
    asked = list(harmless.prompts[:12])
    return PromptSet.from_pairs(
        list(zip(asked, model.generate(asked, max_new_tokens=16), strict=True)), name="own answers"
    )
