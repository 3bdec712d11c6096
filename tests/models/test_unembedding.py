"""Logits at some positions only, made from rows that lie one behind the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tamperlens.models.unembedding import logits_kept


@pytest.mark.parametrize("rows", [1, 3])
def test_the_unembedding_reads_packed_rows_and_the_logits_are_the_same(tiny: Any, rows: int) -> None:
    module, _ = tiny("llama")
    ids = torch.arange(rows * 7).reshape(rows, 7) % 5
    head, seen = module.get_output_embeddings(), []
    watch = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].stride()))
    width = head.weight.shape[1]
    with torch.no_grad():
        whole = module(input_ids=ids).logits
        plain = module(input_ids=ids, logits_to_keep=1).logits
        assert seen[1] == (7 * width, width, 1), (
            "a slice of all hidden states; packed already? then it can go"
        )
        for keep, expected in ((1, whole[:, -1:]), (torch.tensor([2, 4]), whole[:, [2, 4]])):
            with logits_kept(module, keep) as kept:
                found = module(input_ids=ids, **kept).logits
            n = found.shape[1]
            assert torch.allclose(found, expected, atol=1e-6) and seen[-1] == (n * width, width, 1)
        assert torch.allclose(plain, whole[:, -1:], atol=1e-6)
    watch.remove()
    with pytest.raises(ZeroDivisionError), logits_kept(module, 1):
        raise ZeroDivisionError
    assert not head._forward_pre_hooks


def test_a_model_that_cannot_leave_logits_out_makes_all() -> None:
    with logits_kept(torch.nn.Linear(2, 2), 1) as kept:
        assert kept == {}
