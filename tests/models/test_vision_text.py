"""Adapters of a checkpoint with text and vision attach to the language model that `load` takes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import make_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

import tamperlens

IDS = torch.tensor([[5, 6, 7, 30, 40, 77, 101, 6]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma3") / "base"
    sizes = {"num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    text = {"vocab_size": 264, "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config={**sizes, **text, "sliding_window": 16},
        vision_config={**sizes, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=261,
        boi_token_index=262,
        eoi_token_index=263,
    )
    module = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    module.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"target_modules": r".*language_model.*\.(q_proj|v_proj)"}, False),
        ({"target_modules": ["q_proj", "down_proj"]}, True),
        ({"target_modules": "all-linear"}, True),
        ({"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*vision.*"}, False),
        ({"target_modules": ["q_proj"], "exclude_modules": r".*vision.*", "layers_to_transform": [1]}, False),
        (
            {
                "target_modules": ["model.language_model.layers.1.mlp.up_proj"],
                "rank_pattern": {"model.language_model.layers.1.mlp.up_proj": 2},
                "alpha_pattern": {"model.language_model.layers.1.mlp.up_proj": 5},
            },
            False,
        ),
        ({"target_modules": r".*language_model.*q_proj", "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": r".*language_model.*q_proj", "use_dora": True}, False),
    ],
)
def test_same_logits_as_the_whole(
    settings: dict[str, Any], left_out: bool, whole: Path, tmp_path: Path
) -> None:
    config = LoraConfig(**{"r": 3, "init_lora_weights": False, "task_type": "CAUSAL_LM", **settings})
    tuned = get_peft_model(Gemma3ForConditionalGeneration.from_pretrained(whole).eval(), config)
    tuned.save_pretrained(tmp_path / "adapter")
    plain = Gemma3ForConditionalGeneration.from_pretrained(whole).eval()
    with torch.no_grad():
        before = plain(input_ids=IDS).logits
        truth = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()(input_ids=IDS).logits
    model = tamperlens.load(whole, adapter=tmp_path / "adapter", device="cpu")
    with torch.no_grad():
        found = model.module(input_ids=IDS).logits
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)
    assert float((truth - before).abs().max()) > 1e-3
    assert any("left out" in note for note in model.notes) == left_out


@pytest.mark.parametrize("old", ["model.language_model.", "language_model.model."])
def test_names_of_both_releases(old: str, whole: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = LoraConfig(r=3, init_lora_weights=False, target_modules=["q_proj"], task_type="CAUSAL_LM")
    base = tamperlens.load(whole, device="cpu")
    tuned = get_peft_model(tamperlens.load(whole, device="cpu").module, config).eval()
    tuned.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    prefix = "base_model.model."
    names = {k: k.replace(f"{prefix}model.", prefix + old, 1) for k in load_file(file)}
    save_file({names[key]: tensor for key, tensor in load_file(file).items()}, file)
    from tamperlens.models import attach_adapter

    with torch.no_grad():
        want = tuned(input_ids=IDS).logits
        assert torch.allclose(attach_adapter(base, tmp_path).module(input_ids=IDS).logits, want, atol=1e-5)


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 300, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 16}
SEES = {**SIZES, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
END = make_tokenizer().eos_token_id  # the default of these families lies outside 300 tokens
MROPE = {
    **TEXT,
    "eos_token_id": END,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3], "rope_type": "default"},
}
DEEP = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": 14}
PLACES = dict(zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
                  range(290, 294), strict=True))  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llava": {"text_config": {**TEXT, "model_type": "llama"},
              "vision_config": {**SEES, "model_type": "clip_vision_model"}, "image_token_index": 290},
    "mistral3": {"text_config": {**TEXT, "model_type": "mistral"},
                 "vision_config": {**SEES, "model_type": "pixtral", "head_dim": 16},
                 "image_token_index": 290},
    "smolvlm": {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": SEES, "image_token_id": 290,
                "scale_factor": 1},
    "paligemma": {"text_config": {**TEXT, "model_type": "gemma"}, "image_token_index": 290,
                  "vision_config": {**SEES, "model_type": "siglip_vision_model"}, "projection_dim": 32},
    "internvl": {"text_config": {**TEXT, "model_type": "qwen2"}, "image_token_id": 290,
                 "vision_config": {**SEES, "model_type": "internvl_vision", "image_size": [28, 28],
                                   "patch_size": [14, 14]}},
    "qwen2_vl": {"text_config": MROPE, "vision_config": {**DEEP, "embed_dim": 32, "mlp_ratio": 2}, **PLACES},
    "qwen2_5_vl": {"text_config": MROPE, **PLACES,
                   "vision_config": {**DEEP, "out_hidden_size": 32, "fullatt_block_indexes": [0]}},
    "qwen3_vl": {"text_config": MROPE, **PLACES,
                 "vision_config": {**DEEP, "out_hidden_size": 32, "num_position_embeddings": 16,
                                   "deepstack_visual_indexes": [0]}},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_compute_what_the_whole_computes(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family], tie_word_embeddings=False)
    made = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    made.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    settings = LoraConfig(r=3, init_lora_weights=False, target_modules="all-linear")
    tuned = get_peft_model(made, settings).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        truth = tuned(input_ids=IDS).logits
        with tuned.disable_adapter():
            before = tuned(input_ids=IDS).logits
        plain = tamperlens.load(tmp_path / "base", device="cpu").module(input_ids=IDS).logits
        model = tamperlens.load(tmp_path / "base", adapter=tmp_path / "adapter", device="cpu")
        found = model.module(input_ids=IDS).logits
    torch.testing.assert_close(plain, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)
    assert float((truth - before).abs().max()) > 1e-2
    assert any("left out" in note for note in model.notes)
