"""SNIP and its relatives against the literal loops."""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor

from tamperlens import neurons
from tamperlens.base.errors import InputError, NumericsError, RunFolderError
from tamperlens.models import ChatModel
from tamperlens.neurons import WeightScores
from tamperlens.prompts import PromptSet, encode_pairs
from tamperlens_hooks import stored_parameter

Chat = Callable[..., ChatModel]


def turns_of(model: ChatModel, data: PromptSet) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.tensor([turn.input_ids]), torch.tensor([turn.labels]))
        for turn in encode_pairs(model.tokenizer, data)
    ]


def literal_snip(model: ChatModel, data: PromptSet, signed: bool = False) -> dict[str, Tensor]:
    """|W| ⊙ (1/N) Σ_x |∂L_x/∂W|: transformers' own loss, one example at a time, a gradient per weight."""
    module = copy.deepcopy(model.module).eval().requires_grad_(True)
    names = list(dict.fromkeys(part.parameter for part in model.anatomy.projections()))
    sums = {name: torch.zeros_like(stored_parameter(module, name)) for name in names}
    turns = turns_of(model, data)
    for ids, labels in turns:
        module.zero_grad()
        module(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        for name in names:
            grad = stored_parameter(module, name).grad
            sums[name] += grad if signed else grad.abs()
    return {
        name: (stored_parameter(module, name).abs() * total.abs() / len(turns)).detach()
        for name, total in sums.items()
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-6) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].shape == expected[name].shape
        assert float((found[name] - expected[name]).norm() / expected[name].norm()) <= limit, name


@pytest.mark.parametrize("family", FAMILIES)
def test_snip_is_the_literal_loop(chat: Chat, safety: PromptSet, family: str) -> None:
    """fp32 within 1e-6 and the same top-1 % masks, padded batches, with and without checkpointing."""
    model = chat(family)
    expected = literal_snip(model, safety)
    fingerprint = model.fingerprint
    for checkpoint in (False, True):
        scores = neurons.snip(model, safety, batch_size=3, checkpoint=checkpoint)
        same(scores.by_parameter(), expected)
        literal = copy.copy(scores)
        object.__setattr__(literal, "tensors", expected)
        assert scores.top(0.01) == literal.top(0.01)
    assert model.fingerprint == fingerprint
    assert scores.fingerprint == fingerprint
    assert scores.n == len(safety)
    assert scores.prompts == {"safety": safety.sha256}


def test_projections_of_fused_weights_are_reported_one_by_one(chat: Chat, safety: PromptSet) -> None:
    for family in ("gpt2", "gpt_neox", "phi3"):
        model = chat(family)
        scores = neurons.snip(model, safety)
        for part, projection in zip(scores.parts, model.anatomy.projections(), strict=True):
            stored = scores[projection.parameter][projection.index]
            assert torch.equal(scores.part(part), stored.T if projection.transposed else stored)
        assert set(scores.to_frame()["module"]) == {p.name for p in model.anatomy.projections()}
        only = neurons.snip(model, safety, modules=["k"], layers=[1])
        assert [(part.layer, part.projection) for part in only.parts] == [(1, "k")]
        assert torch.equal(
            only.part(only.parts[0]), next(scores.part(p) for p in scores.parts if p.name == "1.k")
        )
        [(_name, flags)] = only.top(0.1).items()
        inside = torch.zeros_like(flags)
        only.parts[0].write(inside, torch.ones(only.parts[0].d_out, only.parts[0].d_in, dtype=torch.bool))
        assert not (flags & ~inside).any()
        assert flags.any()
        assert (~only.top(0.1)).count + only.top(0.1).count == only.total


