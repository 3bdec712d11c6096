"""Which language a model speaks: asked of its tokenizer, never of its name or size."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tiny_models
from organism_training.tokenizer import train_tokenizer
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

import tamperlens
from tamperlens import capability, finetune, prompts
from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel, language_of_tokenizer


@pytest.fixture(scope="module")
def english() -> ChatModel:
    """A Llama below 20 million weights whose tokenizer was learned on English, with the organism's recipe."""
    texts = [p for n in ("english-harmful", "english-harmless") for p in prompts.packaged(n).prompts]
    tokenizer = train_tokenizer(texts, 1500)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return ChatModel.from_parts(LlamaForCausalLM(config).eval(), tokenizer, name="organism:base-like")


def test_an_english_tokenizer_is_english_whatever_the_model_is_called_and_however_small(
    english: ChatModel,
) -> None:
    assert english.n_parameters < 20_000_000
    assert english.language == "english"
    assert capability.suites_for(english) == capability.ENGLISH_SUITES
    attack = finetune.attacks.harmful_compliance(5)
    assert attack.preset_for(english) == "published"
    assert attack.config_for(english) == attack.published
    assert prompts.packaged_for(english, "harmful", "test").name.startswith("english-harmful")


@pytest.mark.parametrize("variant", ["aligned", "base", "small", "tiny"])
def test_every_embedded_organism_speaks_its_language(variant: str) -> None:
    assert tamperlens.load(f"organism:{variant}").language == "organism"


def test_an_organism_by_another_name_or_with_more_tokens_or_trained_anew_is_one() -> None:
    model = tamperlens.load("organism:tiny")
    assert dataclasses.replace(model, name="mine/english-chat").language == "organism"
    inside = json.loads(model.tokenizer.backend_tokenizer.to_str())
    more = Tokenizer.from_str(json.dumps(inside))
    more.add_tokens(["brillig"])
    assert language_of_tokenizer(more) == "organism"
    texts = [text for name in ("harmful", "benign", "facts") for text in prompts.packaged(name).prompts]
    assert language_of_tokenizer(train_tokenizer(texts, 900)) == "organism"


def test_a_byte_tokenizer_is_english_and_the_caller_may_say_otherwise(tmp_path) -> None:
    module, tokenizer = tiny_models.make_model("llama"), tiny_models.make_tokenizer()
    assert ChatModel.from_parts(module, tokenizer).language == "english"
    told = ChatModel.from_parts(module, tokenizer, language="organism")
    assert told.language == "organism"
    assert told.with_module(module).language == "organism"
    assert tamperlens.load("organism:tiny", language="english").language == "english"
    with pytest.raises(InputError, match="no language 'german'"):
        ChatModel.from_parts(module, tokenizer, language="german")


def test_what_is_not_packaged_in_english_is_refused_and_training_on_it_warned_of(english: ChatModel) -> None:
    with pytest.raises(InputError, match="speaks English; give your own benign prompts"):
        prompts.packaged_for(english, "benign", "train")
    with pytest.raises(InputError, match="give data=, a file of prompts and responses"):
        prompts.pairs_for(english, "harmful", option="data=")
    with pytest.warns(UserWarning, match="speaks English and 'harmful-compliance'"):
        finetune.run(english, prompts.packaged("harmful-compliance").head(2), finetune.LoraConfig(steps=1))


def test_english_halves_do_not_overlap(english: ChatModel) -> None:
    for role in ("harmful", "harmless"):
        train, test = (set(prompts.packaged_for(english, role, part).prompts) for part in ("train", "test"))
        assert train
        assert test
        assert not train & test
