"""Products of per-example gradients with given ones, against ordinary autograd on single examples."""

from __future__ import annotations

import pytest
import torch
from test_gradients import LENGTHS, batch_of, literal, losses_of
from tiny_models import make_model

from tamperlens_hooks import describe
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.similarity import project_gradients


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("lengths", [LENGTHS, (90, 97)], ids=["short", "long"])
def test_products_and_norms_are_those_of_single_examples(family: str, lengths: tuple[int, ...]) -> None:
    model = make_model(family).eval()
    batch = batch_of(lengths)
    apart = [
        literal(model, {k: v[row : row + 1] for k, v in batch.items()}, signed=True)
        for row in range(len(lengths))
    ]
    torch.manual_seed(0)
    along = {name: torch.randn_like(grad) for name, grad in apart[0].items()}
    with project_gradients(model, describe(model), {"random": along}) as tape:
        product, norm = tape.backward(losses_of(model, batch), "random")
    for row, grads in enumerate(apart):
        expected = sum(float((grads[name] * along[name]).sum()) for name in grads)
        size = sum(float(one.square().sum()) for one in grads.values()) ** 0.5
        assert float(product[row]) == pytest.approx(expected, rel=2e-3, abs=1e-4)
        assert float(norm[row]) == pytest.approx(size, rel=2e-3)
    # The norm of the summed gradient is another number.
    summed = sum(float(sum(g[n] for g in apart).square().sum()) for n in apart[0]) ** 0.5  # type: ignore[union-attr]
    assert float(norm.square().sum().sqrt()) != pytest.approx(summed, rel=3e-3)


def test_two_losses_of_one_forward_pass() -> None:
    model = make_model("llama").eval()
    batch = batch_of()
    along = {"all": {name: torch.ones_like(one) for name, one in literal(model, batch).items()}}
    with project_gradients(model, describe(model), along) as tape:
        losses = losses_of(model, batch)
        doubled, _ = tape.backward(2 * losses, "all", again=True)
        once, _ = tape.backward(losses, "all")
    torch.testing.assert_close(doubled, 2 * once)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_refused() -> None:
    model = make_model("llama").eval()
    with (
        pytest.raises(HookError, match="'one' has no matrix for"),
        project_gradients(model, describe(model), {"one": {}}),
    ):
        pass
    with (
        project_gradients(model, describe(model), {}) as tape,
        pytest.raises(HookError, match="no direction"),
    ):
        tape.backward(losses_of(model, batch_of()), "two")
    # The squared size of a sum is no sum of squared sizes.
    along = {"all": {part.parameter: torch.zeros(()) for part in describe(model).projections()}}
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(HookError, match="are one tensor"), project_gradients(model, describe(model), along):
        pass


def test_a_map_used_twice_is_refused() -> None:
    model = make_model("llama").eval()
    along = {"all": {name: torch.ones_like(one) for name, one in literal(model, batch_of()).items()}}
    with project_gradients(model, describe(model), along) as tape:
        twice = losses_of(model, batch_of()) + losses_of(model, batch_of())
        with pytest.raises(HookError, match="used more than once"):
            tape.backward(twice, "all")
