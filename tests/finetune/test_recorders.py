"""Recorders see every step that they ask for, and change nothing by looking."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tamperlens import finetune
from tamperlens.base.errors import InputError
from tamperlens.finetune import LoraConfig
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

Chat = Callable[..., ChatModel]
CONFIG = LoraConfig(steps=5, learning_rate=1e-2, batch_size=2)


class Norms:
    """Records the size of the update."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.base: Any = None
        self.training: list[bool] = []

    def start(self, model: Any) -> None:
        self.base = model

    def record(self, step: int, model: Any) -> Sequence[dict[str, Any]]:
        self.training.append(any(part.training for part in model.module.modules()))
        return [{"norm": float(sum(one.delta().norm() for one in finetune.factors_of(model.module)))}]

    def finish(self) -> Any:
        return "done"


class Meddler(Norms):
    """Does everything with the model that leaves its weights alone."""

    def record(self, step: int, model: Any) -> Sequence[dict[str, Any]]:
        torch.manual_seed(step)
        random.seed(step)
        np.random.seed(step)
        model.module.train()
        for parameter in model.module.parameters():
            parameter.requires_grad_(True)
        batch = model.encode(["Hello"])
        model.module(**batch).logits.sum().backward()
        model.generate(["Hello"], max_new_tokens=2, temperature=1.0, seed=step)
        return []


def test_steps_and_rows(chat: Chat, toy: PromptSet) -> None:
    every, second = Norms(), Norms(every=2)
    model = chat("llama")
    tuned = finetune.run(model, toy, CONFIG, recorders=[every, second], progress=False)
    rows = tuned.rows
    assert rows[rows["recorder"] == "Norms"]["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows[rows["recorder"] == "Norms-2"]["step"].tolist() == [0, 2, 4, 5]  # and the end
    first = rows[rows["recorder"] == "Norms"]["norm"].tolist()
    assert first[0] == 0
    assert all(norm > 0 for norm in first[1:])
    assert tuned.recordings == ("done", "done")
    assert every.base is model
    assert not any(every.training)
    assert tuned.accounting.recorder_seconds > 0


def test_watching_changes_nothing(chat: Chat, toy: PromptSet) -> None:
    config = LoraConfig(steps=4, learning_rate=1e-2, batch_size=2, dropout=0.3)  # dropout draws at every step

    def deltas(recorders: list[Any]) -> torch.Tensor:
        tuned = finetune.run(chat("llama"), toy, config, recorders=recorders, progress=False)
        assert not any(p.requires_grad for n, p in tuned.model.module.named_parameters() if "lora_" not in n)
        return torch.cat([one.delta().flatten() for one in tuned.factors()])

    assert torch.equal(deltas([]), deltas([Meddler()]))


def test_what_is_no_recorder_is_refused(chat: Chat, toy: PromptSet) -> None:
    def unchecked(recorder: Any) -> None:
        finetune.run(chat("llama"), toy, CONFIG, recorders=[recorder], progress=False)

    with pytest.raises(InputError, match="every"):
        unchecked(Norms(every=0))
    from tamperlens.finetune.callbacks import check_recorders

    with pytest.raises(InputError, match="needs start, record and finish"):
        check_recorders([object()])


def test_rows_must_be_rows() -> None:
    from tamperlens.finetune.callbacks import _with_step

    assert _with_step({"norm": 1.0}, 4, "mine") == {"step": 4, "norm": 1.0}
    assert _with_step({"step": 3}, 4, "mine") == {"step": 3}
    wrong: Any = 3
    with pytest.raises(InputError, match="recorder mine returned a int where a row"):
        _with_step(wrong, 4, "mine")
