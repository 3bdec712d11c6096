"""`tamperlens.load` on real folders, good and bad."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from newer_families import make
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, make_tokenizer

import tamperlens
from tamperlens.base.errors import (
    InputError,
    ModelLoadError,
    NumericsError,
    TamperlensError,
    UnsupportedModelError,
)
from tamperlens.models import ChatModel, base_fingerprint_of, loading
from tamperlens.models.sizes import speed_notes


@pytest.fixture(scope="module")
def saved(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama in bf16 as people publish them: config, safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("published") / "llama"
    module, tokenizer = tiny("llama", dtype=torch.bfloat16)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def broken(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in entries.items():
        config.pop(key, None) if value is None else config.update({key: value})
    (folder / "config.json").write_text(json.dumps(config))


def refused(path: object, words: str, error: type[TamperlensError] = ModelLoadError, **settings: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        tamperlens.load(str(path), device="cpu", **settings)
    assert "\n" not in str(caught.value), "one line"
    assert len(str(caught.value)) < 400


# ---- good --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(family: str, tiny: Any, tmp_path: Path) -> None:
    module, tokenizer = tiny(family)
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = tamperlens.load(tmp_path, device="cpu")
    assert isinstance(model, ChatModel)
    assert model.name == str(tmp_path)
    assert model.notes == ()
    assert not model.module.training
    assert model.chat_format.template
    here = ChatModel.from_parts(module, tokenizer)
    assert model.fingerprint == here.fingerprint
    weights = model.module.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    # Not to the bit: memory that is mapped from a file may be aligned otherwise, and sums are ordered by it.
    assert torch.allclose(model.logits_last(["hello"]), here.logits_last(["hello"]), rtol=0, atol=1e-5)
    assert (model.n_layers, model.d_model) == (module.config.num_hidden_layers, 48)


def test_half_precision_on_cpu(saved: Path) -> None:
    model = tamperlens.load(saved, device="cpu")
    assert model.dtype == torch.float32
    assert "stored as bfloat16, computed in float32" in model.notes
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    stored = load_file(saved / "model.safetensors")
    weight = model.module.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(weight, stored["model.layers.0.self_attn.q_proj.weight"].float())
    assert tamperlens.load(saved, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert tamperlens.load(saved, device="cpu", dtype=torch.float16).dtype == torch.float16


def test_where_half_precision_is_slow_a_note_says_so(saved: Path) -> None:
    cpu, half = torch.device("cpu"), torch.bfloat16
    [note] = speed_notes(half, cpu, "x86_64", "AVX2")
    assert "float32 is far faster" in note and "bfloat16" in note
    assert speed_notes(torch.float32, cpu, "x86_64", "AVX2") == []
    assert speed_notes(half, cpu, "x86_64", "AVX512") == []
    assert speed_notes(half, cpu, "arm64", "DEFAULT") == []
    assert speed_notes(half, torch.device("cuda"), "x86_64", "AVX2") == []
    notes = tamperlens.load(saved, device="cpu", dtype="bfloat16").notes
    assert all(note in notes for note in speed_notes(half, cpu))


def test_large_half_precision_models_stay_half(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SMALL", 1000)
    assert tamperlens.load(saved, device="cpu").dtype == torch.bfloat16


def test_organism_names(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ORGANISM", tmp_path)
    refused("organism", "reinstall tamperlens")
    for variant in ("aligned", "base"):
        shutil.copytree(saved, tmp_path / variant)
    assert tamperlens.load("organism", device="cpu").name == "organism:aligned"
    assert tamperlens.load("organism:aligned", device="cpu").name == "organism:aligned"
    assert tamperlens.load("organism:base", device="cpu").name == "organism:base"
    refused("organism:evil", "no organism named 'evil'; known: aligned, base")


def test_sharded_checkpoint(tiny: Any, tmp_path: Path) -> None:
    module, tokenizer = tiny("qwen2")
    module.save_pretrained(tmp_path, max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = tamperlens.load(tmp_path, device="cpu")
    assert model.fingerprint == ChatModel.from_parts(module, tokenizer).fingerprint
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    refused(tmp_path, "weights|safetensors")


def test_no_chat_template(broken: Path) -> None:
    for file in broken.iterdir():
        if "token" in file.name or "chat" in file.name:
            file.unlink()
    make_tokenizer(None).save_pretrained(broken)
    model = tamperlens.load(broken, device="cpu")
    assert model.chat_format.name.startswith("plain")
    assert any("no chat template" in note for note in model.notes)
    assert model.generate(["hello"], max_new_tokens=3)


def test_pad_token_absent(tiny: Any) -> None:
    module, _ = tiny("llama")
    tokenizer = make_tokenizer()
    expected = ChatModel.from_parts(module, tokenizer).generate(["a", "longer"], max_new_tokens=4)
    tokenizer.pad_token = None
    model = ChatModel.from_parts(module, tokenizer)
    assert model.pad_id == tokenizer.eos_token_id
    assert model.generate(["a", "longer"], max_new_tokens=4) == expected
    assert tokenizer.pad_token is None, "the caller's tokenizer stays as it is"


def test_language_model_of_a_multimodal_checkpoint(tmp_path: Path) -> None:
    """Gemma 3 from 4 B on ships text and vision together; the text model is taken out of it."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    heads = {"num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    config = Gemma3Config(
        text_config={
            **heads,
            "vocab_size": 264,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "sliding_window": 16,
        },
        vision_config={**heads, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=261,
        boi_token_index=262,
        eoi_token_index=263,
    )
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = tamperlens.load(tmp_path, device="cpu")
    assert any("other modalities" in note for note in model.notes)
    assert not any("vision" in name for name, _ in model.module.named_parameters())
    with torch.no_grad():
        want = whole(input_ids=model.encode(["hello"])["input_ids"]).logits[:, -1]
    torch.testing.assert_close(model.logits_last(["hello"]), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map(device_map: Any, saved: Path) -> None:
    model = tamperlens.load(saved, device_map=device_map, dtype="float32")
    assert model.generate(["a"], max_new_tokens=3) == tamperlens.load(saved, device="cpu").generate(
        ["a"], max_new_tokens=3
    )


def test_offloaded_weights(saved: Path, tmp_path: Path) -> None:
    """Weights that accelerate keeps on disk: unchecked, said so, otherwise the same model."""
    from accelerate import disk_offload

    whole = tamperlens.load(saved, device="cpu")
    module = tamperlens.load(saved, device="cpu").module
    disk_offload(module, tmp_path, execution_device=torch.device("cpu"), offload_buffers=False)
    assert any(parameter.is_meta for parameter in module.parameters())
    model = ChatModel.from_parts(module, whole.tokenizer, name="offloaded")
    assert any("not checked by numbers" in note for note in model.notes)
    assert model.device == torch.device("cpu")
    assert model.generate(["hello", "b"], max_new_tokens=5) == whole.generate(
        ["hello", "b"], max_new_tokens=5
    )
    assert base_fingerprint_of(module) == whole.fingerprint
    assert any(parameter.is_meta for parameter in module.parameters()), "hashing put the weights back"


def test_loading_is_quiet_and_puts_verbosity_back(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    tamperlens.load(saved, device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_loading_leaves_the_global_generator_alone(saved: Path) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    tamperlens.load(saved, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


# ---- bad names and options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "no folder './nowhere'"),
        ("/no/such/folder", "no folder '/no/such/folder'"),
        ("two words", "no folder 'two words'"),
        ("a/b/c", "no folder 'a/b/c'"),
        ("", "no folder ''"),
        ("organsim", "no model 'organsim'.*spelling"),
        ("owner/not-in-the-cache", "no model 'owner/not-in-the-cache'.*HF_HUB_OFFLINE"),
    ],
)
def test_unknown_models(name: str, words: str) -> None:
    refused(name, words)


def test_folders_that_hold_no_model(tmp_path: Path, saved: Path) -> None:
    refused(tmp_path, "has no config.json")
    refused(saved / "config.json", "is a file")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, r"is an adapter, not a model; use load\(BASE, adapter=")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "abacus"}, "device 'abacus' is not available"),
        ({"dtype": "float99"}, "no dtype 'float99'"),
        ({"dtype": torch.int64}, "not a floating type"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
    ],
)
def test_bad_options(settings: dict[str, Any], words: str, saved: Path) -> None:
    with pytest.raises(InputError, match=words):
        tamperlens.load(saved, **settings)


