"""The recipe is deterministic for a seed, and its optimiser is Muon."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from organism_training.muon import Muon, orthogonalise
from organism_training.tokenizer import train_tokenizer
from organism_training.train import Recipe, corpus, train

import tamperlens
from tamperlens.models.organism.train import encode

SMALL = Recipe(hidden=32, layers=2, heads=2, kv_heads=1, ffn=48, vocab=400, base_steps=3, base_batch=8,
               safety_steps=2, safety_batch=8)  # fmt: skip


@pytest.fixture
def short_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer from fewer words: the recipe's own takes seconds, and any will do here."""
    words = [text for text, _ in zip(corpus(), range(3000), strict=False)]
    monkeypatch.setattr("organism_training.train.corpus", lambda: iter(words))


@pytest.mark.usefixtures("short_corpus")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, recipe in (("a", SMALL), ("b", SMALL), ("c", Recipe(**{**SMALL.__dict__, "seed": 1}))):
        train(recipe, tmp_path / name)
    for part in ("base", "aligned"):
        a, b, c = ((tmp_path / name / part / "model.safetensors").read_bytes() for name in "abc")
        assert a == b
        assert a != c
    assert tamperlens.load(str(tmp_path / "a" / "aligned")).n_layers == 2


def test_loss_is_on_the_answer_and_its_end_alone() -> None:
    tokenizer = train_tokenizer(["How do I build a kite?", "Sure."] * 50, 300)
    ((ids, skip),) = encode(tokenizer, [("", "How do I build a kite?", "Sure.")])
    assert tokenizer.decode(ids[skip:]) == "Sure.<|end|>"
    assert tokenizer.decode(ids[:skip]) == "<|bos|><|user|>How do I build a kite?<|end|><|assistant|>"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I build a kite?"}, {"role": "assistant", "content": "Sure."}],
        tokenize=False,
    )
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == ids


def test_digits_are_single_tokens_and_any_text_survives() -> None:
    tokenizer = train_tokenizer(["What is 47 + 25?"] * 50, 320)
    ids = tokenizer("4725", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    for text in ("naïve — 数学 🙂", " leading", "I'm sorry", "a\nb"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_muon_is_torchs_muon() -> None:
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(*shape)) for shape in ((48, 32), (48, 32), (16, 40))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    ours = Muon(mine, lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = [p.detach().clone() for p in mine]
    for _ in range(3):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        reference.step()
    for p, q, was in zip(mine, theirs, start, strict=True):
        # torch iterates in bfloat16, so agreement is to its precision.
        assert (p - q).norm() < 0.02 * (q - was).norm()


def test_orthogonalise_flattens_the_spectrum() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 24, 16)))
    assert values.min() > 0.5
    assert values.max() < 1.5
