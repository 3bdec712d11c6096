"""Rows, neurons and heads, against sums and means written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tamperlens import neurons
from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, encode_pairs

Chat = Callable[..., ChatModel]
FUSED = ("llama", "gpt2", "gpt_neox", "phi3")


@pytest.mark.parametrize("family", FUSED)
def test_scores_of_units_are_sums_of_weights(chat: Chat, safety: PromptSet, family: str) -> None:
    model = chat(family)
    anatomy = model.anatomy
    scores = neurons.snip(model, safety)
    part = {p.name: scores.part(p).double() for p in scores.parts}
    rows = neurons.by_row(scores)
    assert torch.allclose(rows["0.o"], part["0.o"].sum(1))
    cells, heads = neurons.by_neuron(model, scores), neurons.by_head(model, scores)
    for unit in (0, 7, anatomy.d_mlp - 1):
        expected = part["1.up"][unit].sum() + part["1.down"][:, unit].sum()
        if "1.gate" in part:
            expected = expected + part["1.gate"][unit].sum()
        assert float(cells.scores[1, unit]) == pytest.approx(float(expected), rel=1e-5)
    group = anatomy.n_heads // anatomy.n_kv_heads
    for head in range(anatomy.n_heads):
        own = slice(head * anatomy.d_head, (head + 1) * anatomy.d_head)
        shared = slice(head // group * anatomy.d_head, (head // group + 1) * anatomy.d_head)
        expected = (
            part["0.q"][own].sum()
            + part["0.o"][:, own].sum()
            + (part["0.k"][shared].sum() + part["0.v"][shared].sum()) / group
        )
        assert float(heads.scores[0, head]) == pytest.approx(float(expected), rel=1e-5)
    attention = sum(float(part[f"0.{name}"].sum()) for name in "qkvo")
    assert float(heads.scores[0].sum()) == pytest.approx(attention, rel=1e-5)
    with pytest.raises(InputError, match="need q, k, v and o"):
        neurons.by_head(model, neurons.snip(model, safety, modules=["q"]))
    with pytest.raises(InputError, match="scores by neuron need down"):
        neurons.by_neuron(model, neurons.snip(model, safety, modules=["q"]))


@pytest.mark.parametrize("family", FUSED)
def test_removing_a_units_weights_silences_it(chat: Chat, family: str) -> None:
    """A neuron without its weights hands 0 on; a head without its columns of o writes nothing."""
    from tamperlens.hooks import ablate_heads

    model = chat(family)
    silent = neurons.unit_mask(model, "head", [(1, 2)])
    with ablate_heads(model, [(1, 2)]):
        expected = model.logits_last(["hello"])
    with neurons.zeroed(model, silent):
        assert torch.allclose(model.logits_last(["hello"]), expected, atol=1e-5)
    read: list[torch.Tensor] = []
    mask = neurons.unit_mask(model, "neuron", [(0, 3), (0, 5), (1, 0)])
    down = model.module.get_submodule(model.anatomy.projection("down", 0).module)
    columns = dict(mask.items())[model.anatomy.projection("down", 0).parameter]
    columns = columns.T if model.anatomy.projection("down", 0).transposed else columns
    assert columns[:, [3, 5]].all()
    assert int(columns.sum()) == 2 * model.d_model
    handle = down.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    with neurons.zeroed(model, mask):
        model.logits_last(["hello"])
    handle.remove()
    has_bias = getattr(model.module.get_submodule(model.anatomy.projection("up", 0).module), "bias", None)
    if has_bias is None:
        assert not read[0][..., [3, 5]].any()
        assert read[0][..., 4].any()
    for bad in ([(9, 0)], [(0, 10_000)]):
        with pytest.raises(InputError, match="do not all exist"):
            neurons.unit_mask(model, "neuron", bad)


def activations(model: ChatModel, ids: list[int]) -> torch.Tensor:
    """What every down projection reads, [layer, seq, d_mlp], one sequence at a time."""
    read: list[torch.Tensor] = []
    handles = [
        model.module.get_submodule(model.anatomy.projection("down", layer).module).register_forward_pre_hook(
            lambda _, args: read.append(args[0][0].detach().double())
        )
        for layer in range(model.n_layers)
    ]
    with torch.no_grad():
        model.module(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(read)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_contrastive_attribution_is_a_difference_of_means(
    chat: Chat, safety: PromptSet, utility: PromptSet, family: str, tmp_path: Path
) -> None:
    model = chat(family)
    sides = [
        torch.stack([activations(model, model.token_ids([p])[0])[:, -1] for p in data.prompts])
        for data in (safety, utility)
    ]
    signed = sides[0].mean(0) - sides[1].mean(0)
    found = neurons.contrastive_attribution(model, safety, utility, batch_size=2)
    assert torch.allclose(found.signed.double(), signed, atol=1e-4)
    assert torch.equal(found.scores, found.signed.abs())
    pooled = torch.sqrt(sum((side - side.mean(0)).square().sum(0) for side in sides) / 8)
    standardised = neurons.contrastive_attribution(model, safety, utility, statistic="standardised")
    assert torch.allclose(standardised.signed.double(), signed / pooled, rtol=1e-3, atol=1e-3)
    order = np.argsort(-found.scores.flatten().numpy(), kind="stable")[: int(0.05 * found.scores.numel())]
    literal = [(int(i) // model.anatomy.d_mlp, int(i) % model.anatomy.d_mlp) for i in order]
    assert found.top(0.05) == literal
    assert found.mask(model, literal[:1]).count > 0
    found.save(tmp_path / "u.safetensors")
    assert torch.equal(neurons.UnitScores.load(tmp_path / "u.safetensors").scores, found.scores)
    frame = found.to_frame()
    assert len(frame) == found.scores.numel()
    assert frame.loc[frame["score"].idxmax(), ["layer", "unit"]].tolist() == list(literal[0])
    for options, words in (
        ({"statistic": "t"}, "statistic='t' must be one of"),
        ({"harmless": utility.head(1)}, "at least 2"),
    ):
        with pytest.raises(InputError, match=words):
            neurons.contrastive_attribution(model, **{"harmful": safety, "harmless": utility, **options})
    with pytest.raises(InputError, match="chooses nothing"):
        found.top(0.001)


def test_activation_contrast_is_the_rms_over_response_tokens(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama")
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        module.model.layers[1].mlp.up_proj.weight[5] += 1.0
    other = model.with_module(module, name="other")
    squares, tokens = torch.zeros(model.n_layers, model.anatomy.d_mlp, dtype=torch.float64), 0
    for turn in encode_pairs(model.tokenizer, safety):
        kept = torch.tensor(turn.labels) != -100
        difference = (activations(model, turn.input_ids) - activations(other, turn.input_ids))[:, kept]
        squares += difference.square().sum(1)
        tokens += int(kept.sum())
    found = neurons.activation_contrast(model, other, safety, batch_size=2)
    assert torch.allclose(found.scores.double(), (squares / tokens).sqrt(), atol=1e-4)
    assert found.n == tokens
    assert not found.scores[0].any()  # the edit is in layer 1
    assert found.top(0.005)[0] == (1, 5)
    with pytest.raises(InputError, match="same projections"):
        neurons.activation_contrast(model, chat("gpt2"), safety)