def test_the_absolute_value_is_inside_the_sum(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama")
    inside = neurons.snip(model, safety)
    outside = neurons.snip(model, safety, reduction="abs_mean")
    same(outside.by_parameter(), literal_snip(model, safety, signed=True), 3e-6)
    assert inside.top(0.01).jaccard(outside.top(0.01)) < 0.8
    assert inside.definition != outside.definition


def test_losses(chat: Chat, safety: PromptSet) -> None:
    """Each loss against its own words, and the response mask against the rendered text."""
    from tamperlens.neurons.examples import Examples, batches, example_losses, loss_function

    model = chat("llama")
    examples = Examples.of(model, safety)
    [batch] = batches(examples, 8, model.pad_id, model.device)
    module = model.module
    for row, place in enumerate(batch.rows):
        turn = examples.turns[place]
        assert model.tokenizer.decode(turn.label_ids[:-1]) == safety[place].response
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([turn.input_ids])).logits[0].log_softmax(-1)
        nats = [-float(logits[t - 1, label]) for t, label in enumerate(turn.labels) if label != -100]
        for name, literal in (
            ("response_mean", np.mean(nats)),
            ("response_sum", np.sum(nats)),
            ("first_1", nats[0]),
            ("first_4", np.mean(nats[:4])),
        ):
            found = example_losses(model, batch, loss_function(name))
            assert float(found[row]) == pytest.approx(literal, rel=1e-4), name
    for bad in ("mean", "first_0", "first_", "first_x"):
        with pytest.raises(InputError, match="no loss"):
            loss_function(bad)


def test_batches_and_padding_do_not_matter(chat: Chat, safety: PromptSet) -> None:
    model = chat("gemma2")
    alone = neurons.snip(model, safety, batch_size=1).by_parameter()
    for size in (2, 5, "auto"):
        same(neurons.snip(model, safety, batch_size=size).by_parameter(), alone)


def test_lora_is_scored_on_the_merged_weight(chat: Chat, safety: PromptSet) -> None:
    from peft import LoraConfig, get_peft_model

    model = chat("llama", dtype=torch.float64)
    torch.manual_seed(0)
    tuned = model.with_module(
        get_peft_model(
            model.module, LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False)
        ).eval(),
        name="tuned",
    )
    before = tuned.fingerprint
    scores = neurons.snip(tuned, safety)
    assert tuned.fingerprint == before == scores.fingerprint
    assert scores.base_fingerprint != scores.fingerprint
    merged = model.with_module(copy.deepcopy(tuned.module).merge_and_unload(), name="merged")
    same(scores.by_parameter(), literal_snip(merged, safety), 1e-7)
    same(neurons.wanda(tuned, safety).by_parameter(), neurons.wanda(merged, safety).by_parameter(), 1e-7)
    mask = scores.top(0.05)
    with neurons.zeroed(tuned, mask):
        found = tuned.logits_last(["hello"])
    assert tuned.fingerprint == before
    with neurons.zeroed(merged, mask.rebind(merged)):
        assert torch.allclose(found, merged.logits_last(["hello"]), atol=1e-6)


def test_bfloat16(chat: Chat, safety: PromptSet) -> None:
    model = chat("qwen3", dtype=torch.bfloat16)
    scores = neurons.snip(model, safety)
    wide = neurons.snip(chat("qwen3"), safety)
    assert all(tensor.dtype == torch.float32 for _, tensor in scores.items())
    assert float(scores.top(0.05).rebind(chat("qwen3")).jaccard(wide.top(0.05))) > 0.8


def test_wanda_is_its_formula(chat: Chat, safety: PromptSet) -> None:
    for family in ("llama", "gpt2"):
        model = chat(family)
        scores = neurons.wanda(model, safety, batch_size=2)
        squares: dict[str, Tensor] = {}
        kept: list[Tensor] = []

        def hook(name: str, squares: Any = squares, kept: Any = kept) -> Any:
            def see(module: Any, args: Any) -> None:
                x = args[0][0][kept[0]].double()
                squares[name] = squares.get(name, 0) + x.square().sum(0)

            return see

        handles = [
            model.module.get_submodule(part.module).register_forward_pre_hook(hook(part.parameter))
            for part in {p.module: p for p in model.anatomy.projections()}.values()
        ]
        for ids, labels in turns_of(model, safety):
            kept[:] = [labels[0] != -100]
            with torch.no_grad():
                model.module(input_ids=ids)
        for handle in handles:
            handle.remove()
        for name, tensor in scores.items():
            weight = stored_parameter(model.module, name).detach().abs().double()
            norm = squares[name].sqrt()
            expected = weight * (norm[:, None] if family == "gpt2" else norm)
            assert torch.allclose(tensor.double(), expected, rtol=1e-4)


