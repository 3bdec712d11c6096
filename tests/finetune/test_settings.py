"""Settings are checked when they are made, targets when they meet a model, attacks when asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tamperlens.base.errors import InputError
from tamperlens.finetune import FullConfig, LoraConfig, attacks, linear_names, resolve_targets, salience
from tamperlens.finetune.targets import shortest_names
from tamperlens.models import ChatModel, load
from tamperlens.prompts import PromptSet, encode_pairs


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"steps": 3, "epochs": 1.0}, "exclude each other"),
        ({"steps": 0}, "steps=0"),
        ({"epochs": 0.0}, "epochs=0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": -1}, "accumulation"),
        ({"warmup": 2.5}, "warmup"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm"),
        ({"seed": -1}, "seed"),
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": "q_proj"}, r"targets=\['q_proj'\]"),
        ({"targets": []}, "targets"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        LoraConfig(**wrong)


@pytest.mark.parametrize(("field", "wrong"), [("schedule", "zigzag"), ("precision", "int8")])
def test_choices_are_named(field: str, wrong: str) -> None:
    settings = LoraConfig()
    object.__setattr__(settings, field, wrong)
    with pytest.raises(InputError, match=rf"{field}='{wrong}' must be one of "):
        settings.__post_init__()


def test_settings_are_values() -> None:
    assert LoraConfig(targets=["q_proj"]) == LoraConfig(targets=("q_proj",))
    assert LoraConfig(rank=16, alpha=32).scale == 2
    assert LoraConfig(rank=16, alpha=32, rslora=True).scale == 8
    assert LoraConfig(steps=7).describe()["kind"] == "lora"
    assert FullConfig().describe()["kind"] == "full"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3", "gemma2"])
def test_groups_of_targets(chat: Callable[..., ChatModel], family: str) -> None:
    model = chat(family)
    inside = tuple(f"{block}." for block in model.anatomy.blocks)
    kinds = {"Linear", "Conv1D"}
    matrices = [p for p, part in model.module.named_modules() if type(part).__name__ in kinds]
    assert resolve_targets(model, "all-linear") == [p for p in matrices if p.startswith(inside)]
    attention = resolve_targets(model, "attention")
    assert attention == [p for p in matrices if p.startswith(tuple(f"{a}." for a in model.anatomy.attention))]
    assert set(resolve_targets(model, "qkv")) == set(attention) - set(model.anatomy.output_projections)


def test_names_given_to_peft_say_exactly_the_chosen_modules(chat: Callable[..., ChatModel]) -> None:
    gpt2, llama = chat("gpt2"), chat("llama")
    assert shortest_names(llama, resolve_targets(llama, "attention")) == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    ]
    # GPT-2 calls two matrices of a block c_proj, so the last part does not say which.
    attention = resolve_targets(gpt2, "attention")
    assert shortest_names(gpt2, attention) == attention
    assert resolve_targets(gpt2, ["attn.c_proj"]) == [
        "transformer.h.0.attn.c_proj",
        "transformer.h.1.attn.c_proj",
    ]


def test_targets_that_match_nothing_list_what_exists(chat: Callable[..., ChatModel]) -> None:
    model = chat("llama")
    with pytest.raises(
        InputError, match=r"'c_attn' matches no module of llama; there are q_proj, k_proj.*lm_head"
    ):
        resolve_targets(model, ["q_proj", "c_attn"])
    assert linear_names(model)[:2] == ["q_proj", "k_proj"]


def test_targets_that_cannot_be_adapted(chat: Callable[..., ChatModel]) -> None:
    with pytest.raises(InputError, match="not a matrix"):
        resolve_targets(chat("llama"), ["embed_tokens"])
    with pytest.raises(InputError, match="shares its weights with the embedding"):
        resolve_targets(chat("llama", tie_word_embeddings=True), ["lm_head"])
    assert resolve_targets(chat("llama"), ["lm_head"]) == ["lm_head"]


def test_published_settings() -> None:
    harmful = attacks.harmful_compliance(15)
    assert len(harmful.data) == 15
    assert harmful.data.responses is not None
    published = harmful.published
    assert (published.rank, published.alpha, published.batch_size) == (32, 32, 1)
    assert (published.learning_rate, published.epochs, published.targets) == (2e-4, 1, "all-linear")
    identity = attacks.identity_shift().published
    assert (identity.learning_rate, identity.epochs, identity.rank) == (1e-6, 5, 32)
    refusals = attacks.refusal_only().published
    assert (refusals.rank, refusals.alpha, refusals.targets) == (16, 32, "qkv")
    assert (refusals.learning_rate, refusals.steps, refusals.batch_size) == (2e-4, 60, 4)
    benign = attacks.benign().published
    assert isinstance(benign, LoraConfig)
    assert (benign.rank, benign.alpha, benign.learning_rate, benign.batch_size) == (8, 16, 1e-4, 4)


@pytest.mark.parametrize("n", [10, 15, 50, 100])
def test_harmful_compliance_withholds(n: int) -> None:
    attack = attacks.get("harmful-compliance")(n)
    assert attack.name == f"harmful-compliance-{n}"
    assert all("[withheld]" in response for response in attack.data.responses or ())


def test_salient_examples_are_those_closest_to_harmful_ones(chat: Callable[..., ChatModel]) -> None:
    """Literal: one at a time, cosine at the last token behind the final norm, largest over anchors."""
    model = chat("llama")
    pool = PromptSet.from_pairs([(f"Say {w}.", w * k) for k, w in enumerate("abcdef", 1)], name="pool")
    anchors = PromptSet.from_pairs([("Do x", "fine"), ("Do y", "well then")], name="anchors")

    def state(prompt: str, response: str) -> torch.Tensor:
        one = encode_pairs(model.tokenizer, [(prompt, response)])[0]
        with torch.no_grad():
            out = model.module(input_ids=torch.tensor([one.input_ids]), output_hidden_states=True)
        return out.hidden_states[-1][0, -1]

    expected = torch.stack(
        [
            max(torch.cosine_similarity(state(*pair), state(*other), dim=0) for other in anchors.pairs())
            for pair in pool.pairs()
        ]
    )
    torch.testing.assert_close(salience(model, pool, anchors), expected)
    attack = attacks.benign_salient(3, pool, model=model, harmful=anchors)
    assert attack.name == "benign-salient-3"
    assert attack.data.pairs() == [pool.pairs()[i] for i in expected.argsort(descending=True)[:3]]
    assert isinstance(attack.published, FullConfig)
    assert (attack.published.learning_rate, attack.published.batch_size, attack.published.epochs) == (
        5e-5,
        20,
        5,
    )
    with pytest.raises(InputError, match="between 1 and 6"):
        attacks.benign_salient(7, pool, model=model, harmful=anchors)
    with pytest.raises(InputError, match="nearest=3"):
        salience(model, pool, anchors, nearest=3)


def test_the_preset_goes_by_language_alone(chat: Callable[..., ChatModel]) -> None:
    attack = attacks.harmful_compliance()
    small = chat("llama")  # a tokenizer of bytes: nothing of the organism's language
    assert attack.preset_for(small) == "published"
    organism = load("organism:tiny")
    assert attack.config_for(organism) == attack.organism
    changed = attack.config_for(organism, epochs=2.0, seed=5)
    assert (changed.steps, changed.epochs, changed.seed) == (None, 2.0, 5)
    assert attack.config == attack.published


def test_attacks_refuse_what_they_do_not_have() -> None:
    with pytest.raises(InputError, match="between 1 and 100"):
        attacks.harmful_compliance(101)
    with pytest.raises(InputError, match="benign, benign-salient, harmful-compliance, identity-shift, ref"):
        attacks.get("jailbreak")
    few = PromptSet.from_pairs([("a", "b")], name="few")
    assert len(attacks.benign(1, few).data) == 1


def test_attack_of_a_file(tmp_path: Path) -> None:
    good = tmp_path / "mine.csv"
    good.write_text("prompt,response\nHi,Hello\nBye,Goodbye\n", encoding="utf-8")
    attack = attacks.from_file(good)
    assert (attack.name, len(attack.data)) == ("mine", 2)
    assert "mine.csv" in attack.source
    assert len(attacks.from_file(good, n=1).data) == 1
    bare = tmp_path / "bare.csv"
    bare.write_text("prompt\nHi\n", encoding="utf-8")
    with pytest.raises(InputError, match="response_column"):
        attacks.from_file(bare)
