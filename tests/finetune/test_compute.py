"""FLOPs by formula against torch's own counter, product by product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tamperlens import finetune
from tamperlens.base.errors import InputError
from tamperlens.finetune import Compute, FullConfig, LoraConfig, flop_model
from tamperlens.finetune.adapters import add_adapter
from tamperlens.finetune.running import _recompute
from tamperlens.finetune.tuned import full_copy
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

Chat = Callable[..., ChatModel]
ROWS, LENGTH, RANK = 3, 24, 4


def counted(module: Any) -> int:
    """FLOPs of one forward and backward pass as torch counts them (eager attention shows its products)."""
    ids = torch.randint(5, 260, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    module.train()
    with FlopCounterMode(display=False) as counter:
        module(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return int(counter.get_total_flops())


def by_formula(model: finetune.FlopModel) -> float:
    return model.flops(ROWS * LENGTH, ROWS * LENGTH**2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3", "gemma2"])
@pytest.mark.parametrize("targets", ["all-linear", "attention", "second down", "full"])
def test_the_formula_is_exact(chat: Chat, family: str, targets: str) -> None:
    base = chat(family, attn_implementation="eager")
    if targets == "full":
        tuned, model = full_copy(base), flop_model(base.anatomy)
        tuned.module.requires_grad_(True)
    else:
        chosen: Any = [base.anatomy.projection("down", 1).module] if targets == "second down" else targets
        tuned, paths = add_adapter(base, LoraConfig(rank=RANK, targets=chosen))
        model = flop_model(base.anatomy, adapted=paths, rank=RANK)
    assert by_formula(model) == counted(tuned.module)


@pytest.mark.parametrize("targets", ["all-linear", "full"])
def test_checkpointing_is_counted_within_a_twentieth(chat: Chat, targets: str) -> None:
    base = chat("llama", attn_implementation="eager")
    if targets == "full":
        tuned, paths = full_copy(base), []
        tuned.module.requires_grad_(True)
    else:
        tuned, paths = add_adapter(base, LoraConfig(rank=RANK))
    _recompute(tuned.module, True)
    model = flop_model(base.anatomy, adapted=paths, rank=RANK, checkpointing=True)
    assert by_formula(model) == pytest.approx(counted(tuned.module), rel=0.05)
    assert by_formula(model) > by_formula(flop_model(base.anatomy, adapted=paths, rank=RANK))


def test_the_usual_rules_of_thumb(chat: Chat) -> None:
    anatomy = chat("llama").anatomy
    n = sum(part.d_in * part.d_out for part in anatomy.projections()) + anatomy.d_vocab * anatomy.d_model
    attention = 12 * anatomy.n_layers * anatomy.n_heads * anatomy.d_head
    assert flop_model(anatomy).flops(1, 1) == 6 * n + attention
    paths = [part.module for part in anatomy.projections()]
    lora = flop_model(anatomy, adapted=paths, rank=RANK)
    adapters = sum(RANK * (part.d_in + part.d_out) for part in anatomy.projections())
    assert lora.adapter == adapters
    first = [part for part in anatomy.projections(0) if part.name in "qkv"]
    spared = sum(2 * (part.d_in * part.d_out + RANK * part.d_in) for part in first)
    assert lora.flops(1, 1) == 4 * n + 6 * adapters + attention - spared


def test_the_bill_of_a_run(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama")
    config = LoraConfig(steps=4, batch_size=2, rank=RANK)
    bill = finetune.run(model, toy, config, progress=False).accounting
    assert (bill.steps, bill.sequences) == (4, 8)
    lengths = [len(ids) for ids in model.tokenizer([model.render(p, r) for p, r in toy.pairs()],
                                                   add_special_tokens=False)["input_ids"]]  # fmt: skip
    assert bill.tokens == sum(lengths)
    assert bill.tokens <= bill.positions <= 8 * max(lengths)
    assert bill.label_tokens == sum(len(response) + 1 for response in toy.responses or ())
    paths = [part.module for part in model.anatomy.projections()]
    costs = flop_model(model.anatomy, adapted=paths, rank=RANK)
    assert (
        costs.flops(bill.positions, 0)
        < bill.flops
        <= costs.flops(bill.positions, bill.positions * max(lengths))
    )
    assert bill.ratio_to_1e25 == bill.flops / 1e25
    assert bill.trained_parameters == flop_model(model.anatomy, adapted=paths, rank=RANK).adapter
    assert bill.wall_seconds > 0
    assert bill.tokens_per_second == bill.tokens / bill.wall_seconds
    assert "adapter weights forward" in bill.formula
    assert bill.device == "cpu"


def test_bills_are_saved(chat: Chat, toy: PromptSet, tmp_path: Any) -> None:
    bill = finetune.run(chat("gpt2"), toy, FullConfig(steps=1), progress=False).accounting
    assert Compute.load(bill.save(tmp_path / "bill.json")) == bill
    assert bill.trained_parameters == chat("gpt2").n_parameters


def test_thresholds_of_the_law() -> None:
    """10²³, 10²⁵, and a third of the original's compute (6 × parameters × tokens) or of what stands in."""
    known = finetune.thresholds(3e19, original_parameters=1e9, original_tokens=1e11)
    assert known.ratio("general purpose") == pytest.approx(3e-4)
    assert known.ratio("systemic risk") == pytest.approx(3e-6)
    assert known.ratio("modifier") == pytest.approx(3e19 / (6 * 1e9 * 1e11 / 3)) == pytest.approx(0.15)
    assert finetune.thresholds(3e19).ratio("modifier") == pytest.approx(9e-4)
    assert "not known" in finetune.thresholds(3e19).rows["source"].iloc[2]
    assert "0.15 of 2e+20 (modifier)" in known.summary()
    for wrong in ({"original_tokens": 1e9}, {"original_parameters": -1.0, "original_tokens": 1.0}):
        with pytest.raises(InputError, match="original"):
            finetune.thresholds(1e20, **wrong)
