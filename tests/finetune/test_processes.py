"""Two processes train as one does with twice the batch size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes
from launching import KINDS, in_two_processes

from tamperlens import finetune
from tamperlens.base.files import read_tensors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    in_two_processes(two_processes.__file__, made, request.param)
    assert {said["kind"] for said in said_by(made)} == {request.param}
    return made


def said_by(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"said-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["full", "lora"])
def test_as_one_with_twice_the_batch(folder: Path, name: str) -> None:
    """Weights and losses to rounding, with frozen entries, clipping, decay and accumulation."""
    base = two_processes.base()
    mask = two_processes.mask(base)
    one = finetune.run(base, two_processes.DATA, two_processes.configs(4)[name], freeze=mask, progress=False)
    expected = two_processes.weights(one)
    shares = [read_tensors(folder / f"{name}-{rank}.safetensors")[0] for rank in (0, 1)]
    for key, weight in expected.items():
        assert torch.equal(shares[0][key], shares[1][key])
        # AdamW's first steps are ±lr whatever the gradient's size, so a rounded gradient near zero shows.
        difference = (shares[0][key] - weight).double()
        start = base.module.get_parameter(key).detach()
        assert difference.norm() <= 1e-3 * (weight - start).double().norm() + 1e-9
    for key, flags in mask.items():
        old = base.module.get_parameter(key).detach().view(torch.int32)
        assert torch.equal(shares[0][key].view(torch.int32)[flags], old[flags])
    first, second = said_by(folder)
    assert first[name][:2] == second[name][:2]
    assert first[name][0] == pytest.approx(one.log.loss.tolist(), rel=1e-4)
    # AdamW hides a wrong scale of the gradient; the norm has the frozen entries' gradients in it or not.
    assert first[f"{name} norms"] == pytest.approx(one.log.grad_norm.tolist(), rel=1e-3)
    assert first[name][2:] == [5, [0]]
    assert second[name][2:] == [0, []]
    assert finetune.TunedModel.load(folder / name / "tuned", base).accounting.tokens == first[name][1]


def test_resumes_and_refuses(folder: Path) -> None:
    """Dropout's random states are each process's own, and both are put back."""
    for said in said_by(folder):
        assert said["half lora"]
        assert said["half full"]
        assert said["resumed"]
        assert said["read"]
        assert said["refused"].startswith("the 2 processes were given another config each")


def test_all_stop_at_the_same_step_with_the_same_weights(folder: Path) -> None:
    """One process's batches may diverge before the other's do."""
    first, second = said_by(folder)
    assert first["diverged"] == second["diverged"]
    assert (folder / "wild" / "last-good" / "training.json").is_file()
