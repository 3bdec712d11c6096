"""The monitor in loops of one's own, and its curves in the trackers of a Trainer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_monitor import collate, rows_of
from transformers import Trainer, TrainingArguments

import tamperlens
from tamperlens import trajectory
from tamperlens.base.errors import InputError

SMALL = {"measures": ("log-odds", "direction"), "limit": 8, "draws": 10, "every": 1, "budget": None}


def own_loop(organism, monitor=None, *, steps=3, rate=2e-3, wrap=lambda module: module):
    """A loop as anyone writes it; dropout makes the result depend on the random state."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_dropout=0.2, target_modules=["q_proj", "v_proj", "up_proj"])
    module = get_peft_model(tamperlens.load("organism").module, config).train()
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=rate)
    rows, seen = rows_of(organism), wrap(module)
    if monitor is not None:
        assert monitor.step(seen, 0) is False
    for step in range(1, steps + 1):
        module(**collate(rows[2 * (step % 4) :][:2])).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if monitor is not None and monitor.step(seen, step):
            break
    if monitor is not None:
        monitor.finish()
    return module, step


def test_a_loop_of_ones_own_is_watched_and_left_bit_for_bit(organism, direction, tmp_path):
    plain, _ = own_loop(organism)
    monitor = tamperlens.Monitor(
        tmp_path / "m", direction=direction.save(tmp_path / "d.safetensors"), tokenizer=organism.tokenizer,
        **{**SMALL, "every": 2},
    )  # fmt: skip
    watched, _ = own_loop(organism, monitor, wrap=torch.compile)
    for (name, one), (_, two) in zip(plain.named_parameters(), watched.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert watched.training
    assert sorted(set(monitor.to_frame()["step"])) == [0, 2, 3]
    found = trajectory.read(tmp_path / "m")
    assert found.table["step"].max() == 3 and found.of("direction cosine")["value"].iloc[-1] < 1
    assert monitor.plot().name == "trajectory"
    row = monitor.to_frame().query("step == 3 and measure == 'refusal log-odds'").iloc[0]
    assert monitor.newest["tamperlens/refusal log-odds"] == row["value"]
    assert monitor.newest["tamperlens/refusal log-odds (null low)"] == row["null_low"]


def test_a_stop_rule_ends_the_loop_and_puts_the_good_weights_back(organism, direction, tmp_path):
    monitor = tamperlens.Monitor(
        tmp_path / "m", direction=direction, stop="refusal log-odds below the null band once", **SMALL
    )
    with pytest.warns(UserWarning, match="stopped"):
        module, step = own_loop(
            organism, monitor, steps=12, rate=2e-2, wrap=lambda module: organism.with_module(module)
        )
    assert monitor.stopped_at == step < 12 and monitor.good_step == step - 1
    module.eval()
    asked = monitor._observer.setup
    logits = organism.with_module(module).logits_last(list(asked.asked.harmful.prompts))
    odds = float(tamperlens.directions.refusal_metric(logits, asked.tokens).mean())
    good = monitor.to_frame().query("step == @monitor.good_step and measure == 'refusal log-odds'").iloc[0]
    assert odds == pytest.approx(good["value"], abs=1e-4)


def test_a_loop_that_comes_too_late_or_has_no_tokenizer_is_told(organism, direction, tmp_path):
    monitor = tamperlens.Monitor(tmp_path / "m", direction=direction, **SMALL)
    with pytest.raises(InputError, match=r"monitor\.step\(model, 0\), before training"):
        monitor.step(organism, 5)
    with pytest.raises(InputError, match="not called before training"):
        monitor.finish()
    with pytest.raises(InputError, match="tokenizer="):
        monitor.step(organism.module, 0)


def test_a_direction_that_did_not_pass_is_warned_of_not_watched_in_silence(organism, direction, tmp_path):
    poor = dataclasses.replace(direction, passed=False, flag="halves of the prompts disagree")
    monitor = tamperlens.Monitor(tmp_path / "m", direction=poor, **SMALL)
    with pytest.warns(UserWarning, match="did not pass its tests .halves of the prompts disagree"):
        monitor.step(organism, 0)
    assert any("halves of the prompts disagree" in words for words in monitor.warnings)


@pytest.mark.parametrize("first", [False, True], ids=["the documented form", "the monitor first"])
def test_every_record_reaches_the_trackers(organism, direction, tmp_path, first, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = tamperlens.Monitor(tmp_path / "m", direction=direction, **SMALL)
    watched(organism, monitor, tmp_path, "tensorboard", first)
    events = EventAccumulator(str(next((tmp_path / "tb").rglob("events*")).parent)).Reload()
    curves = {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    check(monitor, {tag: curves[tag] for tag in curves if "tamperlens/" in tag})


@pytest.mark.slow  # starts W&B's own process
def test_every_record_reaches_wandb_offline(organism, direction, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as messages

    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monitor = tamperlens.Monitor(tmp_path / "m", direction=direction, **SMALL)
    watched(organism, monitor, tmp_path, "wandb", False)
    wandb.finish()
    curves: dict[str, dict[int, float]] = {}
    for data in records_of(next(Path(tmp_path).rglob("*.wandb")).read_bytes()):
        record = messages.Record()
        record.ParseFromString(data)
        row = {(one.key or one.nested_key[0]): one.value_json for one in record.history.item}
        step = row.get("train/global_step")
        for name, value in row.items():
            if "tamperlens/" in name:
                curves.setdefault(name.removeprefix("train/"), {})[int(step)] = float(value)
    check(monitor, curves)


def records_of(data):
    """The records of W&B's file: LevelDB's log format behind a header of seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def watched(organism, monitor, tmp_path, tracker, first):
    """A Trainer's script with a tracker; it logs every second step only."""
    torch.manual_seed(0)
    module = get_peft_model(tamperlens.load("organism").module, LoraConfig(r=4, target_modules=["q_proj"]))
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=2, logging_steps=2,
        report_to=tracker, save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model=module, args=arguments, train_dataset=rows_of(organism), data_collator=collate,
        processing_class=organism.tokenizer,
    )  # fmt: skip
    if first:
        trainer.callback_handler.callbacks.insert(0, monitor)
    else:
        trainer.add_callback(monitor)
    trainer.train()


def check(monitor, curves):
    frame = monitor.to_frame()
    assert sorted(set(frame["step"])) == [0, 1, 2, 3]
    for name, rows in frame.groupby("measure"):
        got = next(found for tag, found in curves.items() if tag.endswith(f"tamperlens/{name}"))
        assert got == pytest.approx(dict(zip(rows["step"], rows["value"], strict=True)), rel=1e-5), name
        low = rows["null_low"].iloc[0]
        bands = [found for tag, found in curves.items() if tag.endswith(f"tamperlens/{name} (null low)")]
        assert math.isnan(low) != bool(bands)
        assert all(found[3] == pytest.approx(low, rel=1e-5) for found in bands)
