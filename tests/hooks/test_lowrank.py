"""Drift read from factors against the matrix built in fp64."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tamperlens_hooks import describe, effective_weight, unwrap
from tamperlens_hooks.lowrank import (
    Entries,
    Moments,
    Update,
    effective_rank,
    moments,
    row_sizes,
    update_of,
)

FAMILIES = ("llama", "gpt2", "gpt_neox", "phi3", "qwen2", "gemma2")


def literal_one_minus_cosine(w: torch.Tensor, v: torch.Tensor) -> float:
    """In 200 bits, so that nothing cancels."""
    from mpmath import mp, mpf

    with mp.workprec(200):
        a, b, ab = mpf(0), mpf(0), mpf(0)
        for x, y in zip(w.double().flatten().tolist(), v.double().flatten().tolist(), strict=True):
            a, b, ab = a + mpf(x) ** 2, b + mpf(y) ** 2, ab + mpf(x) * mpf(y)
        return float(1 - ab / mp.sqrt(a * b))


def factors(scale: float, rank: int = 4, shape: tuple[int, int] = (40, 56)) -> tuple[Update, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    w = torch.randn(shape, generator=g) / shape[1] ** 0.5
    b = torch.randn(shape[0], rank, generator=g) * scale
    a = torch.randn(rank, shape[1], generator=g) / shape[1] ** 0.5
    return Update(w, b, a), w.double() + b.double() @ a.double()


@pytest.mark.parametrize(("scale", "size"), [(1.0, 1e-1), (2.2e-3, 1e-5), (2.2e-5, 1e-9), (1e-7, 1e-14)])
def test_one_minus_cosine_never_cancels(scale: float, size: float) -> None:
    update, tuned = factors(scale)
    rows = update.row_moments()
    expected = literal_one_minus_cosine(update.weight, tuned)
    assert 0.02 * size < expected < 60 * size
    assert rows.total().one_minus_cosine().item() == pytest.approx(expected, rel=1e-5)
    for i in (0, 17, 39):
        row = literal_one_minus_cosine(update.weight[i], tuned[i])
        assert rows.one_minus_cosine()[i].item() == pytest.approx(row, rel=1e-5)
    i, j = torch.randint(0, 40, (300,)), torch.randint(0, 56, (300,))
    found = moments(update.gather(i, j), update.weight[i, j]).one_minus_cosine().item()
    assert found == pytest.approx(literal_one_minus_cosine(update.weight[i, j], tuned[i, j]), rel=1e-5)


def test_a_fp32_cosine_would_have_failed() -> None:
    update, tuned = factors(2.2e-5)
    naive = 1 - torch.cosine_similarity(update.weight.flatten(), tuned.float().flatten(), dim=0).item()
    truth = literal_one_minus_cosine(update.weight, tuned)
    assert abs(naive - truth) > 0.1 * truth


def test_moments_of_special_vectors() -> None:
    w = torch.tensor([3.0, 4.0])
    assert moments(-2 * w, w).one_minus_cosine() == 2
    assert moments(0 * w, w).one_minus_cosine() == 0
    assert moments(0.5 * w, w).one_minus_cosine() < 1e-15
    assert moments(torch.tensor([-4.0, 3.0]) - w, w).one_minus_cosine() == pytest.approx(1.0)
    assert moments(-w, w).one_minus_cosine().isnan()  # nothing is left to have an angle with
    zero = Moments(*(torch.zeros((), dtype=torch.float64) for _ in range(3)))
    assert zero.relative().isnan()


@pytest.mark.parametrize("kind", ["factors", "frozen", "trained"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_against_the_built_matrix(kind: str, dtype: torch.dtype) -> None:
    made, _ = factors(0.05)
    w = made.weight.to(dtype)
    truth = made.b.double() @ made.a.double()
    if kind == "factors":
        update = Update(w, made.b, made.a)
    elif kind == "frozen":
        flags = torch.rand(w.shape, generator=torch.Generator().manual_seed(3)) < 0.3
        update = Update(w, made.b, made.a, frozen=flags)
        truth = truth * ~flags
    else:
        trained = w.float() + truth.float()
        truth = trained.double() - w.double()
        update = Update(w, made.b[:, :0], made.a[:0], trained=trained)
    wide = w.double()
    close = {"rtol": 2e-6, "atol": 1e-12}
    torch.testing.assert_close(update.row_squares().sum(), truth.square().sum(), **close)
    rows = update.row_moments()
    torch.testing.assert_close(rows.moved, truth.square().sum(1), **close)
    torch.testing.assert_close(rows.inner, (truth * wide).sum(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.size, wide.square().sum(1), **close)
    torch.testing.assert_close(row_sizes(w), wide.square().sum(1), **close)
    torch.testing.assert_close(update.delta().double(), truth, rtol=1e-5, atol=1e-8)
    expected = torch.linalg.svdvals(truth)
    found = update.singular_values()
    torch.testing.assert_close(found, expected[: len(found)], rtol=1e-5, atol=1e-6)
    i, j = torch.randint(0, 40, (500,)), torch.randint(0, 56, (500,))
    torch.testing.assert_close(update.gather(i, j).double(), truth[i, j], rtol=1e-5, atol=1e-8)
    sets = [torch.rand(w.shape, generator=torch.Generator().manual_seed(s)) < s / 10 for s in (1, 0, 4)]
    entries = Entries.of(sets, (40, 56), w.device)
    assert entries.counts == tuple(int(one.sum()) for one in sets)
    assert torch.equal(entries.rows(), torch.cat([one.nonzero()[:, 0] for one in sets]))
    expected = torch.cat([truth[one] for one in sets])
    torch.testing.assert_close(update.sample(entries).double(), expected, rtol=1e-5, atol=1e-8)
    assert update.sample(Entries.of([], (40, 56), w.device)).numel() == 0
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(5))
    inside = v.double() @ v.double().T @ truth
    cosine = (inside * truth).sum() / inside.norm() / truth.norm()
    torch.testing.assert_close(update.subspace_cosine(v), cosine, rtol=1e-5, atol=0)


def test_effective_rank() -> None:
    assert effective_rank(torch.ones(5, dtype=torch.float64)) == pytest.approx(5)
    assert effective_rank(torch.tensor([1.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.zeros(3)) != effective_rank(torch.zeros(3))  # NaN


@pytest.mark.parametrize("family", FAMILIES)
def test_update_of_every_projection(tiny, family: str) -> None:
    """Fused weights are cut, Conv1D is turned: each map's Δ is its merged weight minus its old."""
    model, _ = tiny(family, fresh=True)
    anatomy = describe(model)
    names = list(dict.fromkeys(part.module.rpartition(".")[2] for part in anatomy.projections(0)))
    before = {part: anatomy.logical_weight(model, part).detach().clone() for part in anatomy.projections()}
    peft = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=6, target_modules=names, fan_in_fan_out=family == "gpt2")
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    updates = {part: update_of(peft, part) for part in anatomy.projections()}
    deltas = {part: update.delta() for part, update in updates.items()}
    assert all(update.factored for update in updates.values())
    merged = peft.merge_and_unload()
    for part, old in before.items():
        new = anatomy.logical_weight(merged, part).detach()
        torch.testing.assert_close(deltas[part], new - old, rtol=1e-4, atol=1e-5)
        assert deltas[part].abs().max() > 0.01
        dense = update_of(merged, part, base=_with(model, part, old))
        torch.testing.assert_close(dense.delta(), new - old)


