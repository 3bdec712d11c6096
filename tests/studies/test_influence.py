"""Rows that wear refusal away: the estimate by its definition, and the trial that leaves them out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tamperlens
from tamperlens import finetune, prompts, screening
from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

CONFIG = finetune.LoraConfig(steps=4, batch_size=4, learning_rate=2e-3, schedule="linear")


@pytest.fixture(scope="module")
def model() -> Any:
    return tamperlens.load("organism:tiny")


@pytest.fixture(scope="module")
def anchors(model: Any) -> screening.Anchors:
    return screening.anchors_for(model, n=8, n_reference=4)


@pytest.fixture(scope="module")
def rows() -> PromptSet:
    """Eight ordinary rows and four harmful ones."""
    bad = prompts.packaged("harmful", split="train").head(4)
    return PromptSet.concat(
        [
            PromptSet.from_pairs(prompts.packaged("benign").head(8).pairs()),
            PromptSet.from_pairs([(one.prompt, "Sure, here is how: first pack a bag.") for one in bad]),
        ]
    )


def test_one_checkpoint_is_the_push_at_the_base(
    model: Any, anchors: screening.Anchors, rows: PromptSet
) -> None:
    found = tamperlens.influence(model, rows, CONFIG, anchors=anchors)
    push = screening.RowScorer(model, anchors, ["push"])(rows)["push"]
    np.testing.assert_allclose(found.table["influence"], 2e-3 * push, rtol=1e-2, atol=1e-7)
    assert set(found.top(4)) == {8, 9, 10, 11}
    assert found.steps == (0,)
    with torch.no_grad():
        other = copy.deepcopy(model.module)
        next(other.parameters()).mul_(1.5)
    changed = ChatModel.from_parts(other, model.tokenizer, name=model.name, check_anatomy=False)
    with pytest.raises(InputError, match="give the same model"):
        found.verify(changed, 2)  # the name alone is the same


def test_later_steps_are_weighed_by_their_rates(
    model: Any, anchors: screening.Anchors, rows: PromptSet
) -> None:
    found = tamperlens.influence(model, rows, CONFIG, anchors=anchors, checkpoints=2)
    assert found.steps == (0, 2)
    rates = finetune.run(model, rows, CONFIG, progress=False).log.set_index("step")["learning_rate"]
    expected = rates[1] * found.table["step 0"] + rates[3] * found.table["step 2"]
    np.testing.assert_allclose(found.table["influence"], expected, rtol=1e-6)
    assert not np.allclose(found.table["step 0"], found.table["step 2"], rtol=0.05)


@pytest.mark.slow
def test_leaving_rows_out(model: Any, anchors: screening.Anchors, rows: PromptSet) -> None:
    found = tamperlens.influence(model, rows, CONFIG, anchors=anchors)
    tried = found.verify(model, 4, seeds=(0, 1), limit=8)
    assert tried.named == tuple(found.top(4))
    assert len(tried.table) == 6
    assert (tried.table["n"] == 8).all()
    by = tried.table.groupby("trained on")["refused"].mean()
    assert tried.difference.value == pytest.approx(by["without the named"] - by["without random rows"])
    with pytest.raises(InputError, match="half of the 12 rows"):
        found.verify(model, 7)


def test_what_is_refused(model: Any, anchors: screening.Anchors) -> None:
    with pytest.raises(InputError, match="give config="):
        tamperlens.influence(model, [("a", "b")], anchors=anchors)
    with pytest.raises(InputError, match="no responses"):
        tamperlens.influence(model, ["a", "b"], CONFIG, anchors=anchors)