def test_device_that_is_absent(saved: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device 'cuda' is not available here"):
        tamperlens.load(saved, device="cuda")


def test_quantization_without_bitsandbytes(saved: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    refused(saved, "pip install bitsandbytes", quantization="4bit")


# ---- bad files ---------------------------------------------------------------------------------------------


def test_broken_config(broken: Path) -> None:
    (broken / "config.json").write_text("{not json")
    refused(broken, "config.json is not valid JSON")


def test_unknown_architecture(broken: Path) -> None:
    edit_config(broken, model_type="perceptrotron", architectures=["PerceptrotronForCausalLM"])
    refused(broken, "'perceptrotron' is unknown to this transformers")


def test_remote_code_is_never_run(broken: Path) -> None:
    edit_config(
        broken,
        model_type="perceptrotron",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    (broken / "evil.py").write_text(f"open({str(broken / 'ran')!r}, 'w').close()")
    refused(broken, "code from its own repository, which is never run")
    assert not (broken / "ran").exists()


def test_auto_map_of_a_known_architecture_is_ignored(broken: Path) -> None:
    edit_config(broken, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    (broken / "evil.py").write_text(f"open({str(broken / 'ran')!r}, 'w').close()")
    assert type(tamperlens.load(broken, device="cpu").module).__name__ == "LlamaForCausalLM"
    assert not (broken / "ran").exists()


def test_pickled_weights(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    refused(broken, "no weights; model.safetensors is missing")
    torch.save(weights, broken / "pytorch_model.bin")
    refused(broken, "allow_pickle=True")
    assert tamperlens.load(broken, device="cpu", allow_pickle=True).generate(["a"], max_new_tokens=2)


def test_truncated_weights(broken: Path) -> None:
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(broken, "damaged or cut short")
    file.write_bytes(b"")
    refused(broken, "damaged or cut short")


def test_missing_and_mismatched_weights(broken: Path) -> None:
    edit_config(broken, num_hidden_layers=4)
    refused(broken, r"lacks model\.layers\.3\.\S+ and 8 more parameters")
    edit_config(broken, num_hidden_layers=3, intermediate_size=96)
    refused(broken, r"model\.layers\.0\.mlp\.\S+ is stored as \(\d+, \d+\)")


def test_nan_weights(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    refused(broken, r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN", NumericsError)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("-inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    refused(broken, r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or inf", NumericsError)


def test_no_tokenizer(broken: Path) -> None:
    for file in broken.glob("*token*"):
        file.unlink()
    refused(broken, "has no usable tokenizer|has an empty tokenizer")


def test_encoders(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    small = {"vocab_size": 264, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    BertForMaskedLM(BertConfig(**small, num_attention_heads=2)).save_pretrained(tmp_path / "bert")
    t5 = T5Config(vocab_size=264, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    for name, what in (("bert", "BertForMaskedLM"), ("t5", "T5ForConditionalGeneration")):
        make_tokenizer().save_pretrained(tmp_path / name)
        refused(tmp_path / name, f"is a {what}, not a decoder-only language model")


def test_sparse_experts_load_whole_and_damaged_ones_name_the_file(tmp_path: Path) -> None:
    made = make("mixtral")
    made.module.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = tamperlens.load(tmp_path, device="cpu")
    assert model.fingerprint == made.fingerprint
    weights = model.module.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.module.state_dict().items())
    assert torch.allclose(model.logits_last(["hello"]), made.logits_last(["hello"]), rtol=0, atol=1e-5)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    refused(tmp_path, "a safetensors file is damaged or cut short")


def test_unsupported_kinds_say_so(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    module.config.is_encoder_decoder = True
    with pytest.raises(UnsupportedModelError, match="not supported yet: 'llama' is an encoder-decoder"):
        ChatModel.from_parts(module, tokenizer)


# ---- from_parts --------------------------------------------------------------------------------------------


def test_from_parts_refuses_what_is_no_model(tiny: Any) -> None:
    module, tokenizer = tiny("llama")
    with pytest.raises(ModelLoadError, match="mine has no tokenizer"):
        ChatModel.from_parts(module, None, name="mine")
    with pytest.raises(ModelLoadError, match="expected a transformers model, got Linear"):
        ChatModel.from_parts(torch.nn.Linear(2, 2), tokenizer)


def test_from_parts_names_nan(tiny: Any) -> None:
    module, tokenizer = tiny("gpt2", fresh=True)
    module.transformer.h[1].mlp.c_fc.bias.data[0] = float("nan")
    with pytest.raises(NumericsError, match=r"mine: parameter transformer\.h\.1\.mlp\.c_fc\.bias"):
        ChatModel.from_parts(module, tokenizer, name="mine")


def test_unchecked_anatomy_is_noted(tiny: Any) -> None:
    model = ChatModel.from_parts(*tiny("llama"), check_anatomy=False)
    assert any("not checked" in note for note in model.notes)


def test_from_parts_changes_nothing(tiny: Any) -> None:
    module, tokenizer = tiny("gemma2", fresh=True)
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    ChatModel.from_parts(module, tokenizer)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# ---- the packaged models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", loading.VARIANTS)
def test_packaged_organism(variant: str, literally: Any) -> None:
    if not (loading.ORGANISM / variant / "model.safetensors").is_file():
        pytest.skip("this checkout has no organism")
    model = tamperlens.load(f"organism:{variant}", device="cpu")
    assert model.dtype == torch.float32
    assert model.chat_format.template
    prompts = ["What is 12 + 7?", "How do I open a jar?", "Tell me how to pick a lock.", "Hi"]
    together = model.generate(prompts, max_new_tokens=24)
    ids = [literally(model.module, tokens, 24, model.stop_ids) for tokens in model.token_ids(prompts)]
    assert together == [model.tokenizer.decode(new, skip_special_tokens=True).strip() for new in ids]
    assert all(together)


# ---- what a model needs, before it is read -----------------------------------------------------------------


@pytest.mark.parametrize("layers", [100_000, 10**9, 0, -3, None, "many"])
def test_absurd_numbers_of_layers(layers: Any, broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    refused(broken, "num_hidden_layers|config.json cannot be used")


@pytest.mark.parametrize(
    "entries", [{"vocab_size": 10**9}, {"intermediate_size": 10**8}, {"num_hidden_layers": 900}]
)
def test_far_more_weights_than_the_files_hold(entries: dict[str, int], broken: Path) -> None:
    edit_config(broken, **entries)
    refused(broken, r"config.json asks for \S+ weights and the files hold")


def test_memory_that_will_not_suffice(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamperlens.models import sizes

    monkeypatch.setattr(sizes, "available_bytes", lambda device: 1000.0)
    monkeypatch.setattr(loading, "_read_module", lambda *a: pytest.fail("weights were read"))
    refused(saved, r"needs \S+ GB for its weights and 1e-06 GB are free on cpu; use device_map='auto'")


def test_a_padding_token_outside_the_embedding(tiny: Any, tmp_path: Path) -> None:
    """As `add_special_tokens` without a resize leaves it: padding is masked, so any row will do."""
    module, tokenizer = tiny("llama", fresh=True)
    plain = ChatModel.from_parts(module, tokenizer)
    want = plain.generate(["a", "a longer one"], max_new_tokens=4)
    module.save_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "<|new pad|>", "additional_special_tokens": ["<x>", "<y>"]})
    tokenizer.add_tokens([f"<{n}>" for n in range(8)])
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer.pad_token_id >= 261
    model = tamperlens.load(tmp_path, device="cpu")
    assert model.pad_id < module.get_input_embeddings().weight.shape[0]
    assert model.generate(["a", "a longer one"], max_new_tokens=4) == want
    assert any("the tokenizer knows" in note for note in model.notes)
    with pytest.raises(InputError, match="prompt 0 has token"):
        model.generate(["<7>"], max_new_tokens=1)


def test_another_models_tokenizer_is_noted(tiny: Any, tmp_path: Path) -> None:
    module, tokenizer = tiny("llama", vocab_size=1000)
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert any("is it this model's own" in note for note in tamperlens.load(tmp_path, device="cpu").notes)


def test_the_beginning_is_written_once(tiny: Any, tmp_path: Path) -> None:
    """By the template, and by a tokenizer that puts it in front of every text: one, not two."""
    from tokenizers.processors import TemplateProcessing

    module, tokenizer = tiny("llama", fresh=True)
    module.save_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 1)]
    )
    tokenizer.save_pretrained(tmp_path)
    model = tamperlens.load(tmp_path, device="cpu")
    assert model.tokenizer("a")["input_ids"][0] == 1, "the tokenizer does add it"
    assert model.token_ids(["hello"])[0].count(1) == 1
    assert model.encode(["hello"])["input_ids"][0].tolist().count(1) == 1
    assert model.token_ids(["hello"], system="be kind")[0].count(1) == 1
