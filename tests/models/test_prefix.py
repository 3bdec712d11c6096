"""Shared prefixes and passes by tokens change nothing: whole sequences alone are the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES

from tamperlens.models import ChatModel, evaluating, generation
from tamperlens.models.batching import token_chunks
from tamperlens.models.prefix import can_share, common_length, shared_prefix
from tamperlens_hooks import ablate_direction, ablate_heads, add_direction, capture, head_means, patch_heads

SYSTEM = "You are a helpful assistant that answers briefly and in plain words."
PROMPTS = [
    "hello",
    "How do I open a door?",
    "x" * 90,
    "what is 12 + 7?",
    "ünïcode ✓",
    "hello again",
    "?",
    "why",
]
WINDOWED = ("gemma2", "gemma3_text", "mistral")


def make(chat: Any, family: str, window: int = 400) -> ChatModel:
    return chat(family, sliding_window=window) if family in WINDOWED else chat(family)


def sequences(model: ChatModel) -> list[list[int]]:
    return model.token_ids(PROMPTS, system=SYSTEM)


@torch.no_grad()
def alone(model: ChatModel, ids: list[int]) -> torch.Tensor:
    found: torch.Tensor = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return found


def edits(model: ChatModel, name: str) -> Any:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    if name == "ablate":
        return ablate_direction(model, vector)
    if name == "add":
        return add_direction(model, vector, layer=1)
    if name == "zero":
        return ablate_heads(model, heads=[(0, 1), (1, 0)])
    means, _ = head_means(model, batches=[model.encode(PROMPTS)])
    return ablate_heads(model, heads=[(1, 1)], mode=means.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, chat: Any, literally: Any) -> None:
    model = make(chat, family)
    ids = sequences(model)
    with evaluating(model.module):
        prefix = shared_prefix(model.module, ids, pad_id=0, device=model.device, room=12)
    assert prefix.length == common_length(ids) > 60, "nothing was shared, so this tests nothing"
    assert model.generate(PROMPTS, system=SYSTEM, max_new_tokens=12) == [
        model.tokenizer.decode(
            literally(model.module, one, 12, model.stop_ids), skip_special_tokens=True
        ).strip()
        for one in ids
    ]
    got = model.logits_last(PROMPTS, system=SYSTEM)
    for row, one in zip(got, ids, strict=True):
        torch.testing.assert_close(row, alone(model, one), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("edit", ["ablate", "add", "zero", "mean"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text", "gpt_neox"])
def test_edits_act_on_the_prefix(family: str, edit: str, chat: Any, literally: Any) -> None:
    model = make(chat, family)
    ids = sequences(model)
    plain = model.logits_last(PROMPTS, system=SYSTEM)
    with edits(model, edit):
        assert can_share(model.module, 300)
        got = model.logits_last(PROMPTS, system=SYSTEM)
        new = generation.generate_tokens(
            model.module, ids, max_new_tokens=8, stop_ids=model.stop_ids, pad_id=0, device=model.device
        )
        want = torch.stack([alone(model, one) for one in ids])
        assert new == [literally(model.module, one, 8, model.stop_ids) for one in ids]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert float((got - plain).abs().max()) > 0.05


def test_what_looks_at_several_tokens_is_not_split(chat: Any) -> None:
    model = make(chat, "llama")
    ids = sequences(model)
    z = torch.zeros(1, 1, model.anatomy.d_head)
    seen: list[torch.Size] = []
    for edit in (
        capture(model),
        ablate_heads(model, heads=[(0, 0)], mode="mean"),
        patch_heads(model, values={(0, 0): z}),
    ):
        with edit:
            assert not can_share(model.module, 200)
    hook = model.module.model.layers[0].register_forward_hook(
        lambda module, args, out: seen.append(args[0].shape)
    )
    try:
        model.logits_last(PROMPTS, system=SYSTEM)
    finally:
        hook.remove()
    assert sum(shape[0] * shape[1] for shape in seen) >= sum(map(len, ids)), "a reader saw a piece only"
    with capture(model, positions="last") as tape:
        model.logits_last(PROMPTS, system=SYSTEM, batch_size=3)
    assert tape["resid_pre"].shape[1] == len(PROMPTS)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gemma3_text", {"sliding_window": 24}),
        ("mistral", {"sliding_window": 80}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
    ],
)
def test_where_pieces_would_differ_nothing_is_shared(family: str, settings: Any, chat: Any) -> None:
    model = chat(family, **settings)
    assert not can_share(model.module, 100)
    got = model.logits_last(PROMPTS, system=SYSTEM)
    for row, one in zip(got, sequences(model), strict=True):
        torch.testing.assert_close(row, alone(model, one), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_read_apart_and_written_together(family: str, chat: Any, literally: Any, monkeypatch: Any) -> None:
    """Many small passes over prompts of very different length, answers that end at different times."""
    monkeypatch.setattr("tamperlens.models.batching._CPU_TOKENS", 100)
    monkeypatch.setattr("tamperlens.models.batching._CPU_ENOUGH", 30)
    model = make(chat, family)
    model._stop_ids = frozenset(range(5, 264, 9))
    prompts = ["ab" * n for n in (1, 2, 3, 5, 9, 20, 40, 60, 61, 62, 1, 2)]
    ids = model.token_ids(prompts)
    assert len(token_chunks(sorted(map(len, ids), reverse=True), model.device)) > 4
    expected = [literally(model.module, one, 20, model.stop_ids) for one in ids]
    assert len({len(one) for one in expected}) > 1
    assert expected == generation.generate_tokens(
        model.module, ids, max_new_tokens=20, stop_ids=model.stop_ids, pad_id=0, device=model.device
    )


def test_a_longer_neighbour_takes_no_room(tiny: Any, literally: Any) -> None:
    """With absolute positions each answer ends where its own prompt leaves no room."""
    module, tokenizer = tiny("gpt2", n_positions=64)
    model = ChatModel.from_parts(module, tokenizer, name="short")
    model._stop_ids = frozenset({3})
    ids = model.token_ids(["x" * 50, "hi"])
    new = generation.generate_tokens(
        module, ids, max_new_tokens=40, stop_ids=model.stop_ids, pad_id=0, device=model.device
    )
    assert new == [literally(module, one, min(40, 64 - len(one)), model.stop_ids) for one in ids]
    assert len(new[1]) == 40


def test_common_length() -> None:
    assert common_length([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9]]) == 2
    assert common_length([[1, 2], [1, 2]]) == 1, "one token at least stays a row's own"
    assert common_length([[1, 2, 3, 4], [1, 2, 3, 5]], keep=3) == 1
    assert common_length([[1, 2]]) == common_length([]) == common_length([[1], [2, 3]]) == 0
