"""Heads scored on token ids as they are, for any metric, with labels of each example."""

from __future__ import annotations

import pytest
import torch

from tamperlens import heads
from tamperlens.base.errors import InputError


def logit_of(logits, labels):
    return logits.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("method", ["gradient", "ablate"])
def test_raw_ids_with_labels_score_as_each_row_alone(chat, method):
    model = chat("llama")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (5, 9), generator=generator)
    labels = torch.tensor([7, 90, 13, 50, 200])
    alone = [
        heads.attribute(model, ids[i : i + 1], metric=lambda x, at=labels[i]: x[:, at], method=method)
        for i in range(5)
    ]
    rows = torch.stack([torch.as_tensor(one.per_prompt)[0] for one in alone])
    ways = {
        "in batches": (ids, {"metric": logit_of, "labels": labels, "batch_size": 2}),
        "a closure": (ids, {"metric": lambda logits: logit_of(logits, labels)}),
        "lists": (ids.tolist(), {"metric": logit_of, "labels": labels.tolist()}),
        "an array": (ids.numpy(), {"metric": logit_of, "labels": labels.numpy()}),
    }
    kinds = {name: heads.attribute(model, at, method=method, **how) for name, (at, how) in ways.items()}
    for found in kinds.values():
        torch.testing.assert_close(torch.as_tensor(found.per_prompt), rows, atol=2e-4, rtol=1e-3)
    with torch.no_grad():
        logits = model.module(input_ids=ids).logits[:, -1]
    torch.testing.assert_close(kinds["lists"].metric.float(), logit_of(logits, labels), atol=1e-3, rtol=1e-4)


def test_rows_of_different_lengths_keep_their_labels(chat):
    model = chat("llama")
    rows = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    labels = torch.tensor([30, 40, 50])
    found = heads.attribute(model, rows, metric=logit_of, labels=labels, method="ablate", batch_size=2)
    for i, row in enumerate(rows):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([row])).logits[0, -1]
        assert float(found.metric[i]) == pytest.approx(float(logits[labels[i]]), abs=1e-3)


def test_pairs_of_raw_ids(chat):
    model = chat("llama")
    clean, corrupt = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[5, 6, 70], [8, 9, 100]])
    labels = torch.tensor([20, 30])
    found = heads.attribute(model, clean, corrupt=corrupt, metric=logit_of, labels=labels, method="patch")
    with torch.no_grad():
        logits = model.module(input_ids=corrupt).logits[:, -1]
    torch.testing.assert_close(found.metric.float(), logit_of(logits, labels), atol=1e-3, rtol=1e-4)


def test_what_does_not_fit_is_one_clear_error(chat):
    model = chat("llama")
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(InputError, match="hold token ids outside 0 to"):
        heads.attribute(model, ids + 10_000, metric=logit_of, labels=[1])
    with pytest.raises(InputError, match="has 2 entries for 1 prompts"):
        heads.attribute(model, ids, metric=logit_of, labels=[1, 2])
    with pytest.raises(InputError, match="labels= are for a metric"):
        heads.attribute(model, ids, target="refusal_tokens", refusal_tokens=[5], labels=[1])
    with pytest.raises(InputError, match="one number per example"):
        heads.attribute(model, ids, metric=lambda x: x.mean())
