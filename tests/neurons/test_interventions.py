"""Removing weights and ranks, controls, overlaps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from tamperlens import neurons
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, encode_pairs
from tamperlens_hooks import stored_parameter
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.weights import zeroed_entries

Chat = Callable[..., ChatModel]
ASKED = ["hello", "a longer question, with a comma"]
FUSED = ("llama", "gpt2", "gpt_neox", "phi3")


def edited(model: ChatModel, change: Callable[[str, torch.Tensor], None]) -> ChatModel:
    """A copy whose weights were changed for good."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name in dict.fromkeys(part.parameter for part in model.anatomy.projections()):
            change(name, stored_parameter(module, name))
    return model.with_module(module, name="edited")


@pytest.mark.parametrize("family", FUSED)
def test_zeroed_is_a_model_with_zeros_and_leaves_every_bit(chat: Chat, family: str) -> None:
    model = chat(family)
    mask = neurons.random(model, seed=0).top(0.2)
    literal = edited(model, lambda name, weight: weight.masked_fill_(mask[name], 0))
    before = {name: parameter.clone() for name, parameter in model.module.named_parameters()}
    fingerprint, found = model.fingerprint, model.logits_last(ASKED)
    with neurons.zeroed(model, mask) as inside:
        assert inside is model
        assert torch.equal(model.logits_last(ASKED), literal.logits_last(ASKED))
        assert model.fingerprint != fingerprint
    assert model.fingerprint == fingerprint
    assert torch.equal(model.logits_last(ASKED), found)
    with pytest.raises(RuntimeError, match="stop"), neurons.zeroed(model, mask):
        raise RuntimeError("stop")
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, before[name])


def test_negative_zero_and_bfloat16_come_back(chat: Chat) -> None:
    model = chat("llama", dtype=torch.bfloat16)
    weight = model.module.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, :3] = torch.tensor([-0.0, 0.0, 1e-40])
    bits = weight.detach().view(torch.int16).clone()
    with neurons.zeroed(model, ~WeightMask.from_tensors(model, {})):
        assert not weight.any()
    assert torch.equal(weight.detach().view(torch.int16), bits)


def test_masks_of_other_models_are_refused(chat: Chat) -> None:
    model, other = chat("llama"), chat("llama", seed=9)
    mask = neurons.random(model, seed=0).top(0.2)
    with pytest.raises(InputError, match="made for llama"), neurons.zeroed(other, mask):
        pass
    head = {"lm_head.weight": torch.ones(1, 1, dtype=torch.bool)}
    with pytest.raises(HookError, match="no weight of a projection"), zeroed_entries(model, head):
        pass
    name = "model.layers.0.mlp.up_proj.weight"
    fingerprint = model.fingerprint
    flags = {name: torch.ones(80, 48, dtype=torch.bool), "x": torch.ones(1, 1, dtype=torch.bool)}
    with pytest.raises(HookError), zeroed_entries(model, flags):
        pass
    assert model.fingerprint == fingerprint


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_control_matches_counts_and_sizes(chat: Chat, safety: PromptSet, family: str) -> None:
    model = chat(family)
    mask = neurons.snip(model, safety).top(0.05)
    plain = neurons.random(model, seed=0).top(0.05)
    control = neurons.control(model, mask, seed=3, bins=10)
    assert control.counts() == mask.counts()
    assert (control & mask).count == 0
    assert control == neurons.control(model, mask, seed=3, bins=10)
    assert control != neurons.control(model, mask, seed=4, bins=10)
    chosen, drawn, loose = [], [], []
    for part in mask.parts:
        weight = part.read(stored_parameter(model.module, part.parameter).detach()).abs()
        edges = torch.quantile(weight.flatten(), torch.linspace(0, 1, 11)[1:-1])
        bins = torch.bucketize(weight, edges)
        ours, theirs = mask.part(part), control.part(part)
        shift = torch.bincount(bins[ours], minlength=10) - torch.bincount(bins[theirs], minlength=10)
        assert shift.abs().max() <= 1  # quantiles interpolate, ranks do not
        chosen.append(weight[ours])
        drawn.append(weight[theirs])
        loose.append(weight[plain.part(part)])
    sizes = [float(torch.cat(side).mean()) for side in (chosen, drawn, loose)]
    assert abs(sizes[1] - sizes[0]) < 0.2 * abs(sizes[2] - sizes[0])


