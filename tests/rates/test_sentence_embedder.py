"""The sentence embedder without sentence-transformers, against the definition; the default embedder."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

import tamperlens
from tamperlens import refusal
from tamperlens.base.errors import InputError

TEXTS = ["a red tree", "no", "a tree and a fish and a red tree and no fish and a tree"]


def sentence_model(folder: Path, **pooling: bool) -> Path:
    """A random BERT as sentence-transformers saves one."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "tree", "and", "fish", "no"]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 16, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}', encoding="utf-8")
    return folder


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="it reads them itself"
)
def test_it_is_the_mean_over_a_texts_own_tokens(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "bert")
    found = refusal.SentenceEmbedder(str(folder))(TEXTS)
    module, tokenizer = BertModel.from_pretrained(folder).eval(), BertTokenizerFast.from_pretrained(folder)
    for row, text in zip(found, TEXTS, strict=True):  # one by one: no padding; cut after 8 tokens
        ids = tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= 8 else [*ids[:7], tokenizer.sep_token_id]
        with torch.no_grad():
            states = module(input_ids=torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(row, states.mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert refusal.SentenceEmbedder(str(folder))([]).shape == (0, 16)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="it reads them itself"
)
def test_another_pooling_and_an_absent_model_are_one_line(tmp_path: Path) -> None:
    other = sentence_model(tmp_path / "cls", pooling_mode_cls_token=True)
    for name, words in ((str(other), "does not average"), (str(tmp_path / "no"), "no sentence embedder")):
        with pytest.raises(InputError, match=words) as caught:
            refusal.SentenceEmbedder(name)
        assert "tamperlens[embeddings]" in str(caught.value) and "\n" not in str(caught.value)


def test_the_default_is_the_sentence_embedder_where_one_is_at_hand(
    tmp_path: Path, chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = chat("llama")
    monkeypatch.setenv("TAMPERLENS_EMBEDDER", str(sentence_model(tmp_path / "bert")))
    assert refusal.default_embedder(model).name == str(tmp_path / "bert")
    assert refusal.default_embedder(tamperlens.load("organism:tiny")).name.startswith("mean hidden state")
    monkeypatch.setenv("TAMPERLENS_EMBEDDER", str(tmp_path / "none"))
    with pytest.warns(UserWarning, match="hardly tell answers apart"):
        assert refusal.default_embedder(model).name.startswith("mean hidden state")
