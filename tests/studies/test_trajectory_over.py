"""A trajectory over checkpoints that are there already."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tamperlens
from tamperlens import trajectory
from tamperlens.base.errors import InputError
from tamperlens.models import save_adapter

MEASURES = ("drift", "direction", "log-odds")


@pytest.fixture(scope="module")
def base():
    return tamperlens.load("organism:tiny")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    """Three checkpoints, each the same adapter twice as long as the one before."""
    root = tmp_path_factory.mktemp("trl")
    torch.manual_seed(0)
    module = get_peft_model(
        copy.deepcopy(base.module), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    for step in (100, 20, 5):
        place = save_adapter(base.with_module(module.eval()), root / f"checkpoint-{step}")
        log = [{"step": s, "loss": 1 / s, "learning_rate": 0.1} for s in (5, 20, 100) if s <= step]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.data.mul_(0.5)
    return root


def test_checkpoints_are_measured_by_step_against_the_base(base, run, tmp_path):
    found = trajectory.over(base, run, measures=MEASURES, limit=8, out=tmp_path / "out")
    drift = found.of("drift: all weights")
    assert drift["step"].tolist() == [0, 5, 20, 100]
    values = drift["value"].tolist()
    assert values[0] == 0 and values[3] == pytest.approx(2 * values[2], rel=1e-4)
    assert values[2] == pytest.approx(2 * values[1], rel=1e-4)
    assert found.of("training loss")["value"].tolist() == [1 / 5, 1 / 20, 1 / 100]
    assert "drift" in trajectory.order(found).summary()
    again = trajectory.read(tmp_path / "out")
    assert again.table.equals(found.table)


def test_what_is_no_training_folder_is_named(base, run, tmp_path):
    for wrong, words in (
        ([], "no checkpoints"), (tmp_path, "no checkpoint-N"), ("nowhere", "no folder"),
        ([run, run / "checkpoint-5"], "either"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            trajectory.over(base, wrong)
