"""Per-example gradient sums against a loop of single examples with ordinary autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor, nn

from tamperlens_hooks import describe, stored_parameter, unwrap
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.gradients import _BLOCK, _add_absolute, accumulate_gradients

LENGTHS = (9, 17, 23)


def batch_of(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> dict[str, Tensor]:
    """Right-padded random tokens; the second half of each row is its response."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 261, (length,), generator=generator)
        mask[row, :length] = 1
        labels[row, length // 2 : length] = ids[row, length // 2 : length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def losses_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    targets = batch["labels"][:, 1:]
    nats = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=-100
    )
    return nats.sum(1) / (targets != -100).sum(1)


def literal(model: nn.Module, batch: dict[str, Tensor], signed: bool = False) -> dict[str, Tensor]:
    """One example at a time, without padding, with a gradient for every weight."""
    model = copy.deepcopy(model).requires_grad_(True)
    sums: dict[str, Tensor] = {}
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        model.zero_grad()
        one = {key: tensor[row : row + 1, :length] for key, tensor in batch.items()}
        losses_of(model, one).sum().backward()
        for part in describe(model).projections():
            grad = stored_parameter(model, part.parameter).grad
            assert grad is not None
            sums.setdefault(part.parameter, torch.zeros_like(grad))
        for name in sums:
            grad = stored_parameter(model, name).grad
            assert grad is not None
            sums[name] += grad if signed else grad.abs()
    return sums


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert list(found) == list(expected)
    return max(float((found[n].double() - expected[n]).norm() / expected[n].norm()) for n in expected)


