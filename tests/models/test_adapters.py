"""Adapters round-trip unmerged, and one made for another base is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES

import tamperlens
from tamperlens.base.errors import InputError, ModelLoadError, NumericsError
from tamperlens.models import ChatModel, attach_adapter, save_adapter, share_parameters_copy
from tamperlens.models.ownership import checksums, wrap_without_writing


def tune(model: ChatModel, *, seed: int = 0, **settings: Any) -> ChatModel:
    """What a fine-tuning would leave: a LoRA on every linear with factors that are not zero."""
    settings.setdefault("target_modules", "all-linear")
    wrapped = get_peft_model(share_parameters_copy(model).module, LoraConfig(r=3, **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(wrapped.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.with_module(wrapped)


def publish(tiny: Any, folder: Path, family: str = "llama", **settings: Any) -> Path:
    module, tokenizer = tiny(family, **settings)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(family: str, tiny: Any, tmp_path: Path) -> None:
    base = tamperlens.load(publish(tiny, tmp_path / "base", family), device="cpu")
    tuned = tune(base)
    folder = save_adapter(tuned, tmp_path / "adapter")
    assert not list(folder.glob("*.bin"))
    back = tamperlens.load(tmp_path / "base", adapter=folder, device="cpu")
    assert back.fingerprint == tuned.fingerprint != base.fingerprint
    assert torch.equal(back.logits_last(["hello", "b"]), tuned.logits_last(["hello", "b"]))
    assert any("lora_A" in name for name, _ in back.module.named_parameters()), "unmerged"
    assert not back.module.training
    assert not any(p.requires_grad for p in back.module.parameters())
    assert str(folder) in back.name
    assert not torch.equal(back.logits_last(["hello"]), base.logits_last(["hello"]))


def test_attaching_leaves_the_base_alone(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama", fresh=True), name="base")
    folder = save_adapter(tune(base), tmp_path / "adapter")
    before = base.fingerprint, base.generate(["a"], max_new_tokens=4)
    flags = [p.requires_grad for p in base.module.parameters()]
    one, two = attach_adapter(base, folder), attach_adapter(base, folder)
    assert one.fingerprint == two.fingerprint
    assert (base.fingerprint, base.generate(["a"], max_new_tokens=4)) == before
    assert [p.requires_grad for p in base.module.parameters()] == flags
    assert not any("lora" in name for name, _ in base.module.named_parameters())


def test_same_shapes_other_weights(tiny: Any, tmp_path: Path) -> None:
    """What tamperlens saved knows its base by fingerprint: a sibling of the same shape is refused."""
    base = ChatModel.from_parts(*tiny("llama", seed=1), name="organism:aligned")
    sibling = ChatModel.from_parts(*tiny("llama", seed=2), name="organism:base")
    folder = save_adapter(tune(base), tmp_path / "adapter")
    with pytest.raises(
        ModelLoadError, match="made for organism:aligned, not for organism:base; load that base"
    ):
        attach_adapter(sibling, folder)


def test_other_precision_of_the_same_base(tiny: Any, tmp_path: Path) -> None:
    folder = publish(tiny, tmp_path / "base", dtype=torch.bfloat16)
    adapter = save_adapter(tune(tamperlens.load(folder, device="cpu")), tmp_path / "adapter")
    model = tamperlens.load(folder, adapter=adapter, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16


def test_bases_told_apart_by_their_files(tiny: Any, tmp_path: Path) -> None:
    """Adapters that PEFT saved name a folder: one with the same weights is fine, others are not."""
    one = publish(tiny, tmp_path / "one", seed=1)
    two = publish(tiny, tmp_path / "two", seed=2)
    adapter = save_adapter(tune(tamperlens.load(one, device="cpu")), tmp_path / "adapter")
    (adapter / "tamperlens.json").unlink()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(one)
    shutil.copytree(one, tmp_path / "copy")
    for same in (one, tmp_path / "copy"):
        assert tamperlens.load(same, adapter=adapter, device="cpu")
    with pytest.raises(ModelLoadError, match=r"made for .*one, not for .*two; load that base"):
        tamperlens.load(two, adapter=adapter, device="cpu")


@pytest.mark.parametrize(
    ("named", "here", "fits"),
    [
        ("meta/Chat-7b", "meta/chat-7b", True),
        ("mirror/Chat-7b", "meta/Chat-7b", True),
        ("meta/Other-7b", "meta/Chat-7b", False),
        ("", "meta/Chat-7b", True),
        (None, "meta/Chat-7b", True),
        ("/a/folder/that/moved", "meta/Chat-7b", True),
    ],
)
def test_bases_told_apart_by_name(named: Any, here: str, fits: bool, tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name=here)
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    (adapter / "tamperlens.json").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
    if fits:
        attach_adapter(base, adapter)
        return
    with pytest.raises(ModelLoadError, match="made for meta/Other-7b, not for meta/Chat-7b"):
        attach_adapter(base, adapter)


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("llama", {"hidden_size": 60}, "the adapter was made for another base"),
        ("llama", {"num_hidden_layers": 2}, r"adapts model\.layers\.2\.\S+, which other does not have"),
        ("llama", {"num_key_value_heads": 3}, r"k_proj.* is \[24, 48\]"),
        ("gpt2", {}, "does not have; it was made for another base"),
        ("phi3", {}, "does not have; it was made for another base"),
    ],
)
def test_other_shapes(family: str, settings: dict[str, Any], words: str, tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    (adapter / "tamperlens.json").unlink()
    other = ChatModel.from_parts(*tiny(family, fresh=True, **settings), name="other")
    with pytest.raises(ModelLoadError, match=words) as caught:
        attach_adapter(other, adapter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gpt_neox"])
def test_shapes_of_fused_and_transposed_projections_fit(family: str, tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny(family), name="")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    (adapter / "tamperlens.json").unlink()
    assert attach_adapter(base, adapter).fingerprint == tune(base).fingerprint


def test_damaged_adapters(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")

    def refused(words: str, error: type[Exception] = ModelLoadError, where: object = adapter) -> None:
        with pytest.raises(error, match=words):
            attach_adapter(base, str(where))

    name = next(iter(weights))
    weights[name][0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors")
    refused("holds NaN", NumericsError)
    (adapter / "adapter_model.safetensors").write_bytes(b"xx")
    refused("is damaged")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    refused("no adapter_model.safetensors")
    (adapter / "adapter_config.json").unlink()
    refused("has no adapter_config.json")
    refused("no adapter 'owner/adapter'", where="owner/adapter")
    refused("no adapter", where=tmp_path / "nowhere")


def test_saving_needs_an_adapter(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carries no adapter"):
        save_adapter(ChatModel.from_parts(*tiny("llama")), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


# ---- nothing missing, nothing left over --------------------------------------------------------------------


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("base_model.model.", "base_model.", 1): tensor for key, tensor in weights.items()}


def without_prefix(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("base_model.model.", "", 1): tensor for key, tensor in weights.items()}


def only_a(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in weights.items() if "lora_A" in key}


def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in weights.items() if ".layers.0." in key}


def unrelated(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"x": torch.zeros(2)}


def one_more(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**weights, "base_model.model.model.norm.extra": torch.zeros(2)}


def another_name(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("lora_A.weight", "lora_A.mine.weight"): tensor for key, tensor in weights.items()}


def longer_b(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: torch.zeros(len(t) + 1, 3) if "lora_B" in k else t for k, t in weights.items()}


def flat(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(tensor.numel()) for key, tensor in weights.items()}


def nothing(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {}


@pytest.mark.parametrize(
    "change",
    [renamed, without_prefix, only_a, half, unrelated, one_more, another_name, longer_b, flat, nothing],
)
@pytest.mark.parametrize("sidecar", [True, False])
def test_adapters_that_are_not_whole(change: Any, sidecar: bool, tiny: Any, tmp_path: Path) -> None:
    """PEFT keeps the base as it is where a tensor is missing or unmatched, and only warns."""
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    if not sidecar:
        (adapter / "tamperlens.json").unlink()
    file = adapter / "adapter_model.safetensors"
    save_file({k: t.contiguous() for k, t in change(load_file(file)).items()}, file)
    with pytest.raises(ModelLoadError) as caught:
        attach_adapter(base, adapter)
    assert "\n" not in str(caught.value)
    assert str(adapter) in str(caught.value)
    assert len(str(caught.value)) < 600


def edit(adapter: Path, **entries: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **entries}))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"r": 1_000_000}, "has rank 3 and adapter_config.json says 1000000"),
        ({"r": 4}, "has rank 3 and adapter_config.json says 4"),
        ({"rank_pattern": {"q_proj": 10**9}}, "adapter_config.json says 1000000000"),
        ({"r": 0}, "adapter_config.json says 0"),
        ({"r": "many"}, "adapter_config.json"),
        ({"target_modules": ["q_proj"]}, "fits nowhere"),
        ({"target_modules": ["no_such"]}, "No module|not found|no_such"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"peft_type": "MAGIC"}, "damaged"),
        ({"peft_type": None}, "damaged|names no peft_type"),
        ({"peft_type": "VERA", "r": 10**6}, "asks for a tensor of"),
        ({"peft_type": "LOHA", "r": 10**8}, "asks for a tensor of"),
    ],
)
def test_settings_that_do_not_belong(entries: dict[str, Any], words: str, tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    if "peft_type" in entries:
        save_file({"x": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    edit(adapter, **entries)
    with pytest.raises(ModelLoadError, match=words) as caught:
        attach_adapter(base, adapter)
    assert "\n" not in str(caught.value)


def test_a_base_of_another_name_is_noted(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="meta/Chat-7b")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    edit(adapter, base_model_name_or_path="mirror/Chat-7b")
    assert attach_adapter(base, adapter).notes == base.notes, "the fingerprint proves the base"
    (adapter / "tamperlens.json").unlink()
    assert any("names mirror/Chat-7b as its base" in note for note in attach_adapter(base, adapter).notes)
    edit(adapter, base_model_name_or_path="meta/Chat-7b")
    assert attach_adapter(base, adapter).notes == base.notes


@pytest.mark.parametrize(
    ("where", "wrapper"),
    [
        ("base_model.model.", "_orig_mod."),
        (".layers.0.", "_fsdp_wrapped_module."),
        (".self_attn.", "_checkpoint_wrapped_module."),
    ],
)
def test_saved_while_wrapped(where: str, wrapper: str, tiny: Any, tmp_path: Path) -> None:
    """torch.compile, FSDP and gradient checkpointing leave their names in the file."""
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    whole = attach_adapter(base, adapter).fingerprint
    file = adapter / "adapter_model.safetensors"
    names = {key: key.replace(where, where + wrapper) for key in load_file(file)}
    assert any(wrapper in name for name in names.values())
    save_file({names[key]: tensor for key, tensor in load_file(file).items()}, file)
    assert attach_adapter(base, adapter).fingerprint == whole


def test_settings_of_another_release_are_noted(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    edit(adapter, enable_lora=None, merge_weights=False, peft_version="99.1")
    assert attach_adapter(base, adapter).notes == base.notes, "they ask for nothing"
    edit(adapter, use_something_new=True)
    assert any(
        "does not know and leaves out: use_something_new" in n for n in attach_adapter(base, adapter).notes
    )


def test_a_longer_vocabulary_says_what_to_do(tiny: Any, tmp_path: Path) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    base = ChatModel.from_parts(module, tokenizer, name="base")
    longer = share_parameters_copy(base).module
    size = longer.get_input_embeddings().weight.shape[0]
    longer.resize_token_embeddings(size + 5, mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    get_peft_model(longer, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelLoadError, match=rf"resize_token_embeddings\({size + 5}\)"):
        attach_adapter(base, tmp_path / "adapter")


def test_the_folder_below_is_named(tiny: Any, tmp_path: Path) -> None:
    """PEFT saves an adapter that has a name into a folder of that name."""
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    save_adapter(tune(base), tmp_path / "adapter" / "mine")
    with pytest.raises(ModelLoadError, match=r"no adapter_config.json \(mine in it has one\)"):
        attach_adapter(base, tmp_path / "adapter")


def test_one_adapter_at_a_time(tiny: Any, tmp_path: Path) -> None:
    base = ChatModel.from_parts(*tiny("llama"), name="base")
    adapter = save_adapter(tune(base), tmp_path / "adapter")
    with pytest.raises(InputError, match="already carries an adapter"):
        attach_adapter(attach_adapter(base, adapter), adapter)


def test_a_write_that_torch_does_not_see_is_found(tiny: Any) -> None:
    """The last line: a changed weight of the base is an error, not another model."""
    module, _ = tiny("llama", fresh=True)

    def wrap(copy: torch.nn.Module) -> torch.nn.Module:
        next(copy.parameters()).detach().numpy()[3, 1] += 1e-7
        return copy

    with pytest.raises(ModelLoadError, match="mine changed weights of its base"):
        wrap_without_writing(module, wrap, "mine")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("size", [1, 3, 8, 1001])
def test_checksums_see_every_bit(dtype: torch.dtype, size: int) -> None:
    module = torch.nn.Module()
    whole = torch.arange(1, size + 4).to(dtype)
    module.register_buffer("x", whole[3:])  # not aligned
    before = checksums(module)
    for index in range(0, size, max(1, size // 7)):
        old = whole[3 + index].clone()
        whole[3 + index] = 0
        assert checksums(module) != before
        whole[3 + index] = old
    assert checksums(module) == before
