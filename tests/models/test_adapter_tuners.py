"""Attaching never writes into the base, whatever PEFT does to it, and gives what PEFT alone gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft_adapters
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tamperlens.base.errors import ModelLoadError
from tamperlens.models import ChatModel, attach_adapter

IDS = torch.tensor([[5, 6, 7, 30, 40, 77, 101, 6]])


@torch.no_grad()
def logits(module: nn.Module) -> torch.Tensor:
    found: torch.Tensor = module(input_ids=IDS).logits
    return found


def attach_one(tiny: Any, config: Any, tmp_path: Path) -> ChatModel:
    module, tokenizer = tiny("qwen2", seed=3)
    peft_adapters.save_trained(module, config, tmp_path / "one", seed=0)
    return attach_adapter(ChatModel.from_parts(module, tokenizer, name="base"), tmp_path / "one")


def check_two(tiny: Any, config: Any, tmp_path: Path, family: str = "qwen2", **settings: Any) -> None:
    """Two adapters on one base in both orders: each equals PEFT alone on its own base; the base is kept."""
    embeddings = settings.pop("embeddings", False)
    module, tokenizer = tiny(family, seed=3, **settings)
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        peft_adapters.save_trained(module, config, folder, seed=seed, embeddings=embeddings)
    truth = [logits(peft_adapters.plain_peft(module, folder)) for folder in folders]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    untouched = logits(module)
    base = ChatModel.from_parts(module, tokenizer, name="base", check_anatomy=False)
    fingerprint = base.fingerprint
    for order in ([0, 1], [1, 0]):
        tuned = {index: attach_adapter(base, folders[index]) for index in order}
        for index in order:
            torch.testing.assert_close(logits(tuned[index].module), truth[index], rtol=0, atol=1e-5)
            assert tuned[index].base_fingerprint == fingerprint
        assert len({fingerprint, tuned[0].fingerprint, tuned[1].fingerprint}) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(logits(module), untouched)
    assert base.fingerprint == ChatModel.from_parts(module, tokenizer, check_anatomy=False).fingerprint
    assert base.fingerprint == fingerprint


@pytest.mark.parametrize("name", peft_adapters.tuner_names())
def test_every_tuner(name: str, tiny: Any, tmp_path: Path) -> None:
    check_two(tiny, peft_adapters.tuner_config(name), tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", peft_adapters.lora_names())
def test_every_initialisation(name: str, tied: bool, tiny: Any, tmp_path: Path) -> None:
    if name == "corda":  # what it starts from is not in the folder, and PEFT cannot load it either
        with pytest.raises(ModelLoadError, match="preprocess_corda"):
            attach_one(tiny, peft_adapters.lora_config(name), tmp_path)
        return
    check_two(tiny, peft_adapters.lora_config(name), tmp_path, tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_that_carry_embeddings(tied: bool, tiny: Any, tmp_path: Path) -> None:
    config = peft_adapters.lora_config("gaussian")
    check_two(tiny, config, tmp_path, embeddings=True, tie_word_embeddings=tied)


def test_merged_it_is_a_model_of_its_own(tiny: Any, tmp_path: Path) -> None:
    """What the adapter overwrote is no longer told apart: the fingerprint is that of any such model."""
    import copy

    module, tokenizer = tiny("qwen2", seed=3)
    peft_adapters.save_trained(module, peft_adapters.lora_config("bias=all"), tmp_path / "one", seed=0)
    base = ChatModel.from_parts(module, tokenizer, name="base")
    wrapped: Any = copy.deepcopy(attach_adapter(base, tmp_path / "one").module)
    merged = ChatModel.from_parts(wrapped.merge_and_unload(), tokenizer, name="merged")
    assert merged.fingerprint == merged.base_fingerprint != base.fingerprint
    fresh = copy.deepcopy(module)
    fresh.load_state_dict(merged.module.state_dict())
    assert ChatModel.from_parts(fresh, tokenizer).fingerprint == merged.fingerprint


@pytest.mark.parametrize("name", peft_adapters.OTHERS)
def test_tuners_that_change_no_weight(name: str, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": name, "task_type": "CAUSAL_LM"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    with pytest.raises(ModelLoadError, match=rf"{name} adapter, which is no change of the model's weights"):
        attach_adapter(base, tmp_path)