def test_magnitude_change_and_random(chat: Chat) -> None:
    model = chat("llama")
    other = chat("llama", seed=5)
    name = "model.layers.0.mlp.up_proj.weight"
    one, two = (dict(m.module.named_parameters())[name].detach() for m in (model, other))
    assert torch.equal(neurons.magnitude(model)[name], one.abs())
    assert torch.equal(neurons.magnitude(model, reference=other)[name], (one - two).abs())
    drawn = neurons.random(model, seed=1)
    assert torch.equal(drawn[name], neurons.random(model, seed=1, modules=["up"])[name])
    assert not torch.equal(drawn[name], neurons.random(model, seed=2)[name])
    values = torch.cat([tensor.flatten() for _, tensor in drawn.items()])
    assert values.min() > 0
    assert values.max() <= 1
    assert abs(float(values.mean()) - 0.5) < 4 / math.sqrt(12 * values.numel())
    with pytest.raises(InputError, match="same projections"):
        neurons.magnitude(model, reference=chat("gpt2"))


@pytest.mark.parametrize("end", ["top", "bottom"])
def test_sequential_scores_see_the_pruned_blocks_below(chat: Chat, safety: PromptSet, end: Any) -> None:
    """Against a copy in which each block is scored, pruned for good, and the next one scored."""
    model = chat("qwen2")
    found = neurons.snip(model, safety, scores="sequential", prune=0.1, prune_end=end)
    intact = neurons.snip(model, safety)
    copied = model.with_module(copy.deepcopy(model.module), name="copy")
    for layer in range(model.n_layers):
        literal = literal_snip(copied, safety)
        for projection in model.anatomy.projections(layer):
            expected = literal[projection.parameter]
            assert float((found[projection.parameter] - expected).norm() / expected.norm()) <= 1e-5
            order = found[projection.parameter].argsort(dim=1, descending=end == "top", stable=True)
            weight = stored_parameter(copied.module, projection.parameter)
            with torch.no_grad():
                weight.scatter_(1, order[:, : int(0.1 * weight.shape[1])], 0.0)
    last = model.anatomy.projection("up", 1).parameter
    assert not torch.allclose(found[last], intact[last], rtol=1e-2)
    with pytest.raises(InputError, match="needs prune="):
        neurons.snip(model, safety, scores="sequential")


def test_portions_on_disk_are_the_same_scores(chat: Chat, safety: PromptSet, tmp_path: Path) -> None:
    for family in ("phi3", "llama"):
        model = chat(family)
        whole = neurons.snip(model, safety)
        limit = 4 * 2 * max(tensor.numel() for _, tensor in whole.items())
        streamed = neurons.snip(model, safety, max_memory=limit, out=tmp_path / family)
        assert len(list((tmp_path / family).glob("*.safetensors"))) == len(whole.by_parameter())
        same(streamed.by_parameter(), whole.by_parameter())
        assert list(streamed.by_parameter()) == list(whole.by_parameter())
        for group in ("matrix", "row", "global"):
            assert streamed.top(0.05, group=group) == whole.top(0.05, group=group)
        again = WeightScores.load(tmp_path / family)
        assert again.definition == whole.definition
        assert again.parts == whole.parts
        assert again.top(0.05) == whole.top(0.05)
        whole.save(tmp_path / "one.safetensors")
        assert WeightScores.load(tmp_path / "one.safetensors").top(0.05) == whole.top(0.05)
    with pytest.raises(InputError, match="pass out=FOLDER"):
        neurons.snip(model, safety, max_memory=limit)
    with pytest.raises(InputError, match="does not hold the scores of"):
        neurons.snip(model, safety, max_memory=10, out=tmp_path / "x")