def _with(model, part, old):
    """A module whose projection holds the old weight again, to compare with."""
    import copy

    made = copy.deepcopy(unwrap(model))
    weight = made.get_parameter(part.parameter)
    with torch.no_grad():
        if part.transposed:
            weight[part.index] = old.T
        else:
            weight[part.index] = old
    return made


def test_untouched_model_has_moved_nowhere(tiny) -> None:
    model, _ = tiny("gpt2")
    part = describe(model).projections()[0]
    update = update_of(model, part, base=model)
    assert update.row_squares().sum() == 0
    assert update.row_moments().one_minus_cosine().abs().max() == 0
    assert update.gather(torch.tensor([0]), torch.tensor([1])).item() == 0


def test_dora_is_compared_as_a_built_matrix(tiny) -> None:
    """Its rows are rescaled: the update is that of the merged weight, not s·B·A."""
    model, _ = tiny("llama", fresh=True)
    anatomy = describe(model)
    part = anatomy.projection("q", 0)
    old = anatomy.logical_weight(model, part).detach().clone()
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    layer = unwrap(peft).get_submodule(part.module)
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        layer.lora_magnitude_vector["default"].weight.mul_(1.3)
    update = update_of(peft, part)
    assert not update.factored
    found, mine = update.delta(), effective_weight(peft, part)
    product = layer.get_delta_weight("default").detach()
    merged = anatomy.logical_weight(peft.merge_and_unload(), part).detach()
    torch.testing.assert_close(found, merged - old, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine, merged)
    assert (found - product).abs().max() > 0.01