def rounding(model: nn.Module, batch: dict[str, Tensor], signed: bool = False) -> float:
    """How exact fp32 can be asked to be: 1e-6, or the literal loop's own distance from fp64 if that is more.

    Processors differ in how they order sums; on some the literal loop is 2e-6 away from fp64.
    """
    exact = literal(copy.deepcopy(model).double(), batch, signed)
    return max(1e-6, worst(literal(model, batch, signed), exact))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_sums_of_absolute_gradients(tiny: Any, family: str, checkpoint: bool) -> None:
    model, _ = tiny(family)
    batch = batch_of()
    with accumulate_gradients(model, describe(model), checkpoint=checkpoint) as tape:
        assert tape.backward(losses_of(model, batch), LENGTHS) == []
    assert tape.n == 3
    assert worst(tape.sums, literal(model, batch)) <= rounding(model, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_double_precision_the_sums_are_exact(tiny: Any, family: str) -> None:
    model, _ = tiny(family, dtype=torch.float64)
    batch = batch_of()
    expected = literal(model, batch)
    with accumulate_gradients(model, describe(model)) as tape:
        tape.backward(losses_of(model, batch))
    # transformers takes the softmax of soft-capped attention in fp32 whatever the weights are
    assert worst(tape.sums, expected) <= (1e-5 if family == "gemma2" else 1e-13)


def test_the_sum_of_signed_gradients_is_another_quantity(tiny: Any) -> None:
    model, _ = tiny("llama")
    batch = batch_of()
    with accumulate_gradients(model, describe(model), reduction="signed") as tape:
        tape.backward(losses_of(model, batch))
    assert worst(tape.sums, literal(model, batch, signed=True)) <= rounding(model, batch, signed=True)
    outside = {name: total.abs() for name, total in tape.sums.items()}
    assert worst(outside, literal(model, batch)) > 0.2


def test_large_and_small_matrices_take_different_paths() -> None:
    generator = torch.Generator().manual_seed(0)
    for m, n in ((8, 16), (512, 400), (400, 512)):
        assert (m * n <= _BLOCK // 2) == (m == 8)
        rows, columns = (torch.randn(5, 7, size, generator=generator) for size in (m, n))
        rows[:, 5:] = 0
        total = torch.ones(m, n)
        _add_absolute(total, rows, columns, [5] * 5)
        expected = 1 + torch.einsum("bsm,bsn->bmn", rows, columns).abs().sum(0)
        assert torch.allclose(total, expected, rtol=1e-5)


def test_several_batches_add_up_and_reset_empties(tiny: Any) -> None:
    model, _ = tiny("qwen2")
    first, second = batch_of((9, 12), seed=1), batch_of((7,), seed=2)
    one, two = literal(model, first), literal(model, second)
    with accumulate_gradients(model, describe(model)) as tape:
        tape.backward(losses_of(model, first))
        tape.reset()
        tape.backward(losses_of(model, first))
        tape.backward(losses_of(model, second))
    assert tape.n == 3
    assert worst(tape.sums, {name: one[name] + two[name] for name in one}) <= 1e-6


def test_tied_embeddings_do_not_matter(tiny: Any) -> None:
    model, _ = tiny("llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    batch = batch_of()
    with accumulate_gradients(model, describe(model)) as tape:
        tape.backward(losses_of(model, batch))
    assert worst(tape.sums, literal(model, batch)) <= rounding(model, batch)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_an_adapter_the_gradient_is_that_of_the_merged_weight(tiny: Any, family: str) -> None:
    from peft import LoraConfig, get_peft_model

    model, _ = tiny(family, dtype=torch.float64)
    targets = ["q_proj", "down_proj"] if family == "llama" else ["c_attn", "c_proj"]
    torch.manual_seed(0)
    tuned = get_peft_model(
        model,
        LoraConfig(
            r=2, target_modules=targets, init_lora_weights=False, lora_dropout=0.5,
            fan_in_fan_out=family == "gpt2",
        ),
    )  # fmt: skip
    tuned.train()  # dropout must be switched off by the tape
    batch = batch_of()
    with accumulate_gradients(unwrap(tuned), describe(tuned)) as tape:
        tape.backward(losses_of(tuned, batch))
    merged = copy.deepcopy(tuned).eval().merge_and_unload()
    assert worst(tape.sums, literal(merged, batch)) <= 1e-12
    base = copy.deepcopy(tuned).eval().unload()
    assert worst(tape.sums, literal(base, batch)) > 0.1


def test_bfloat16_sums_are_fp32(tiny: Any) -> None:
    """Against the literal loop in bf16, whose gradients are rounded to 8 bits."""
    model, _ = tiny("llama", dtype=torch.bfloat16)
    batch = batch_of()
    with accumulate_gradients(model, describe(model)) as tape:
        tape.backward(losses_of(model, batch))
    assert all(total.dtype == torch.float32 for total in tape.sums.values())
    assert worst(tape.sums, literal(model, batch)) < 0.03


def test_the_model_is_left_as_it_was(tiny: Any) -> None:
    model, _ = tiny("llama", fresh=True)
    model.train()
    model.model.layers[0].eval()
    frozen = model.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    kept = model.model.norm.weight
    kept.grad = torch.ones_like(kept)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    flags = [(part, part.training) for part in model.modules()]
    # transformers leaves hooks of its own on a model that was once asked for hidden states.
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]
    with accumulate_gradients(model, describe(model), checkpoint=True) as tape:
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(part.training for part in model.modules())
        tape.backward(losses_of(model, batch_of()))
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert all(part.training == flag for part, flag in flags)
    assert all("forward" not in part.__dict__ for part in model.modules())
    assert [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()] == hooks
    assert torch.equal(kept.grad, torch.ones_like(kept))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter._version == versions[name]
        assert parameter is kept or parameter.grad is None
    with pytest.raises(RuntimeError, match="stop"), accumulate_gradients(model, describe(model)):
        raise RuntimeError("stop")
    assert [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()] == hooks
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)


def test_the_models_own_checkpointing_is_taken_over(tiny: Any) -> None:
    """transformers recomputes in training mode only; the tape recomputes all the same."""
    model, _ = tiny("llama", fresh=True)
    model.gradient_checkpointing_enable()
    calls = []
    # a hook in front: the second pass ends with the last tensor that backward needs
    handle = model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with accumulate_gradients(model, describe(model)) as tape:
        tape.backward(losses_of(model, batch_of()))
    handle.remove()
    assert len(calls) == 2
    model.gradient_checkpointing_disable()
    assert worst(tape.sums, literal(model, batch_of())) <= 1e-6


def test_backward_stops_at_the_first_block_wanted(tiny: Any) -> None:
    model, _ = tiny("llama")
    anatomy = describe(model)
    expected = literal(model, batch_of())
    reached = []
    handle = model.model.layers[0].register_full_backward_hook(lambda *_: reached.append(1))
    try:
        with accumulate_gradients(model, anatomy, anatomy.projections(2)) as tape:
            tape.backward(losses_of(model, batch_of()))
    finally:
        handle.remove()
    assert not reached
    assert {name.split(".")[2] for name in tape.sums} == {"2"}
    assert worst(tape.sums, {name: expected[name] for name in tape.sums}) <= 1e-6


def test_faults_name_parameter_and_row(tiny: Any) -> None:
    model, _ = tiny("llama")
    batch = batch_of()
    with accumulate_gradients(model, describe(model)) as tape:
        factors = torch.tensor([1.0, float("nan"), 1.0])
        faults = tape.backward(losses_of(model, batch) * factors)
    assert {row for _, row in faults} == {1}
    assert {name for name, _ in faults} == set(tape.sums)


def test_misuse_is_told(tiny: Any) -> None:
    model, _ = tiny("llama", fresh=True)
    anatomy = describe(model)
    with pytest.raises(HookError, match="no projections"), accumulate_gradients(model, anatomy, []):
        pass
    with (
        pytest.raises(HookError, match="reduction is 'mean'"),
        accumulate_gradients(model, anatomy, reduction="mean"),
    ):
        pass
    outside = losses_of(model, batch_of())
    with accumulate_gradients(model, anatomy) as tape, pytest.raises(HookError, match="no gradient reached"):
        tape.backward(outside)
    with accumulate_gradients(model, anatomy) as tape:
        twice = losses_of(model, batch_of())
        with pytest.raises(HookError, match="used more than once"):
            tape.backward(twice + losses_of(model, batch_of()))
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(HookError, match="are one tensor"), accumulate_gradients(model, anatomy):
        pass