def test_a_control_of_a_full_bin_says_what_it_shares(chat: Chat) -> None:
    model = chat("llama")
    mask = neurons.magnitude(model).top(0.1)  # fills the bins of the largest weights
    control = neurons.control(model, mask, seed=0, bins=10)
    assert control.counts() == mask.counts()
    shared = (control & mask).count
    assert shared > 0.9 * mask.count
    assert f"{shared} weights shared" in control.definition


def literal_output(model: ChatModel, data: PromptSet, path: str, rows: object) -> torch.Tensor:
    """W X [d_out, tokens] in fp64: what a module wrote at the response's tokens, less its bias."""
    found: list[torch.Tensor] = []
    module = model.module.get_submodule(path)
    kept: list[torch.Tensor] = []

    def see(_: object, args: object, output: torch.Tensor) -> None:
        y = output if getattr(module, "bias", None) is None else output - module.bias
        found.append(y[0][kept[0]].double())

    handle = module.register_forward_hook(see)
    for turn in encode_pairs(model.tokenizer, data):
        kept[:] = [torch.tensor(turn.labels) != -100]
        with torch.no_grad():
            model.module(input_ids=torch.tensor([turn.input_ids]))
    handle.remove()
    return torch.cat(found).T[list(rows) if isinstance(rows, tuple) else rows]


@pytest.mark.parametrize("family", FUSED)
def test_act_svd_is_the_svd_of_outputs(chat: Chat, safety: PromptSet, family: str) -> None:
    model = chat(family, dtype=torch.float64)
    subspaces = neurons.act_svd(model, safety, batch_size=2)
    for projection in model.anatomy.projections(1):
        output = literal_output(model, safety, projection.module, projection.rows)
        u, s, _ = torch.linalg.svd(output, full_matrices=False)
        name = f"1.{projection.name}"
        rank = min(10, s.numel(), subspaces.values[name].numel())
        assert torch.allclose(subspaces.values[name][:rank].double(), s[:rank], rtol=1e-4, atol=1e-5 * s[0])
        basis = subspaces.basis(name, 5).double()
        assert torch.allclose(basis @ basis.T, u[:, :5] @ u[:, :5].T, atol=1e-4)
    again = neurons.act_svd(model, safety, rank=3, modules=["up"], max_memory="200KB")
    assert again.basis("0.up", 3).shape[1] == 3
    with pytest.raises(InputError, match=r"rank 4 of 0.up was not kept \(1 to 3 were\)"):
        again.basis("0.up", 4)
    with pytest.raises(InputError, match="does not hold X Xᵀ"):
        neurons.act_svd(model, safety, max_memory=10)


@pytest.mark.parametrize("family", FUSED)
def test_rank_removal_is_the_edited_weight(
    chat: Chat, safety: PromptSet, utility: PromptSet, family: str
) -> None:
    model = chat(family)
    one, two = neurons.act_svd(model, safety), neurons.act_svd(model, utility)
    top = neurons.top_ranks(model, one, 3)
    difference = neurons.orthogonal_difference(model, one, two, r_u=5, r_s=3)
    parts = {part.name: part for part in one.parts}
    for name, part in parts.items():
        weight = part.read(stored_parameter(model.module, part.parameter).detach())
        s, u = one.basis(name, 3), two.basis(name, 5)
        assert torch.allclose(top.delta(name), s @ s.T @ weight, atol=1e-5)
        literal = (torch.eye(part.d_out) - u @ u.T) @ (s @ s.T @ weight)
        assert torch.allclose(difference.delta(name), literal, atol=1e-5)
        assert torch.linalg.matrix_rank(difference.delta(name), rtol=1e-4) <= 3
    fingerprint, before = model.fingerprint, model.logits_last(ASKED)
    for edit in (top, difference, neurons.random_ranks(model, top, seed=1)):

        def change(name: str, weight: torch.Tensor, edit: neurons.RankEdit = edit) -> None:
            for part in parts.values():
                if part.parameter == name:
                    part.write(weight, part.read(weight) - edit.delta(part.name))

        literal_model = edited(model, change)
        with neurons.ranks_removed(model, edit):
            found = model.logits_last(ASKED)
            assert model.fingerprint == fingerprint
        assert torch.allclose(found, literal_model.logits_last(ASKED), atol=1e-4)
        assert not torch.allclose(found, before, atol=1e-2)
    assert torch.equal(model.logits_last(ASKED), before)
    with pytest.raises(InputError, match="made for"), neurons.ranks_removed(chat(family, seed=4), top):
        pass


