"""Several directions: against literal decompositions, on a planted direction, and put to the causal test."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planted import MARK, REFUSES, planted_model, prompts

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.directions.scoring import Scorer
from tamperlens.directions.subspaces import least_squares_direction
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

BAD, GOOD = prompts(40, harmful=True), prompts(40, harmful=False)
PLACE = (2, -1)


@pytest.fixture(scope="module")
def planted(tiny: Any) -> tuple[ChatModel, torch.Tensor]:
    return planted_model(lambda family, **settings: tiny(family, **settings))


@pytest.fixture(scope="module")
def tokens(planted: Any) -> list[int]:
    return [planted[0].tokenizer.convert_tokens_to_ids(REFUSES)]


def test_contrast_is_the_svd_and_its_first_direction_the_planted_one(planted: Any) -> None:
    model, r = planted
    found = refusal.contrast_subspace(model, BAD[:28], GOOD[:28], *PLACE, k=3)
    assert float(found.basis[0] @ r) > 0.99
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(3), atol=1e-5, rtol=0)
    bad, good = (refusal.activations_at(model, side[:28], *PLACE) for side in (BAD, GOOD))
    _, values, right = torch.linalg.svd(bad - good.mean(0), full_matrices=False)
    torch.testing.assert_close(found.weights.double(), values[:3], rtol=1e-5, atol=0)
    assert [abs(float(a @ b)) for a, b in zip(found.basis.double(), right, strict=False)] == pytest.approx(
        [1, 1, 1], abs=1e-5
    )
    centred = torch.linalg.svdvals(bad - bad.mean(0))
    assert float(centred[0]) < 0.6 * float(values[0])  # centring takes the contrast away
    assert found.norms[0] == pytest.approx(float((bad.mean(0) - good.mean(0)) @ found.basis[0].double()))
    assert len(found.to_frame()) == 3


def test_shift_between_checkpoints(tiny: Any, planted: Any) -> None:
    base = planted[0]
    tuned, turned = planted_model(lambda family, **settings: tiny(family, **settings), angle=0.6)
    samples = refusal.shift_subspace(base, tuned, BAD, GOOD, *PLACE, k=2)
    difference = turned - planted[1]
    assert abs(float(samples.basis[0] @ difference / difference.norm())) > 0.99
    assert "samples" in samples.method
    affine = refusal.shift_subspace(base, tuned, BAD, GOOD, *PLACE, k=1, kind="affine")
    assert abs(float(affine.basis[0] @ difference / difference.norm())) > 0.95
    with pytest.raises(InputError, match="no shift"):
        refusal.shift_subspace(base, base, BAD, GOOD, *PLACE)
    with pytest.raises(InputError, match="kind='other' must be one of 'samples', 'affine'"):
        refusal.shift_subspace(base, tuned, BAD, GOOD, *PLACE, kind="other")


def test_least_squares_is_the_ridge_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    bad, good = (torch.randn(20, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    bad[:, 0] += 2
    found = least_squares_direction(bad, good, 0.3)
    centred = torch.cat([bad - bad.mean(0), good - good.mean(0)])
    penalty = 0.3 * float(centred.square().mean()) * 40
    literal = torch.linalg.solve(
        centred.T @ centred + penalty * torch.eye(7, dtype=torch.float64), bad.mean(0) - good.mean(0)
    )
    torch.testing.assert_close(found, literal / literal.norm(), rtol=1e-8, atol=1e-10)


def test_nullspace_rounds(planted: Any) -> None:
    model, r = planted
    found = refusal.nullspace_subspace(model, BAD, GOOD, *PLACE, k=3)
    assert float(found.basis[0] @ r) > 0.7  # a classifier's normal is not the difference of means
    assert found.log.auroc.iloc[0] > 0.99
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(found.k), atol=1e-5, rtol=0)
    again = refusal.nullspace_subspace(model, BAD, GOOD, *PLACE, k=3)
    assert torch.equal(found.basis, again.basis)
    # One kind against itself: nothing to find.
    same = PromptSet.from_prompts(GOOD).split([20, 20], 1)
    with pytest.raises(InputError, match="no linear classifier is shown"):
        refusal.nullspace_subspace(model, *same, 1, -2, held_out=0.5)


def test_gradients_find_the_planted_direction(planted: Any, tokens: list[int]) -> None:
    model, r = planted
    before = model.fingerprint
    flags = [p.requires_grad for p in model.module.parameters()]
    found = refusal.optimise_subspace(
        model, BAD[:20], GOOD[:20], 1, -1, k=2, refusal_tokens=tokens, steps=12, batch=6, seed=1
    )
    assert found.basis.shape == (2, model.d_model)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(2), atol=1e-5, rtol=0)
    assert float((found.basis @ r).square().sum()) > 0.6  # two unit vectors at random: 2 / 48
    alone = refusal.optimise_subspace(
        model, BAD[:20], GOOD[:20], 1, -1, k=1, refusal_tokens=tokens, steps=4, batch=6
    )
    assert float(alone.basis[0] @ r) > 0.97
    total = found.log[["bypass_loss", "induce_loss", "retain_loss"]].sum(axis=1)
    assert total.iloc[-3:].mean() < total.iloc[:3].mean()
    assert model.fingerprint == before
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert all(p.grad is None for p in model.module.parameters())
    check = refusal.validate_subspace(
        model, found, BAD[20:], GOOD[20:], refusal_tokens=tokens, n_mixtures=2, n_random=2
    )
    table = check.to_frame().pivot(index="name", columns="measure", values="value")
    assert table.loc["all directions", "bypass"] < check.baseline_harmful - 5
    assert table.loc["mixture 0", "induce"] > check.baseline_harmless + 5
    assert table.loc["random 0", "bypass"] > table.loc["all directions", "bypass"] + 5
    assert len(table) == 2 + 1 + 2 + 2


def test_whole_subspace_is_one_projection(planted: Any, tokens: list[int]) -> None:
    model = planted[0]
    basis = refusal.contrast_subspace(model, BAD, GOOD, *PLACE, k=3).basis
    scorer = Scorer(model, BAD[:6], GOOD[:6], tokens)
    together = scorer.by_prompt(list(basis), basis[0], 1)
    projector = torch.eye(model.d_model) - basis.T @ basis

    def remove(x: torch.Tensor) -> torch.Tensor:
        return x @ projector

    handles = []
    for layer in model.module.model.layers:
        handles.append(
            layer.register_forward_pre_hook(
                lambda m, args, kwargs: ((remove(args[0]), *args[1:]), kwargs), with_kwargs=True
            )
        )
        handles.append(layer.self_attn.register_forward_hook(lambda m, a, out: (remove(out[0]), *out[1:])))
        handles.append(layer.mlp.register_forward_hook(lambda m, a, out: remove(out)))
    literal = refusal.refusal_metric(model.logits_last(BAD[:6]), tokens)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(together.bypass, literal, rtol=1e-4, atol=1e-4)
    one = Scorer(model, BAD[:6], GOOD[:6], tokens).score(basis[0] * 2, 1)
    assert one[0] == pytest.approx(float(scorer.by_prompt([basis[0]], basis[0], 1).bypass.mean()), rel=1e-5)


def test_subspace_survives_the_disk(planted: Any, tmp_path: Any) -> None:
    found = refusal.nullspace_subspace(planted[0], BAD, GOOD, *PLACE, k=2)
    back = refusal.Subspace.load(found.save(tmp_path / "subspace.safetensors"))
    assert torch.equal(back.basis, found.basis)
    assert back.log.auroc.tolist() == pytest.approx(found.log.auroc.tolist())


def test_bad_subspaces(planted: Any, tiny: Any, tokens: list[int]) -> None:
    model = planted[0]
    with pytest.raises(InputError, match="k=9"):
        refusal.contrast_subspace(model, BAD[:8], GOOD[:8], *PLACE, k=9)
    with pytest.raises(InputError, match="in both"):
        refusal.contrast_subspace(model, BAD, BAD, *PLACE)
    with pytest.raises(InputError, match="steps=0 must be a whole number from 1 on"):
        refusal.optimise_subspace(model, BAD, GOOD, *PLACE, refusal_tokens=tokens, steps=0)
    wide = ChatModel.from_parts(*tiny("llama", hidden_size=60, head_dim=10), check_anatomy=False)
    found = refusal.contrast_subspace(model, BAD[:8], GOOD[:8], *PLACE, k=2)
    with pytest.raises(InputError, match="width 48"):
        refusal.validate_subspace(wide, found, BAD, GOOD, refusal_tokens=tokens)


# ---- concepts and harmfulness


def test_a_concept_from_a_file(planted: Any, tokens: list[int], tmp_path: Any) -> None:
    model, r = planted
    file = tmp_path / "marked.csv"
    rows = [f'"{bad}","{good}"' for bad, good in zip(BAD, GOOD, strict=True)]
    file.write_text("positive,negative\n" + "\n".join(rows) + "\n")
    concept = refusal.read_concept(file)
    assert (concept.name, len(concept)) == ("marked", 40)
    assert concept.positive.prompts[0].startswith(MARK)
    found = refusal.find_concept_direction(model, concept)
    assert float(found.vector @ r) > 0.99
    assert found.tokens is not None
    assert (found.tokens.source, found.tokens.ids[0]) == ("contrast", tokens[0])
    assert (found.n_train, found.n_val) == ((32, 32), (8, 8))
    named = refusal.read_concept(file, positive="negative", negative="positive", name="back")
    assert named.positive.prompts == concept.negative.prompts
    with pytest.raises(InputError, match="in both"):
        refusal.read_concept(file, positive="positive", negative="positive")
    file.write_text("a,b\nx,y\n")
    with pytest.raises(InputError, match="none of the columns positive, with, concept"):
        refusal.read_concept(file)
    with pytest.raises(InputError):
        refusal.read_concept(tmp_path / "absent.csv")


def test_harmfulness_is_read_where_the_instruction_ends(planted: Any) -> None:
    model = planted[0]
    assert refusal.instruction_position(model) == -3  # two template tokens follow
    ids = model.token_ids(["abc"])[0]
    assert model.tokenizer.decode([ids[-3]]) == "c"
    found = refusal.find_harmfulness_direction(model, BAD, GOOD, n_train=28, n_val=10)
    assert found.position == -3
    assert found.layer in (1, 2)
    literal = refusal.direction_at(
        model,
        *(PromptSet.from_prompts(side).split([28, 10], 0)[0] for side in (BAD, GOOD)),
        found.layer,
        -3,
    )
    torch.testing.assert_close(found.vector, literal.vector)
    chosen = refusal.find_direction(model, BAD, GOOD, n_train=28, n_val=10)
    both = refusal.harmfulness_and_refusal(model, chosen, BAD, GOOD, same_layer=True)
    assert both.harmfulness.layer == chosen.layer
    assert "different places" in both.apart.reason
    assert math.isfinite(both.apart.cosine)
    with pytest.raises(InputError, match="not the prompts"):
        refusal.harmfulness_and_refusal(model, chosen, BAD[::-1], GOOD)
    with pytest.raises(InputError, match="read at a given place"):
        refusal.harmfulness_and_refusal(model, literal, BAD, GOOD)


# ---- separation, nulls, cache


def test_separation_on_held_out_prompts(planted: Any) -> None:
    model = planted[0]
    chosen = refusal.find_direction(model, BAD, GOOD, n_train=28, n_val=10)
    found = refusal.separation(model, chosen, BAD[30:], GOOD[30:])
    assert (found.auroc.value, found.tpr.value) == (1.0, 1.0)
    assert found.tpr.low < 1
    table = chosen.table.set_index(["position", "layer"])
    assert table.loc[(chosen.position, chosen.layer), "auroc"] == 1.0
    assert table.loc[(-1, 0), ["auroc", "tpr_at_1_fpr"]].isna().all()
    with pytest.raises(InputError, match="in both"):
        refusal.separation(model, chosen, BAD, BAD)


def test_bootstrap_null_is_narrower_than_halves(planted: Any, tiny: Any) -> None:
    model = ChatModel.from_parts(*tiny("llama"), check_anatomy=False)
    made = [null(model, BAD, GOOD, 1, -1, draws=200) for null in (refusal.split_half_null,
                                                                    refusal.bootstrap_null)]  # fmt: skip
    halves, bootstrap = (one.estimate for one in made)
    assert halves.value < bootstrap.value < 1
    assert "bootstrap" in bootstrap.method
    assert made[1].full_size == bootstrap.value
    assert made[0].full_size == pytest.approx(2 * halves.value / (1 + halves.value))


def test_cache_returns_what_was_read(planted: Any, tmp_path: Any, tiny: Any) -> None:
    model = planted[0]
    cache = refusal.ActivationCache(tmp_path / "cache")
    first = refusal.activations(model, BAD, -1, [1, 2], cache=cache)
    assert torch.equal(refusal.activations(model, BAD, -1, [1, 2], cache=cache), first)
    assert (cache.hits, cache.misses) == (1, 1)
    assert torch.equal(first, refusal.activations(model, BAD, -1, [1, 2]))
    refusal.activations(model, BAD[::-1], -1, [1, 2], cache=cache)  # another order
    refusal.activations(model, BAD, -2, [1, 2], cache=cache)  # another place
    other, _ = planted_model(lambda family, **settings: tiny(family, **settings), seed=1)
    refusal.activations(other, BAD, -1, [1, 2], cache=cache)  # another model
    assert (cache.hits, cache.misses) == (1, 4)
    for path in cache.folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])  # cut short
    assert torch.equal(refusal.activations(model, BAD, -1, [1, 2], cache=cache), first)
    assert cache.misses == 5
    once, twice = (
        refusal.find_direction(model, BAD, GOOD, n_train=28, n_val=10, cache=cache) for _ in range(2)
    )
    assert torch.equal(once.vector, twice.vector)
    assert cache.hits >= 3
    assert cache.clear() > 0
    assert not list(cache.folder.iterdir())
