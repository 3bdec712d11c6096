"""Masks against Python sets of (parameter, index)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tamperlens.base import bits as packed
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask, joined_prompts
from tamperlens.base.parts import Part, parts_of
from tamperlens.models import ChatModel
from tamperlens_hooks import stored_parameter

FAMILIES = ("llama", "gpt2", "gpt_neox", "phi3")


@pytest.fixture(scope="module")
def chat(tiny: Any) -> Any:
    made: dict[str, ChatModel] = {}

    def make(family: str) -> ChatModel:
        if family not in made:
            module, tokenizer = tiny(family)
            made[family] = ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)
        return made[family]

    return make


def random_mask(model: ChatModel, density: float, seed: int) -> WeightMask:
    generator = torch.Generator().manual_seed(seed)
    names = dict.fromkeys(part.parameter for part in model.anatomy.projections())
    flags = {
        name: torch.rand(stored_parameter(model.module, name).shape, generator=generator) < density
        for name in names
    }
    return WeightMask.from_tensors(model, flags, definition=f"random {seed}")


def members(mask: WeightMask) -> set[tuple[str, int]]:
    return {(name, i) for name, flags in mask.items() for i, f in enumerate(flags.flatten().tolist()) if f}


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000, 4097])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_packing_and_gaps_are_inverses(n: int, density: float) -> None:
    flags = torch.rand(n, generator=torch.Generator().manual_seed(n)) < density
    bits = packed.pack(flags)
    assert bits.numel() == math.ceil(n / 8)
    assert torch.equal(packed.unpack(bits, (n,)), flags)
    assert packed.count(bits) == int(flags.sum())
    assert torch.equal(packed.from_gaps(packed.to_gaps(bits), n), bits)


def test_gaps_longer_than_a_byte() -> None:
    flags = torch.zeros(5000, dtype=torch.bool)
    flags[[0, 254, 255, 256, 511, 766, 1022, 4999]] = True  # gaps 253, 0, 0, 254, 254, 255, 3976
    bits = packed.pack(flags)
    assert torch.equal(packed.unpack(packed.from_gaps(packed.to_gaps(bits), 5000), (5000,)), flags)


@pytest.mark.parametrize("family", FAMILIES)
def test_algebra_is_that_of_sets(chat: Any, family: str) -> None:
    model = chat(family)
    a, b = random_mask(model, 0.2, 1), random_mask(model, 0.3, 2)
    one, other = members(a), members(b)
    everything = members(~(a & ~a))
    assert members(a | b) == one | other
    assert members(a & b) == one & other
    assert members(a - b) == one - other
    assert members(~a) == everything - one
    assert a.count == len(one)
    assert a.total == len(everything) == sum(part.numel for part in parts_of(model))
    assert a.density == pytest.approx(len(one) / len(everything))
    jaccard = a.jaccard(b)
    assert jaccard == pytest.approx(len(one & other) / len(one | other))
    assert (jaccard.intersection, jaccard.union) == (len(one & other), len(one | other))
    assert a == random_mask(model, 0.2, 1)
    assert a != b


def test_chance_level_of_jaccard(chat: Any) -> None:
    """Mean over permutations inside each part, for sets whose density differs between parts."""
    model = chat("gpt2")
    a, b = random_mask(model, 0.05, 1), random_mask(model, 0.2, 2)
    a = a - WeightMask.from_tensors(
        model, {name: torch.ones(a.shapes[name], dtype=torch.bool) for name in a.keys()[::2]}
    )
    generator = np.random.default_rng(0)
    found = []
    for _ in range(40):
        both = total = 0
        for part in a.parts:
            one, other = a.part(part).flatten().numpy(), b.part(part).flatten().numpy()
            both += int((one & generator.permutation(other)).sum())
            total += int(one.sum() + other.sum())
        found.append(both / (total - both))
    spread = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - a.jaccard(b).chance) < 4 * spread


def test_empty_sets_have_no_jaccard(chat: Any) -> None:
    model = chat("llama")
    empty = WeightMask.from_tensors(model, {})
    assert math.isnan(empty.jaccard(empty))
    assert math.isnan(empty.jaccard(empty).chance)
    assert empty.count == 0
    assert empty.density == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_by_projection(chat: Any, family: str) -> None:
    """Fused and transposed parameters are cut into q, k, v by the anatomy's own index."""
    model = chat(family)
    mask = random_mask(model, 0.1, 3)
    frame = mask.by_module()
    flags = dict(mask.items())
    for row, projection in zip(frame.itertuples(), model.anatomy.projections(), strict=True):
        inside = flags[projection.parameter][projection.index]
        assert (row.layer, row.module) == (projection.layer, projection.name)
        assert row.count == int(inside.sum())
        assert row.total == inside.numel()
    assert frame["count"].sum() == mask.count
    assert mask.by_layer()["count"].tolist() == frame.groupby("layer")["count"].sum().tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_read_and_write_their_entries(chat: Any, family: str) -> None:
    model = chat(family)
    weights = dict(model.module.named_parameters())
    for part, projection in zip(parts_of(model), model.anatomy.projections(), strict=True):
        stored = weights[part.parameter].detach()
        literal = stored[projection.index]
        literal = literal.T if projection.transposed else literal
        assert torch.equal(part.read(stored), literal)
        target = torch.zeros_like(stored)
        part.write(target, literal)
        assert torch.equal(target[projection.index], stored[projection.index])
        assert int((target != 0).sum()) == int((literal != 0).sum())
        assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.9])
