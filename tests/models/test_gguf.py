"""GGUF files load as ordinary modules, and what cannot be read is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tamperlens
from tamperlens.base.errors import InputError, ModelLoadError
from tamperlens.models import ChatModel, attach_adapter, save_adapter

gguf = pytest.importorskip("gguf")

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(parameter: str) -> str:
    for ours, theirs in {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    }.items():
        if parameter.startswith(ours):
            return parameter.replace(ours, theirs)
    _, _, layer, rest = parameter.split(".", 3)
    inner, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[inner]}.{kind}"


def write(module: Any, tokenizer: Any, file: Path, *, kind: str = "F32", twice: bool = False) -> Path:
    """What llama.cpp's converter writes of a Qwen2 model, by its own library."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    config = module.config
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_name("Tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)
    specials = ["<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokens = [*specials, *bytes_to_unicode().values(), "ab", "<b>", "<c>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 5 + [1] * 257 + [5] * 2)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_pad_token_id(0)
    writer.add_chat_template(
        tokenizer.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    )
    wanted = gguf.GGMLQuantizationType[kind]
    state = dict(module.state_dict())
    if not twice:
        state.pop("lm_head.weight")
    for name, tensor in state.items():
        data = tensor.float().numpy()
        raw = wanted if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(data, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def source(tiny: Any) -> Any:
    return tiny("qwen2", **SIZES, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def file(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(*source, tmp_path_factory.mktemp("gguf") / "tiny-f32.gguf")


def refused(path: Path, words: str, error: type[Exception] = ModelLoadError, **settings: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        tamperlens.load(path, device="cpu", **settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_same_model(source: Any, file: Path) -> None:
    module, _ = source
    model = tamperlens.load(file, device="cpu")
    state = model.module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert model.module.get_output_embeddings().weight is model.module.get_input_embeddings().weight
    assert any("dequantised to float32" in note for note in model.notes)
    assert model.name == str(file)
    ids = torch.tensor([[5, 6, 7, 100, 33]])
    with torch.no_grad():
        torch.testing.assert_close(model.module(ids).logits, module(ids).logits, rtol=0, atol=1e-5)
    assert model.generate(["hello"], max_new_tokens=3)
    assert model.chat_format.template


def test_it_is_an_ordinary_model(file: Path, tmp_path: Path) -> None:
    """Saved, read again, tuned and carrying an adapter like any other."""
    from tamperlens import finetune

    model = tamperlens.load(file, device="cpu")
    model.module.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    again = tamperlens.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == model.fingerprint
    assert not any("dequantised" in note for note in again.notes)
    assert again.token_ids(["Hello, you."]) == model.token_ids(["Hello, you."])
    tuned = finetune.run(model, [("a", "b"), ("c", "d")], finetune.LoraConfig(steps=1))
    back = attach_adapter(model, save_adapter(tuned.model, tmp_path / "adapter"))
    assert torch.equal(back.logits_last(["x"]), tuned.model.logits_last(["x"]))


@pytest.mark.parametrize(("dtype", "wanted"), [("bfloat16", torch.bfloat16), ("auto", torch.float32)])
def test_quantised(dtype: str, wanted: torch.dtype, source: Any, tmp_path: Path) -> None:
    model = tamperlens.load(write(*source, tmp_path / "q8.gguf", kind="Q8_0"), device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.module.parameters()} == {wanted}
    true = source[0].model.layers[0].mlp.up_proj.weight
    found = model.module.model.layers[0].mlp.up_proj.weight.float()
    assert 0 < float((found - true).abs().max() / true.abs().max()) < 0.02


@pytest.mark.parametrize("equal", [True, False])
def test_an_unembedding_written_twice(equal: bool, tiny: Any, tmp_path: Path) -> None:
    module, tokenizer = tiny("qwen2", **SIZES, tie_word_embeddings=equal)
    model = tamperlens.load(write(module, tokenizer, tmp_path / "m.gguf", twice=True), device="cpu")
    tied = model.module.get_output_embeddings().weight is model.module.get_input_embeddings().weight
    assert tied == equal == model.module.config.tie_word_embeddings
    model.module.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    assert tamperlens.load(tmp_path / "saved", device="cpu").fingerprint == model.fingerprint


def test_folders(source: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(file.read_bytes())
    (tmp_path / "mmproj-a.gguf").write_bytes(b"a vision tower")
    assert (
        tamperlens.load(tmp_path, device="cpu").fingerprint == tamperlens.load(file, device="cpu").fingerprint
    )
    (tmp_path / "config.json").write_text("{}")  # hubs put one beside their files
    assert tamperlens.load(tmp_path, device="cpu").name == str(tmp_path)
    (tmp_path / "b.gguf").write_bytes(file.read_bytes())
    refused(tmp_path, r"holds 2 GGUF files \(a\.gguf, b\.gguf\); name one of them: load\('.*a\.gguf'\)")
    source[0].save_pretrained(tmp_path)
    source[1].save_pretrained(tmp_path)
    assert tamperlens.load(tmp_path, device="cpu").notes == (), "the folder's own weights come first"


def test_bad_files(source: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.gguf"
    for content, words in (
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 something", "not a GGUF file"),
        (b"GGUF" + b"\xff" * 40, "cannot be read as GGUF|damaged"),
        (file.read_bytes()[:5000], "cannot be read as GGUF|cut short"),
        (file.read_bytes()[:-5000], "cannot be read as GGUF|cut short"),
    ):
        bad.write_bytes(content)
        refused(bad, words)
    bad.write_bytes(file.read_bytes().replace(b"qwen2", b"dream"))
    refused(bad, "architecture 'dream', which transformers cannot read")
    part = tmp_path / "m-00001-of-00002.gguf"
    part.write_bytes(file.read_bytes())
    refused(part, "one part of a split model")
    refused(tmp_path / "none.gguf", "no folder")
    refused(file, "leave quantization away", InputError, quantization="4bit")
    q8 = write(*source, tmp_path / "q8.gguf", kind="Q8_0")
    monkeypatch.delitem(gguf.quants._type_traits, gguf.GGMLQuantizationType.Q8_0)
    refused(q8, "as Q8_0, which cannot be dequantised")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(file, r"pip install 'tamperlens\[gguf\]'")


def test_equal_to_the_converted_folder() -> None:
    """SmolLM2 from its file and from the folder that was made of it, where both are at hand."""
    import os

    where = Path(os.environ.get("TAMPERLENS_REAL", "nowhere"))
    files = list(where.glob("SmolLM2*.gguf"))
    if not files or not (where / "smollm2").is_dir():
        pytest.skip("TAMPERLENS_REAL names no folder with SmolLM2 as GGUF and as a folder")
    one, two = (tamperlens.load(path, device="cpu") for path in (files[0], where / "smollm2"))
    assert isinstance(one, ChatModel)
    assert one.fingerprint == two.fingerprint
    assert one.generate(["Name a bird."], max_new_tokens=8) == two.generate(
        ["Name a bird."], max_new_tokens=8
    )
