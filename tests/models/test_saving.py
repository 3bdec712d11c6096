"""A model as a plain folder, and the card beside an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tamperlens
from tamperlens import finetune
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.models import ChatModel

PAIRS = [("Name a bird.", "A wren."), ("Name a tree.", "An oak.")]


def test_a_plain_folder(tiny: Any, tmp_path: Path) -> None:
    model = ChatModel.from_parts(*tiny("llama"), name="mine", notes=["made for a test"])
    folder = model.save_pretrained(tmp_path / "deep" / "plain")
    assert tamperlens.load(folder, device="cpu").fingerprint == model.fingerprint
    plain = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, model.module(ids).logits, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "# mine" in card
    assert model.fingerprint in card
    assert "- made for a test" in card
    assert [path.name for path in folder.parent.iterdir()] == ["plain"], "nothing temporary is left"
    with pytest.raises(RunFolderError, match="not empty; name a new folder"):
        model.save_pretrained(folder)


@pytest.mark.parametrize("config", [finetune.LoraConfig(steps=2), finetune.FullConfig(steps=2)])
def test_a_tuned_model(config: Any, tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    tuned = finetune.run(base, PAIRS, config)
    before = base.fingerprint
    back = tamperlens.load(tuned.save_pretrained(tmp_path / "plain"), device="cpu")
    assert torch.allclose(back.logits_last(["x"]), tuned.model.logits_last(["x"]), atol=1e-4)
    assert back.fingerprint == tuned.merged_model().fingerprint != before
    assert base.fingerprint == before


def test_what_cannot_be_saved(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    tuned = finetune.run(base, PAIRS, finetune.LoraConfig(steps=1))
    with pytest.raises(InputError, match=r"carries an adapter; save it merged \(TunedModel"):
        tuned.model.save_pretrained(tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="name a new folder"):
        base.save_pretrained(tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot write"):
        base.save_pretrained(tmp_path / "file" / "inside")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_an_adapter_carries_its_warning(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    folder = finetune.run(base, PAIRS, finetune.LoraConfig(steps=1)).save(tmp_path / "tuned")
    card = (folder / "README.md").read_text()
    assert "Do not publish it" in card
    assert base.fingerprint in card
    assert "More Information Needed" not in card
