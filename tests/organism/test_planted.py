"""Planted organisms differ from base in the planted part and nowhere else, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import tamperlens
from tamperlens import neurons
from tamperlens.base.errors import InputError
from tamperlens.base.files import read_tensors, write_tensors
from tamperlens.models.organism import planted, planting
from tamperlens.models.organism.planting import Recipe, train_part
from tamperlens.neurons import WeightMask
from tamperlens.studies.planted import methods
from tamperlens.studies.planted.scoring import localise
from tamperlens_hooks import stored_parameter

SHORT = Recipe(steps=2, batch=4)


@pytest.fixture(scope="module")
def base() -> Any:
    return tamperlens.load("organism:base", device="cpu")


@pytest.mark.parametrize("kind", planted.KINDS)
def test_a_plan_is_the_same_for_one_seed_and_another_for_another(base: Any, kind: str) -> None:
    one, again, other = (planted.plan(base, kind, seed) for seed in (0, 0, 7))
    assert all(torch.equal(flags, again.flags[name]) for name, flags in one.flags.items())
    if kind.startswith(("random", "neurons")):
        assert any(
            name not in other.flags or not torch.equal(flags, other.flags[name])
            for name, flags in one.flags.items()
        )


def test_sizes_of_the_parts(base: Any) -> None:
    def count(kind: str) -> int:
        return sum(int(flags.sum()) for flags in planted.plan(base, kind, 0).flags.values())

    d, ffn, layer = 128, 384, 196_608
    assert count("random-1") == sum(int(0.01 * p.numel()) for p in base.module.model.layers.parameters() if
                                    p.ndim == 2)  # fmt: skip
    assert count("neurons") == 2 * planted.NEURONS * 3 * d
    assert count("head") == 4 * 32 * d
    assert count("heads-3") == 3 * count("head")
    assert count("rank-1") == d * d + d * ffn
    assert (count("layer"), count("everything")) == (layer, 5 * layer)


@pytest.mark.parametrize("kind", ["random-1", "head", "rank-1"])
def test_training_moves_the_part_and_nothing_else(base: Any, kind: str, tmp_path: Path) -> None:
    drawn = planted.plan(base, kind, 3)
    before = base.fingerprint
    tensors, header = train_part(base, drawn, SHORT)
    path = write_tensors(tmp_path / "x.safetensors", tensors, header)
    model, truth = planted.grow(base, *read_tensors(path), where=path)
    assert base.fingerprint == before
    for name, parameter in model.module.named_parameters():
        moved = parameter != stored_parameter(base.module, name)
        allowed = drawn.flags.get(name, torch.zeros_like(moved))
        assert not bool((moved & ~allowed).any()), name
        if name in truth.mask:
            assert torch.equal(truth.mask[name], moved)
    assert 0 < truth.mask.count <= sum(int(flags.sum()) for flags in drawn.flags.values())
    assert planted.put_back(model, base, truth.mask).fingerprint == base.fingerprint


def test_a_module_that_moved_elsewhere_is_refused(base: Any) -> None:
    module = copy.deepcopy(base.module)
    with torch.no_grad():
        module.model.norm.weight[0] += 1
    with pytest.raises(InputError, match="moved outside"):
        planted.shrink(base, module, planted.plan(base, "head", 0))


@pytest.mark.parametrize("kind", [kind for kind in planted.KINDS if kind != "everything"])
def test_the_cheat_finds_a_part_of_every_kind_and_a_random_method_does_not(base: Any, kind: str) -> None:
    """The part is filled with noise instead of training: neither end of the scale reads what was learnt."""
    drawn = planted.plan(base, kind, 0)
    module = copy.deepcopy(base.module)
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, flags in drawn.flags.items():
            noise = 0.01 + torch.rand(flags.shape, generator=dice)
            stored_parameter(module, name).add_(noise * flags)
    model = base.with_module(module, name=f"noise {kind}")
    mask = WeightMask.from_tensors(model, drawn.flags, definition="noise")
    answer = methods.flat_mask(mask)
    cheat = localise(methods.flat(neurons.magnitude(model, reference=base)), answer)
    assert (cheat.auroc, cheat.precision) == pytest.approx((1, 1), abs=1e-9)
    blind = localise(methods.flat(neurons.random(model, seed=0)), answer)
    # standard errors: of AUROC √(1/12 m), of precision √(p(1 − p)/m) for m planted weights
    assert abs(blind.auroc - 0.5) < 4 / (12 * cheat.planted) ** 0.5
    assert abs(blind.precision - blind.chance) < 4 * (blind.chance / cheat.planted) ** 0.5


def test_what_a_block_newly_writes_has_the_rank_that_was_planted() -> None:
    model, truth = planting.make("rank-3", 0)
    assert truth.write is not None and truth.write.shape == (128, 3)
    for part in truth.mask.parts:
        new, old = (part.read(stored_parameter(m.module, part.parameter)) for m in (model, truth.base))
        delta = (new - old).detach().double()
        if part.layer != truth.layers[0] or part.projection not in ("o", "down"):
            assert not bool(delta.any())
            continue
        outside = delta - truth.write.double() @ (truth.write.double().T @ delta)
        assert float(outside.norm() / delta.norm()) < 1e-5


def test_bad_input(base: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no planted organism 'nose'"):
        planting.make("nose")
    path = planted.path_of("head", 0)
    tensors, header = read_tensors(path)
    with pytest.raises(InputError, match="another base"):
        planted.grow(base, tensors, {**header, "base": "0" * 64}, where=path)
    with pytest.raises(InputError, match="holds no planted organism"):
        planted.grow(base, tensors, {}, where=path)
    wrong = {name: value[:-1] for name, value in tensors.items()}
    with pytest.raises(InputError, match="another number of entries"):
        planted.grow(base, wrong, header, where=path)
    model, truth = planting.make("head", 0)
    with pytest.raises(InputError, match="made for"):
        planted.put_back(base, model, truth.mask)
