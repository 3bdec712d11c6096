"""What the hook layer accepts as a model and as a direction, and what it says to anything else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import tamperlens_hooks
from tamperlens import hooks
from tamperlens_hooks import (
    HookError,
    ablate_direction,
    ablate_weights,
    add_direction,
    capture,
    describe,
    preserve_state,
    trace,
)


def stream(model, batch, context):
    with torch.no_grad(), context, capture(model, sites="resid_post") as tape:
        model(**batch)
    return tape["resid_post"]


def test_a_direction_is_a_tensor_or_anything_that_carries_one(tiny):
    model, _ = tiny("llama")
    vector = torch.randn(describe(model).d_model, generator=torch.Generator().manual_seed(1))
    carrier = SimpleNamespace(vector=vector, layer=1)
    batch = {"input_ids": torch.arange(5, 15)[None]}
    for edit in (ablate_direction, ablate_weights, lambda m, d: add_direction(m, d, layer=1)):
        plain, carried = (stream(model, batch, edit(model, one)) for one in (vector, carrier))
        assert torch.equal(plain, carried)
        assert not torch.equal(plain, stream(model, batch, torch.no_grad()))
    plain, carried = (
        trace(model, batch, sites="final", remove=one).reads["final"] for one in (vector, carrier)
    )
    assert torch.equal(plain, carried)


@pytest.mark.parametrize("wrong", ["refusal", 3, None, [0.1, 0.2], SimpleNamespace(vector=[1.0])])
def test_any_other_direction_is_one_clear_error(tiny, wrong):
    model, _ = tiny("llama")
    for edit in (ablate_direction, ablate_weights, lambda m, d: add_direction(m, d, layer=1)):
        with pytest.raises(HookError, match=r"the direction is a \w+; pass a tensor"), edit(model, wrong):
            pass


def test_a_model_is_a_module_or_anything_that_carries_one(tiny):
    model, _ = tiny("llama")
    batch = {"input_ids": torch.arange(5, 15)[None]}
    seen = [
        stream_of(model, batch, one)
        for one in (
            model,
            SimpleNamespace(module=model),
            SimpleNamespace(module=model, anatomy=describe(model)),
        )
    ]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def stream_of(module, batch, model):
    with torch.no_grad(), capture(model, sites="resid_post") as tape:
        module(**batch)
    return tape["resid_post"]


@pytest.mark.parametrize("wrong", ["organism", None, 7, SimpleNamespace(module="organism")])
def test_any_other_model_is_one_clear_error(wrong):
    with pytest.raises(HookError, match="cannot hook"), ablate_direction(wrong, torch.ones(4)):
        pass
    with pytest.raises(HookError, match="cannot hook"):
        trace(wrong, {})


@pytest.mark.parametrize("grad", [None, True, False])
def test_a_preserved_state_comes_back_whole(tiny, grad):
    model, _ = tiny("llama", fresh=True)
    anatomy = describe(model)
    model.train()
    model.get_submodule(anatomy.mlp[0]).eval()
    frozen = model.get_submodule(anatomy.attention[0]).requires_grad_(False)
    model(input_ids=torch.arange(5, 15)[None]).logits.sum().backward()
    modes = [part.training for part in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    gradients = [p.grad for p in model.parameters()]
    copies = [None if g is None else g.clone() for g in gradients]
    state = torch.get_rng_state()

    def body():
        with preserve_state(model, rng=True, grad=grad):
            assert not any(part.training for part in model.modules())
            torch.randn(3)
            model.train()
            if grad is not None:
                assert torch.is_grad_enabled()
                assert all(p.grad is None for p in model.parameters())
                assert [p.requires_grad for p in model.parameters()] == (
                    flags if grad else [False] * len(flags)
                )
                frozen.requires_grad_(True)
                model(input_ids=torch.arange(5, 15)[None]).logits.sum().backward()
            raise ZeroDivisionError

    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        body()
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(g is None or torch.equal(g, c) for g, c in zip(gradients, copies, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_public_door_shows_the_hook_layer_and_nothing_else():
    assert dir(hooks) == sorted(tamperlens_hooks.__all__)
    assert all(getattr(hooks, name) is getattr(tamperlens_hooks, name) for name in dir(hooks))


def test_no_module_of_the_hook_layer_imports_itself_through_others():
    grimp, networkx = pytest.importorskip("grimp"), pytest.importorskip("networkx")
    graph = grimp.build_graph("tamperlens_hooks", cache_dir=None)
    arrows = networkx.DiGraph(
        (one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)
    )
    assert arrows.number_of_edges() > 50
    assert [sorted(c) for c in networkx.strongly_connected_components(arrows) if len(c) > 1] == []