def test_subspace_overlap_and_its_chance(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama")
    one = neurons.act_svd(model, safety, modules=["up", "down"])
    whole = neurons.subspace_overlap(one, one, r_u=4, r_s=2)
    assert whole["overlap"].to_numpy() == pytest.approx(1.0, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        a, b = (torch.linalg.qr(torch.randn(48, r, generator=generator)).Q for r in (2, 4))
        found.append(float((a.T @ b).square().sum()) / 2)
    down = whole[whole["module"] == "down"]
    assert down["chance"].to_numpy() == pytest.approx(4 / 48)
    assert abs(np.mean(found) - 4 / 48) < 4 * np.std(found) / math.sqrt(200)


def test_overlap_counts_and_chance(chat: Chat) -> None:
    model = chat("phi3")
    a, b = neurons.random(model, seed=0).top(0.3), neurons.random(model, seed=1).top(0.2)
    found = neurons.overlap(a, b)
    assert found.jaccard == pytest.approx(float(a.jaccard(b)))
    assert found.chance == pytest.approx(a.jaccard(b).chance)
    assert found.kept == pytest.approx((a & b).count / a.count)
    assert found.kept_chance == pytest.approx(0.2, abs=0.002)
    assert abs(found.kept - 0.2) < 0.02
    assert math.isnan(found.floor.value)
    for frame, key in ((found.by_layer(), "layer"), (found.by_module(), "module")):
        for row in frame.to_dict("records"):
            parts = [p for p in a.parts if (p.layer if key == "layer" else p.projection) == row[key]]
            both = sum(int((a.part(p) & b.part(p)).sum()) for p in parts)
            either = sum(int((a.part(p) | b.part(p)).sum()) for p in parts)
            assert row["shared"] == both
            assert row["jaccard"] == pytest.approx(both / either)
            expected = sum(a.counts()[p.name] * b.counts()[p.name] / p.numel for p in parts)
            total = sum(a.counts()[p.name] + b.counts()[p.name] for p in parts)
            assert row["chance"] == pytest.approx(expected / (total - expected))
    other = chat("phi3", seed=3)
    across = neurons.overlap(a, neurons.random(other, seed=0).top(0.3))  # two models: allowed here
    assert across.jaccard == 1.0


def test_noise_floor_rescores_disjoint_halves(chat: Chat, safety: PromptSet, utility: PromptSet) -> None:
    model = chat("llama")
    seen: list[tuple[str, ...]] = []

    def choose(data: PromptSet) -> WeightMask:
        seen.append(data.prompts)
        return neurons.snip(model, data).top(0.05)

    floor = neurons.noise_floor(choose, safety, other=[utility], splits=2)
    halves = [(seen[0], seen[1]), (seen[2], seen[3])]
    for one, two in halves:
        assert len(one) == len(two) == len(safety) // 2
        assert not set(one) & set(two)
    assert seen[4:] == [safety.prompts, utility.prompts]
    assert floor.halves.n == 2
    assert floor.halves.low <= floor.halves.value <= floor.halves.high
    literal = [
        float(neurons.snip(model, safety.subset([safety.prompts.index(p) for p in one])).top(0.05).jaccard(
            neurons.snip(model, safety.subset([safety.prompts.index(p) for p in two])).top(0.05)))
        for one, two in halves
    ]  # fmt: skip
    assert floor.halves.value == pytest.approx(np.mean(literal))
    assert 0.02 < floor.halves_chance < 0.03
    assert set(floor.table["comparison"]) == {"halves", "other data"}
    assert isinstance(floor.to_frame(), pd.DataFrame)
    assert neurons.overlap(choose(safety), choose(utility), floor=floor).floor == floor.halves
    with pytest.raises(InputError, match="cannot be halved"):
        neurons.noise_floor(choose, safety.head(1))
    with pytest.raises(InputError, match="gave a NoneType"):
        neurons.noise_floor(lambda data: None, safety)
