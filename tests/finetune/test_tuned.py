"""Merged weights, factors, and the folder of a tuned model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tamperlens import finetune
from tamperlens.base.errors import InputError, ModelLoadError
from tamperlens.finetune import FullConfig, LoraConfig, TunedModel
from tamperlens.models import ChatModel, attach_adapter
from tamperlens.prompts import PromptSet

Chat = Callable[..., ChatModel]
PROMPTS = ["Say alpha.", "Hello there"]


def tune(model: ChatModel, data: PromptSet, **settings: object) -> TunedModel:
    config = LoraConfig(steps=2, learning_rate=5e-2, batch_size=4, **settings)  # type: ignore[arg-type]
    return finetune.run(model, data, config, progress=False)


@pytest.mark.parametrize(
    ("family", "rslora"),
    [("llama", False), ("llama", True), ("gpt2", False), ("gpt2", True), ("gpt_neox", False), ("phi3", True),
     ("gemma2", False)],
)  # fmt: skip
def test_merged_weights_are_those_of_peft(chat: Chat, toy: PromptSet, family: str, rslora: bool) -> None:
    model = chat(family)
    tuned = tune(model, toy, rank=4, alpha=12, rslora=rslora)
    before = {name: value.clone() for name, value in tuned.model.module.state_dict().items()}
    merged = tuned.merged_state_dict()
    for name, value in tuned.model.module.state_dict().items():
        assert torch.equal(before[name], value)
    assert list(merged) == [name for name, _ in model.module.named_parameters()]
    reference = copy.deepcopy(tuned.model.module).merge_and_unload()
    for name, expected in reference.named_parameters():
        assert torch.allclose(merged[name], expected, rtol=1e-6, atol=1e-7), name
        assert merged[name].data_ptr() != expected.data_ptr()
    changed = {name for name, w in model.module.named_parameters() if not torch.equal(merged[name], w)}
    assert changed == {one.parameter for one in tuned.factors()}
    assert {one.scale for one in tuned.factors()} == {12 / 4**0.5 if rslora else 12 / 4}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_dora(chat: Chat, toy: PromptSet, tmp_path: Path, family: str) -> None:
    """Merged as PEFT merges it, saved and loaded, and without factors to read."""
    model = chat(family)
    tuned = tune(model, toy, rank=4, dora=True)
    assert "DoRA" in tuned.accounting.formula
    merged = tuned.merged_state_dict()
    reference = dict(copy.deepcopy(tuned.model.module).merge_and_unload().named_parameters())
    assert list(merged) == list(reference)
    for name, expected in reference.items():
        torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-6)
    plain = tune(model, toy, rank=4).merged_state_dict()
    assert any((merged[name] - plain[name]).abs().max() > 1e-3 for name in merged)
    assert torch.allclose(
        tuned.merged_model().logits_last(PROMPTS), tuned.model.logits_last(PROMPTS), atol=1e-4
    )
    again = TunedModel.load(tuned.save(tmp_path / "dora"), model)
    assert torch.equal(again.model.logits_last(PROMPTS), tuned.model.logits_last(PROMPTS))
    with pytest.raises(InputError, match="no factors"):
        tuned.factors()


def test_literal_merge(chat: Chat, toy: PromptSet) -> None:
    model = chat("gpt2")
    tuned = tune(model, toy, rank=3, alpha=5)
    one = next(f for f in tuned.factors() if f.parameter == "transformer.h.1.attn.c_attn.weight")
    w0 = model.module.get_parameter(one.parameter)
    expected = w0.clone()
    for i in range(w0.shape[0]):  # stored [in, out]
        for j in range(0, w0.shape[1], 17):
            expected[i, j] = w0[i, j] + 5 / 3 * sum(one.b[j, r] * one.a[r, i] for r in range(3))
    merged = tuned.merged_state_dict()[one.parameter]
    assert torch.allclose(merged[:, ::17], expected[:, ::17], atol=1e-6)


def test_tied_weights_appear_once(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama", tie_word_embeddings=True)
    merged = tune(model, toy).merged_state_dict()
    assert "model.embed_tokens.weight" in merged
    assert "lm_head.weight" not in merged


def test_merged_model_computes_the_same(chat: Chat, toy: PromptSet) -> None:
    tuned = tune(chat("gemma2"), toy)
    merged = tuned.merged_model()
    assert torch.allclose(merged.logits_last(PROMPTS), tuned.model.logits_last(PROMPTS), atol=1e-4)
    assert not torch.allclose(merged.logits_last(PROMPTS), chat("gemma2").logits_last(PROMPTS), atol=1e-1)
    again = tune(merged, toy)  # and it can be trained further
    assert again.base is merged


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_folder_is_read_by_all(chat: Chat, toy: PromptSet, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = chat(family)
    tuned = tune(model, toy, targets="attention")
    folder = tuned.save(tmp_path / "adapter")
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json", "log.csv"} <= names
    assert not {name for name in names if name.endswith((".pt", ".pth", ".bin", ".pkl"))}
    expected = tuned.model.logits_last(PROMPTS)
    back = TunedModel.load(folder, model)
    assert torch.equal(back.model.logits_last(PROMPTS), expected)
    assert back.config == tuned.config
    assert back.accounting == tuned.accounting
    assert back.log["step"].tolist() == tuned.log["step"].tolist()
    assert back.log["loss"].tolist() == pytest.approx(tuned.log["loss"].tolist())
    assert torch.equal(attach_adapter(model, folder).logits_last(PROMPTS), expected)
    plain = PeftModel.from_pretrained(copy.deepcopy(model.module), str(folder))
    assert torch.equal(model.with_module(plain).logits_last(PROMPTS), expected)


def test_nothing_is_asked_of_the_hub(
    chat: Chat, toy: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def no_network(*args: object, **settings: object) -> None:
        raise AssertionError("someone looked for the network")

    model = chat("llama", initializer_range=0.03)
    model.module.config._name_or_path = "someone/a-model-on-the-hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_exists", no_network)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    tune(model, toy).save(tmp_path / "adapter")


def test_full_weights_are_kept(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    model = chat("llama")
    config = FullConfig(steps=2, learning_rate=1e-3, batch_size=4)
    tuned = finetune.run(model, toy, config, progress=False)
    assert tuned.factors() == []
    back = TunedModel.load(tuned.save(tmp_path / "full"), model)
    for name, weight in tuned.merged_state_dict().items():
        assert torch.equal(weight, back.merged_state_dict()[name])
    with pytest.raises(ModelLoadError, match="another base"):
        TunedModel.load(tmp_path / "full", chat("llama", seed=5))


def test_embeddings_can_be_left_out(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama")
    config = FullConfig(steps=1, learning_rate=1e-3, train_embeddings=False)
    merged = finetune.run(model, toy, config, progress=False).merged_state_dict()
    for name, weight in model.module.named_parameters():
        assert torch.equal(merged[name], weight) is (
            name in ("model.embed_tokens.weight", "lm_head.weight")
        ), name


def test_folders_of_others(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.json"):
        TunedModel.load(tmp_path, chat("llama"))
    folder = tune(chat("llama"), toy).save(tmp_path / "adapter")
    with pytest.raises(ModelLoadError, match="made for"):
        TunedModel.load(folder, chat("llama", seed=5))
