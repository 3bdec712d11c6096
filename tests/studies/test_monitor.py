"""The monitor in an ordinary Trainer script: same training with it and without, rows, rules, going back."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

import tamperlens
from tamperlens import prompts, refusal, trajectory
from tamperlens.base.errors import InputError
from tamperlens.prompts import encode_pairs
from tamperlens.studies.monitor.rules import Rule
from tamperlens.studies.trajectory.records import Record
from tamperlens_hooks import preserve_state

STEPS = 3


class Draws(TrainerCallback):
    """Every generator's next number after each step: what dropout and shuffling would meet."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.seen.append((random.random(), np.random.rand(), torch.rand(1).item(), model.training))
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def rows_of(organism, n=8):
    data = prompts.packaged("harmful-compliance").head(n)
    encoded = encode_pairs(organism.tokenizer, data, fmt=organism.chat_format)
    rows = []
    for one in encoded:
        labels = [-100] * one.start + list(one.input_ids[one.start :])
        rows.append({"input_ids": list(one.input_ids), "labels": labels})
    return rows


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    pad = [width - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([r["input_ids"] + [0] * p for r, p in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor(
            [[1] * len(r["input_ids"]) + [0] * p for r, p in zip(rows, pad, strict=True)]
        ),
        "labels": torch.tensor([r["labels"] + [-100] * p for r, p in zip(rows, pad, strict=True)]),
    }


def train(
    organism,
    tmp_path,
    monitor=None,
    *,
    full=False,
    rate=2e-3,
    steps=STEPS,
    bar=False,
    save=False,
    resume=None,
    config=None,
    also=(),
):
    """A script as anyone writes it; dropout makes the result depend on the random state."""
    torch.manual_seed(0)
    module = tamperlens.load("organism").module
    if not full:
        targets = ["q_proj", "v_proj", "up_proj"]
        module = get_peft_model(module, config or LoraConfig(r=4, lora_dropout=0.2, target_modules=targets))
    for name in also:
        module.get_parameter(name).requires_grad_(True)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=steps, per_device_train_batch_size=2, learning_rate=rate,
        report_to="none",
        save_strategy="steps" if save else "no", save_steps=2, logging_steps=1,
        use_cpu=True, seed=0, disable_tqdm=not bar,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    draws = Draws()
    trainer = Trainer(
        model=module, args=arguments, train_dataset=rows_of(organism), data_collator=collate,
        processing_class=organism.tokenizer, callbacks=[draws],
    )  # fmt: skip
    if monitor is not None:
        trainer.add_callback(monitor)
    trainer.train(resume_from_checkpoint=resume)
    return module, draws.seen, trainer


QV = {"target_modules": ["q_proj", "v_proj"]}
TRAINED = {
    "modules_to_save": (LoraConfig(r=4, modules_to_save=["down_proj"], **QV), ()),
    "a rewritten base": (LoraConfig(r=4, init_lora_weights="pissa", **QV), ()),
    "a multiplicative adapter": (
        IA3Config(feedforward_modules=["down_proj"], target_modules=["v_proj", "down_proj"]),
        (),
    ),
    "base weights beside it": (
        LoraConfig(r=4, **QV),
        ("base_model.model.model.layers.1.mlp.up_proj.weight",),
    ),
}


@pytest.mark.parametrize("what", TRAINED)
def test_drift_is_that_of_the_merged_model_whatever_is_trained(organism, direction, tmp_path, what):
    config, also = TRAINED[what]
    monitor = tamperlens.Monitor(
        tmp_path / "m", measures=("drift",), direction=direction, limit=8, draws=10, budget=None
    )
    module, _, _ = train(organism, tmp_path, monitor, config=config, also=also, rate=2e-2)
    merged = copy.deepcopy(module).merge_and_unload()
    true = []
    for part in organism.anatomy.projections():
        old, new = organism.module.get_parameter(part.parameter), merged.get_parameter(part.parameter)
        true.append(float((new - old).norm() / old.norm()))
    found = monitor.to_frame().query("measure == 'drift: all weights'").set_index("step")["value"]
    assert found[0] < 1e-6 and max(true) > 0.02
    assert found[STEPS] == pytest.approx(sum(true) / len(true), rel=1e-4)


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_training_is_bit_identical_with_the_monitor(organism, direction, tmp_path, full):
    plain, drawn, before = train(organism, tmp_path, full=full)
    measures = ("drift", "direction", "log-odds", "heads", "rates")
    monitor = tamperlens.Monitor(
        tmp_path / "m", every=2, sampled=[2], measures=measures, direction=direction, limit=8, draws=20,
        stop="refusal log-odds below -1000 once", budget=None,
    )  # fmt: skip
    watched, again, after = train(organism, tmp_path, monitor, full=full)
    for (name, one), (_, two) in zip(plain.named_parameters(), watched.named_parameters(), strict=True):
        assert torch.equal(one, two), name
        assert one.requires_grad == two.requires_grad
    assert drawn == again  # random numbers and the training flag after every step
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (before, after)]
    assert losses[0] == losses[1]
    found = monitor.to_frame()
    assert sorted(set(found["step"])) == [0, 2, 3]
    assert set(found[found["measure"] == "refusal rate"]["step"]) == {0, 2, 3}
    on_disk = pd.read_csv(tmp_path / "m" / "rows.csv")
    assert on_disk["value"].to_numpy() == pytest.approx(found["value"].to_numpy(), nan_ok=True)
    drift = found[found["measure"] == "drift: all weights"].set_index("step")["value"]
    assert drift[0] == 0 and drift[3] > drift[2] > 0
    whole = trajectory.read(tmp_path / "m")  # the same records as a trajectory, in the same layout
    same = whole.table[whole.table["measure"] != "training loss"].reset_index(drop=True)
    columns = ["step", "measure", "set", "value", "low", "high", "n", "null_low", "unchanged_low", "changed"]
    pd.testing.assert_frame_equal(same[columns], found[columns], check_dtype=False)
    assert whole.of("training loss")["value"].tolist() == losses[0]
    assert whole.fingerprint == organism.fingerprint
    order = trajectory.order(tmp_path / "m")
    assert order.steps.equals(trajectory.order(whole).steps) and "direction cosine" in set(
        order.steps["measure"]
    )
    (tmp_path / "m" / "seed-0.safetensors").unlink()  # as a run that goes on leaves it
    assert trajectory.order(tmp_path / "m").steps.equals(order.steps)
    bill = json.loads((tmp_path / "m" / "monitor.json").read_text())["cost"]
    assert 0 < bill["share"] < 1 and bill["seconds"] < bill["of_seconds"]


def test_numbers_are_those_of_the_public_functions(organism, direction, tmp_path):
    monitor = tamperlens.Monitor(
        tmp_path / "m", direction=direction, limit=8, draws=20, every=100, budget=None
    )
    module, _, _ = train(organism, tmp_path, monitor)
    module.eval()
    model = organism.with_module(module)
    asked = monitor._observer.setup.asked
    rows = monitor.to_frame().query("step == 3").set_index("measure")["value"]
    tokens = monitor._observer.setup.tokens
    odds = refusal.refusal_metric(model.logits_last(list(asked.harmful.prompts)), tokens)
    assert rows["refusal log-odds"] == pytest.approx(float(odds.mean()), abs=1e-4)
    sides = [
        [refusal.activations_at(m, data.prompts, 2, -1).mean(0) for data in (asked.harmful, asked.harmless)]
        for m in (organism, model)
    ]
    one, two = (bad - good for bad, good in sides)
    assert rows["direction cosine"] == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    kl = refusal.token_kl(organism, model, list(asked.harmful.prompts), n_tokens=4)
    assert rows["token KL"] == pytest.approx(float(kl.kl.nanmean(1).mean()), abs=1e-5)


def test_a_stop_rule_goes_back_to_the_last_good_weights(organism, direction, tmp_path):
    monitor = tamperlens.Monitor(
        tmp_path / "m", every=1, measures=("log-odds",), direction=direction, limit=8, draws=20, budget=None,
        stop="refusal log-odds below the null band twice",
    )  # fmt: skip
    with pytest.warns(UserWarning, match="refusal log-odds below the null band, 2 in a row"):
        module, _, trainer = train(organism, tmp_path, monitor, rate=2e-2, steps=12)
    assert monitor.stopped_at is not None and trainer.state.global_step == monitor.stopped_at < 12
    assert monitor.good_step == monitor.stopped_at - 2
    module.eval()
    asked = monitor._observer.setup.asked
    logits = organism.with_module(module).logits_last(list(asked.harmful.prompts))
    odds = float(refusal.refusal_metric(logits, monitor._observer.setup.tokens).mean())
    frame = monitor.to_frame()
    good = frame.query("step == @monitor.good_step and measure == 'refusal log-odds'").iloc[0]
    assert odds == pytest.approx(good["value"], abs=1e-4) and odds >= good["null_low"]
    assert (tmp_path / "m" / "last-good.safetensors").is_file()


def test_a_resumed_lora_run_continues_its_rows_from_the_same_base(organism, direction, tmp_path):
    """The base is the model without its adapter, not the half-trained one that the Trainer loads."""
    settings = {
        "every": 1,
        "budget": None,
        "measures": ("direction", "log-odds"),
        "direction": direction,
        "limit": 8,
        "draws": 20,
    }
    whole = tamperlens.Monitor(tmp_path / "m", **settings)
    train(organism, tmp_path, whole, save=True, steps=4)
    expected = whole.to_frame()
    with (tmp_path / "m" / "rows.csv").open("a") as handle:
        handle.write("4,refusal log-")  # what a kill leaves
    again = tamperlens.Monitor(tmp_path / "m", **settings)
    train(organism, tmp_path, again, save=True, steps=4, resume=str(tmp_path / "out" / "checkpoint-2"))
    columns = ["step", "measure", "value", "null_low"]
    pd.testing.assert_frame_equal(again.to_frame()[columns], expected[columns], check_dtype=False, rtol=1e-5)
    on_disk = pd.read_csv(tmp_path / "m" / "rows.csv")
    assert len(on_disk) == len(expected) and set(on_disk["step"]) == {0, 1, 2, 3, 4}
    recorded = trajectory.read(tmp_path / "m").of("refusal log-odds")
    assert recorded["step"].tolist() == [0, 1, 2, 3, 4]


def test_a_resumed_full_run_needs_its_base(organism, direction, tmp_path):
    settings = {"measures": ("log-odds",), "direction": direction, "limit": 8, "draws": 20, "budget": None}
    train(organism, tmp_path, save=True, steps=2, full=True)
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    with pytest.raises(InputError, match="reference="):
        train(
            organism, tmp_path, tamperlens.Monitor(tmp_path / "m", **settings), full=True, resume=checkpoint
        )
    monitor = tamperlens.Monitor(tmp_path / "m", reference=organism, **settings)
    train(organism, tmp_path, monitor, full=True, resume=checkpoint)
    assert set(monitor.to_frame()["step"]) == {3}


def test_the_bar_and_the_log_carry_the_newest_numbers(organism, direction, tmp_path, capsys):
    monitor = tamperlens.Monitor(
        tmp_path / "m",
        measures=("log-odds", "direction"),
        direction=direction,
        limit=8,
        draws=20,
        budget=None,
    )
    _, _, trainer = train(organism, tmp_path, monitor, bar=True, steps=4)
    assert "odds" in capsys.readouterr().err
    name = "refusal log-odds"
    logged = {
        row["step"]: row[f"tamperlens/{name}"]
        for row in trainer.state.log_history
        if f"tamperlens/{name}" in row and "loss" in row
    }
    rows = monitor.to_frame().query("measure == @name").set_index("step")["value"]
    assert logged == {step: rows[step] for step in (1, 2, 4)}  # step 3 was not looked at


def test_a_budget_leaves_looks_out_but_not_the_first_and_the_last(organism, direction, tmp_path):
    settings = {"every": 1, "measures": ("log-odds",), "direction": direction, "limit": 8, "draws": 20}
    poor = tamperlens.Monitor(tmp_path / "poor", budget=1e-9, **settings)
    plain, _, _ = train(organism, tmp_path, steps=4)
    watched, _, _ = train(organism, tmp_path, poor, steps=4)
    assert sorted(set(poor.to_frame()["step"])) == [0, 1, 4] and poor.left_out == [2, 3]
    assert json.loads((tmp_path / "poor" / "monitor.json").read_text())["left_out"] == [2, 3]
    rich = tamperlens.Monitor(tmp_path / "rich", budget=1e9, **settings)
    train(organism, tmp_path, rich, steps=4)
    columns = ["step", "measure", "value", "low", "high"]
    all_, some = rich.to_frame()[columns], poor.to_frame()[columns]
    assert set(all_["step"]) == {0, 1, 2, 3, 4} and rich.left_out == []
    expected = all_[all_["step"].isin([0, 1, 4])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)  # what is measured is the same
    for (name, one), (_, two) in zip(plain.named_parameters(), watched.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    with pytest.raises(InputError, match="budget=0"):
        tamperlens.Monitor(tmp_path, budget=0)


def test_gradients_put_aside_come_back(organism):
    module = tamperlens.load("organism").module.train()
    weight = next(module.parameters())
    weight.requires_grad_(True)
    weight.grad = torch.ones_like(weight)
    held = weight.grad

    def fails():
        with preserve_state(module, rng=True, grad=True):
            assert not module.training and weight.grad is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert weight.grad is held and module.training and weight.requires_grad


def test_rules_in_words():
    assert Rule.parse("refusal log-odds below the null band twice") == Rule("refusal log-odds")
    assert Rule.parse("token KL above 2.5") == Rule("token KL", "above", 2.5, 1)
    assert Rule.parse("drift: all weights above 0.1 3 times").times == 3
    record = Record(1)
    record.add("a", "harmful", 1.0, None, 4)
    assert Rule("a", "below", 2).beyond(record) and Rule("a", "above", 2).beyond(record) is False
    assert Rule("b", "below", 2).beyond(record) is None
    with pytest.raises(InputError, match="is no rule"):
        Rule.parse("stop it")
    with pytest.raises(InputError, match="no null band"):
        Rule("a").check(record)
    with pytest.raises(InputError, match="no measure 'b'"):
        Rule("b").check(record)


def test_what_it_refuses(tmp_path):
    with pytest.raises(InputError, match="'rd'"):
        tamperlens.Monitor(tmp_path, measures=("rd",))
    with pytest.raises(InputError, match="every='often'"):
        tamperlens.Monitor(tmp_path, every="often")