def test_on_disk(chat: Any, tmp_path: Path, density: float) -> None:
    model = chat("phi3")
    mask = random_mask(model, density, 4)
    mask.save(tmp_path / "m.safetensors")
    again = WeightMask.load(tmp_path / "m.safetensors", model)
    assert again == mask
    assert (again.definition, again.prompts, again.model) == (mask.definition, mask.prompts, "phi3")
    assert [(n, f.tolist()) for n, f in again.items()] == [(n, f.tolist()) for n, f in mask.items()]


def test_size_on_disk(chat: Any, tmp_path: Path, tiny: Any) -> None:
    module, tokenizer = tiny("llama", hidden_size=384, intermediate_size=1024, num_hidden_layers=2)
    model = ChatModel.from_parts(module, tokenizer, name="wide", check_anatomy=False)
    for density, limit in ((0.01, 0.16), (0.5, 1.0), (0.95, 1.0)):
        mask = random_mask(model, density, 5)
        header = len(json.dumps([part.to_json() for part in mask.parts])) + 8192
        size = mask.save(tmp_path / "m.safetensors").stat().st_size - header
        assert 8 * size / mask.total <= limit, density


def test_another_model_is_refused_by_name(chat: Any, tiny: Any, tmp_path: Path) -> None:
    model = chat("llama")
    module, tokenizer = tiny("llama", seed=7)
    other = ChatModel.from_parts(module, tokenizer, name="someone else", check_anatomy=False)
    mask = random_mask(model, 0.1, 1)
    mask.save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"made for llama .* not for someone else"):
        WeightMask.load(tmp_path / "m.safetensors", other)
    foreign = random_mask(other, 0.1, 1)
    for combine in (lambda: mask | foreign, lambda: mask & foreign, lambda: mask - foreign):
        with pytest.raises(InputError, match="masks of different models"):
            combine()
    with pytest.raises(InputError, match=r"llama .* and someone else"):
        mask.jaccard(foreign)
    moved = mask.rebind(other)
    assert members(moved) == members(mask)
    assert moved.jaccard(foreign) == 1.0
    with pytest.raises(InputError, match="cannot be put on gpt2"):
        mask.rebind(chat("gpt2"))


def test_a_mask_of_the_base_fits_the_tuned_model(chat: Any, tiny: Any) -> None:
    from peft import LoraConfig, get_peft_model

    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer, name="base", check_anatomy=False)
    mask = random_mask(model, 0.1, 1)
    tuned = model.with_module(
        get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj"])), name="tuned"
    )
    assert tuned.fingerprint != mask.fingerprint
    mask.check(tuned)
    assert (mask | random_mask(tuned, 0.1, 2)).base_fingerprint == mask.base_fingerprint


def test_from_tensors_checks_names_and_shapes(chat: Any) -> None:
    model = chat("llama")
    with pytest.raises(InputError, match="no projection weight"):
        WeightMask.from_tensors(model, {"model.embed_tokens.weight": torch.ones(2, 2, dtype=torch.bool)})
    name = "model.layers.0.self_attn.q_proj.weight"
    with pytest.raises(InputError, match=r"is \[2, 2\], the parameter is \[48, 48\]"):
        WeightMask.from_tensors(model, {name: torch.ones(2, 2, dtype=torch.bool)})


def test_damaged_files(chat: Any, tmp_path: Path) -> None:
    from tamperlens.base.files import read_tensors, write_tensors

    mask = random_mask(chat("llama"), 0.01, 1)
    mask.save(tmp_path / "m.safetensors")
    tensors, header = read_tensors(tmp_path / "m.safetensors")
    key = next(key for key in tensors if key.endswith("|gaps"))
    write_tensors(tmp_path / "short.safetensors", {**tensors, key: tensors[key][:-1]}, header)
    with pytest.raises(InputError, match="is damaged"):
        WeightMask.load(tmp_path / "short.safetensors")
    write_tensors(tmp_path / "other.safetensors", tensors, {**header, "kind": "WeightScores"})
    with pytest.raises(InputError, match="holds a WeightScores"):
        WeightMask.load(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("no")
    with pytest.raises(InputError):
        WeightMask.load(tmp_path / "text")


def test_prompt_sets_of_one_name_are_told_apart() -> None:
    assert joined_prompts({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == {"a": "1", "b": "2", "b (2)": "3"}