def test_a_killed_pass_goes_on_and_ends_in_the_same_bits(
    chat: Chat, safety: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamperlens.neurons import passes

    model = chat("llama")
    limit = "40KB"
    straight = neurons.snip(model, safety, max_memory=limit, out=tmp_path / "straight", batch_size=2)
    write, written = passes.write_tensors, []

    def stops(path: Path, *rest: Any) -> Path:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *rest)

    monkeypatch.setattr(passes, "write_tensors", stops)
    with pytest.raises(KeyboardInterrupt):
        neurons.snip(model, safety, max_memory=limit, out=tmp_path / "cut", batch_size=2)
    monkeypatch.undo()
    with pytest.raises(InputError, match="holds 5 of 21 shards"):
        WeightScores.load(tmp_path / "cut")
    partial = WeightScores.load(tmp_path / "cut", partial=True)
    assert len(partial.parts) == 5
    assert partial.top(0.01).count > 0
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.safetensors")}
    resumed = neurons.snip(model, safety, max_memory=limit, out=tmp_path / "cut", batch_size=2)
    for name, tensor in straight.items():
        assert torch.equal(resumed[name], tensor)
    for name, stamp in stamps.items():
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == stamp
    for other in ({"loss": "first_1"}, {"modules": ["q"]}):
        with pytest.raises(RunFolderError, match="shards of another pass"):
            neurons.snip(model, safety, max_memory=limit, out=tmp_path / "cut", **other)
    with pytest.raises(RunFolderError, match="fingerprint differs"):
        neurons.snip(chat("llama", seed=2), safety, max_memory=limit, out=tmp_path / "cut")


def test_rows_without_a_response_are_named(chat: Chat) -> None:
    model = chat("llama")
    with pytest.raises(InputError, match=r"row 1 of 'gaps'"):
        neurons.snip(model, PromptSet.from_pairs([("a", "b"), ("c", "")], name="gaps"))
    with pytest.raises(InputError, match="has no responses"):
        neurons.snip(model, PromptSet.from_prompts(["a"], name="bare"))
    with pytest.raises(InputError, match="is empty"):
        neurons.snip(model, PromptSet.from_pairs([], name="none"))
    with pytest.raises(InputError, match=r"row 0 of 'long' has \d+ tokens and gpt2 512 positions"):
        neurons.snip(chat("gpt2"), PromptSet.from_pairs([("a", "b" * 600)], name="long"))


def test_bad_options_are_told(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama")
    for options, words in (
        ({"reduction": "sum"}, "reduction='sum' must be one of"),
        ({"scores": "other"}, "scores='other' must be one of"),
        ({"loss": "x"}, "no loss 'x'"),
        ({"modules": ["query"]}, "it has q, k, v, o, gate, up, down"),
        ({"modules": []}, "no projections left"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1 on"),
        ({"max_memory": "much"}, "max_memory is 'much'"),
        ({"scores": "sequential", "prune": 2.0}, "prune is 2.0"),
    ):
        with pytest.raises(InputError, match=words):
            neurons.snip(model, safety, **options)


def test_nan_gradients_name_module_and_row(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama", fresh=True)
    rare = next(
        iter(
            set(model.token_ids(["x"])[0])
            - set(functools.reduce(operator.iadd, model.token_ids(list(safety.prompts[:4])), []))
        )
    )
    model.module.model.embed_tokens.register_forward_hook(
        lambda _, inputs, output: output.masked_fill((inputs[0] == rare)[..., None], float("inf"))
    )  # weights are finite: those that are not are named before any pass
    with pytest.raises(NumericsError, match=r"(proj.weight): the gradient of row 4 of 'safety'"):
        neurons.snip(model, safety)
    with pytest.raises(NumericsError, match=r"row 4 of 'safety'"):
        neurons.wanda(model, safety)


def test_vanishing_gradients_are_refused(chat: Chat, safety: PromptSet) -> None:
    model = chat("llama", fresh=True)
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight.zero_()
    with pytest.raises(NumericsError, match=r"layers.1.mlp.(up|gate)_proj.weight: 100% of the gradients"):
        neurons.snip(model, safety)
    neurons.snip(model, safety, max_zero_share=1.0)


def test_quantised_weights_are_refused(chat: Chat, safety: PromptSet) -> None:
    from tamperlens_hooks.errors import HookError

    model = chat("llama", fresh=True)
    layer = model.module.model.layers[0].mlp.up_proj
    packed = torch.zeros(layer.weight.shape, dtype=torch.uint8)
    layer.weight = torch.nn.Parameter(packed, requires_grad=False)
    with pytest.raises(HookError, match=r"up_proj.weight is quantised \(torch.uint8\)"):
        neurons.snip(model, safety)
