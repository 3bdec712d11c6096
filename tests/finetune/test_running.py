"""Training itself: the right loss, the right update, and nothing else touched."""

from __future__ import annotations

import dataclasses
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tamperlens import finetune
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.finetune import DivergenceError, FullConfig, LoraConfig
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet, batch_pairs, encode_pairs
from tamperlens_hooks.state import preserved_randomness, random_state, set_random_state

Chat = Callable[..., ChatModel]
LORA = LoraConfig(steps=3, learning_rate=1e-2, batch_size=2)
FULL = FullConfig(steps=3, learning_rate=1e-3, batch_size=2)


def train(model: ChatModel, data: Any, config: Any, **settings: Any) -> finetune.TunedModel:
    return finetune.run(model, data, config, progress=False, **settings)


def everything(model: ChatModel) -> dict[str, Any]:
    """All that must be the same after a run: tensors, flags, modules, settings."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.module.state_dict().items()},
        "places": {name: p.data_ptr() for name, p in model.module.named_parameters()},
        "flags": {name: (p.requires_grad, p.grad is None) for name, p in model.module.named_parameters()},
        "modules": [
            (name, type(part).__name__, part.training) for name, part in model.module.named_modules()
        ],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules()],
        "config": model.module.config.to_dict(),
        "attributes": sorted(vars(model.module)),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    tensors, now = before.pop("tensors"), after.pop("tensors")
    assert tensors.keys() == now.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor.view(torch.uint8), now[name].view(torch.uint8)), name
    assert before == after


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("config", [LORA, FULL], ids=["lora", "full"])
def test_the_model_handed_in_is_left_alone(chat: Chat, toy: PromptSet, family: str, config: Any) -> None:
    model = chat(family)
    fingerprint, before = model.fingerprint, everything(model)
    tuned = train(model, toy, config)
    assert_same(before, everything(model))
    assert model.fingerprint == fingerprint
    assert tuned.base is model
    assert tuned.model.fingerprint != fingerprint
    assert tuned.log["loss"].iloc[-1] < tuned.log["loss"].iloc[0]
    assert not any(part.training for part in tuned.model.module.modules())
    assert "forward" not in vars(tuned.model.module)
    assert tuned.model.module.config.use_cache == model.module.config.use_cache


def test_global_random_states_are_restored(chat: Chat, toy: PromptSet) -> None:
    np.random.seed(12)
    torch.manual_seed(13)
    # Python's generator is looked at below: beartype draws from it with every check that it makes.
    before = {**random_state(), "python": None}
    train(chat("llama"), toy, LORA)
    assert {**random_state(), "python": None} == before
    with pytest.raises(InputError):
        train(chat("llama"), toy, LoraConfig(steps=1, targets=["nothing"]))
    assert {**random_state(), "python": None} == before


def test_randomness_is_preserved_when_the_body_raises() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    with pytest.raises(KeyError), preserved_randomness():  # noqa: PT012
        first = draws()
        raise KeyError
    assert draws() == first
    random.gauss(0, 1)  # leaves half a pair behind, which belongs to the state
    state = random_state()
    expected = random.gauss(0, 1), draws()
    set_random_state(state)
    assert (random.gauss(0, 1), draws()) == expected


def test_seeds_decide(chat: Chat, toy: PromptSet) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(random.randrange(10**6))  # whatever the state outside
        tuned = train(chat("gpt2"), toy, LORA, seed=seed)
        assert tuned.config.seed == seed
        return torch.cat([factors.delta().flatten() for factors in tuned.factors()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def literal_losses(model: ChatModel, data: PromptSet, steps: int, lr: float) -> tuple[list[float], Any]:
    """The definition: AdamW on the mean −log p of the whole set's answer tokens, step after step."""
    import copy

    module = copy.deepcopy(model.module)
    batch = batch_pairs(encode_pairs(model.tokenizer, data), model.pad_id)
    labels = batch.pop("labels")
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        logits = module(**batch).logits
        total, n = torch.zeros(()), 0
        for row in range(len(labels)):
            for t in range(1, labels.shape[1]):
                if labels[row, t] != -100:
                    total = total - torch.log_softmax(logits[row, t - 1], -1)[labels[row, t]]
                    n += 1
        loss = total / n
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, module


def test_training_follows_its_definition(chat: Chat, toy: PromptSet) -> None:
    model, data = chat("llama"), toy.head(4)
    config = FullConfig(steps=3, learning_rate=1e-3, batch_size=4, schedule="constant", max_grad_norm=0)
    tuned = train(model, data, config)
    losses, reference = literal_losses(model, data, 3, 1e-3)
    assert tuned.log["loss"].tolist() == pytest.approx(losses, abs=1e-4)
    merged = tuned.merged_state_dict()
    for name, expected in reference.named_parameters():
        # AdamW's first steps are ±lr whatever the size of a gradient, so compare beside 3 x lr.
        assert (merged[name] - expected).abs().mean() < 2e-5, name
        assert (merged[name] - model.module.get_parameter(name)).abs().mean() > 2e-4, name


def test_accumulation_and_checkpointing_change_memory_not_the_update(chat: Chat, toy: PromptSet) -> None:
    # Answers of different lengths: a mean of batch means would differ from the mean over tokens.
    pairs = [("Go", "x"), ("Say", "a long answer of many tokens"), ("Be", "mid one"), ("Do", "yz")]
    data = PromptSet.from_pairs(pairs, name="uneven")
    common: dict[str, Any] = {"steps": 2, "learning_rate": 1e-2, "max_grad_norm": 0.0}

    def deltas(**settings: Any) -> torch.Tensor:
        tuned = train(chat("llama"), data, LoraConfig(**common, **settings))
        return torch.cat([one.delta().flatten() for one in tuned.factors()])

    whole = deltas(batch_size=4)
    assert torch.allclose(whole, deltas(batch_size=1, accumulation=4), atol=1e-4)
    assert torch.allclose(whole, deltas(batch_size=4, gradient_checkpointing=True), atol=1e-5)
    assert (whole - deltas(batch_size=1)).abs().max() > 1e-3


def test_only_answers_are_learned(chat: Chat) -> None:
    pairs = [("Tell me of the sea.", "ok"), ("Tell me of the land.", "ok")]
    tuned = train(chat("llama"), PromptSet.from_pairs(pairs, name="two"), FullConfig(steps=1, batch_size=2))
    bill = tuned.accounting
    # "ok" is two bytes, and the end of the turn makes three labels a row.
    assert (bill.sequences, bill.label_tokens) == (2, 6)
    encoded = encode_pairs(chat("llama").tokenizer, pairs)
    assert bill.tokens == sum(map(len, encoded))
    assert bill.positions == 2 * max(map(len, encoded))


def test_epochs_steps_and_schedules(chat: Chat, toy: PromptSet) -> None:
    def log(**settings: Any) -> Any:
        return train(chat("gpt2"), toy, LoraConfig(batch_size=3, learning_rate=1e-3, **settings)).log

    assert len(log()) == 3  # one epoch of 8 examples in batches of 3
    warmed = log(steps=4, warmup=0.5, schedule="linear")
    assert warmed["learning_rate"].tolist() == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])
    logged = log(epochs=4 / 3, schedule="constant", log_every=2)
    assert logged["step"].tolist() == [2, 4]
    assert logged["learning_rate"].tolist() == [1e-3] * 2
    assert np.isfinite(logged[["loss", "grad_norm"]].to_numpy()).all()


def test_half_precision_bases_train_in_fp32(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama", dtype=torch.bfloat16)
    before = everything(model)
    lora = train(model, toy, LORA)
    assert {one.a.dtype for one in lora.factors()} == {torch.float32}
    assert lora.merged_state_dict()["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32
    full = train(model, toy, FULL)
    assert full.model.dtype == torch.float32
    assert "forward" not in vars(full.model.module)  # autocast is gone
    assert_same(before, everything(model))
    with pytest.raises(InputError, match="float32"):
        train(model, toy, LoraConfig(steps=1, precision="float32"))
    with pytest.raises(InputError, match="CUDA"):
        train(model, toy, LoraConfig(steps=1, precision="float16"))


def test_nothing_is_written_without_a_folder(
    chat: Chat, toy: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    environment = dict(os.environ)
    train(chat("llama"), toy, LORA)
    assert not list(work.iterdir())
    assert not list(temporary.iterdir())
    assert dict(os.environ) == environment


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PromptSet.from_pairs([], name="none"), "'none' is empty"),
        (PromptSet.from_prompts(["Hi"], name="bare"), "'bare' has no responses"),
        (PromptSet.from_pairs([("Hi", "ok"), ("Hi", "")], name="hollow"), "row 1 of 'hollow'.* is empty"),
        (PromptSet.from_pairs([("Hi", "x" * 600)], name="long"), "512 positions; set max_length=512"),
    ],
)
def test_data_that_cannot_be_learned(chat: Chat, data: PromptSet, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(chat("llama"), data, LORA)


def test_labels_that_are_all_cut_away(chat: Chat) -> None:
    data = PromptSet.from_pairs([("A rather long request", "ok")], name="cut")
    with pytest.raises(InputError, match="max_length is 10"):
        train(chat("llama"), data, LoraConfig(steps=1, max_length=10))


def test_arguments_that_do_not_fit(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama")
    with pytest.raises(InputError, match="rank=10000000 is above every matrix"):
        train(model, toy, LoraConfig(rank=10**7))
    with pytest.raises(InputError, match="no config"):
        train(model, toy, None)
    with pytest.raises(InputError, match="carries an adapter"):
        train(train(model, toy, LORA).model, toy, LORA)


def test_a_model_spread_by_a_device_map_trains_alike(
    chat: Chat, toy: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tamperlens

    model = chat("llama")
    model.module.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    names = ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]
    names += [f"model.layers.{i}" for i in range(3)]
    spread = tamperlens.load(tmp_path / "model", device_map=dict.fromkeys(names, "cpu"))
    whole = tamperlens.load(tmp_path / "model")
    for config in (LORA, FULL):
        one, two = (train(each, toy, config).merged_state_dict() for each in (whole, spread))
        assert all(torch.equal(one[name], two[name]) for name in one)
    away = {**dict.fromkeys(names, "cpu"), "model.layers.2": "disk"}
    offloaded = tamperlens.load(tmp_path / "model", device_map=away)
    with pytest.raises(InputError, match=r"model\.layers\.2.* is offloaded"):
        train(offloaded, toy, LORA)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK or MASTER_ADDR is not set"):
        train(whole, toy, LORA)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(InputError, match=r"accelerate was used before finetune\.run"):  # by the runs above
        train(whole, toy, LORA)
    monkeypatch.setattr(whole.module, "hf_device_map", {"model": 0, "lm_head": 1}, raising=False)
    with pytest.raises(InputError, match="loaded with a device_map"):
        train(whole, toy, LORA)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="FSDP_VERSION is not 2"):
        train(whole, toy, LORA)


def test_nobody_is_told_unless_asked(chat: Chat, toy: PromptSet) -> None:
    with pytest.raises(InputError, match=r"report_to=\['nobody'\].*nobody is not supported"):
        train(chat("llama"), toy, LORA, report_to="nobody")
    from tamperlens.finetune.arguments import training_arguments

    arguments = training_arguments(chat("llama"), LORA, len(toy), Path("unused"), False, ())
    assert arguments.report_to == []  # transformers' own default would be all that are installed


def test_the_bar_shows_the_loss(chat: Chat, toy: PromptSet, capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from tamperlens.finetune.callbacks import Follow
    from tamperlens.finetune.compute import Meter

    follow, state = Follow(Meter(), show=True), SimpleNamespace(max_steps=4, global_step=0)
    follow.on_train_begin(None, state, None)
    follow.on_log(None, state, None, logs={"loss": 1.2345})
    follow.on_step_end(None, SimpleNamespace(global_step=3), None)
    [task] = follow.bar.tasks
    assert (task.completed, task.total, task.fields["loss"]) == (3, 4, "loss 1.234")
    follow.close()
    train(chat("llama"), toy, LORA)
    assert "loss" not in capsys.readouterr().out


def test_an_attack_brings_its_settings(chat: Chat) -> None:
    quick = LoraConfig(steps=2, learning_rate=1e-3)
    attack = dataclasses.replace(finetune.attacks.harmful_compliance(10), published=quick)
    tuned = train(chat("llama"), attack, None, seed=3)
    expected = attack.config_for(chat("llama"), seed=3)
    assert tuned.config == expected
    assert tuned.accounting.steps == expected.steps
    assert tuned.data_sha256 == attack.data.sha256


def test_a_run_that_diverges_keeps_the_last_good_weights(chat: Chat, toy: PromptSet) -> None:
    model = chat("llama")
    before = everything(model)
    config = FullConfig(steps=30, learning_rate=9.0, batch_size=8, max_grad_norm=0, schedule="constant")
    with pytest.raises(DivergenceError, match=r"at step \d+; .* were kept; lower learning_rate") as caught:
        train(model, toy, config)
    error = caught.value
    assert isinstance(error, NumericsError)
    assert error.tuned is not None
    assert error.good_step is not None
    assert error.good_step < error.step
    kept = error.tuned.merged_state_dict()
    assert all(torch.isfinite(weight).all() for weight in kept.values())
    assert error.tuned.log["step"].max() == error.step - 1
    assert_same(before, everything(model))


def test_guard_goes_back_to_the_weights_before_the_bad_update() -> None:
    from types import SimpleNamespace

    from tamperlens.finetune.training import Guard

    module = torch.nn.Linear(2, 1, bias=False)
    guard = Guard(module, n_vocab=100)
    args = SimpleNamespace(fp16=False)
    guard.on_train_begin(args, None, None)

    def step(number: int, loss: float, value: float) -> None:
        guard.on_step_begin(args, SimpleNamespace(global_step=number), None)
        guard.check_loss(loss)
        module.weight.grad = torch.ones_like(module.weight)
        guard.on_pre_optimizer_step(args, None, None)
        with torch.no_grad():
            module.weight.fill_(value)

    step(0, 2.0, 1.0)
    step(1, 1.5, 2.0)  # the update to 2 is what ruins it
    with pytest.raises(
        DivergenceError, match="became nan at step 3; the weights after step 1 were kept"
    ) as caught:
        step(2, float("nan"), 3.0)
    assert (caught.value.step, caught.value.good_step) == (3, 1)
    assert module.weight.flatten().tolist() == [1.0, 1.0]

    module.weight.grad = torch.full_like(module.weight, float("inf"))
    with pytest.raises(DivergenceError, match="a gradient became NaN or infinite"):
        guard.on_pre_optimizer_step(args, None, None)
    fresh = Guard(module, n_vocab=100)
    fresh.check_loss(40.0)  # beyond 5 ln V, but where this model begins
    with pytest.raises(DivergenceError, match="before any update"):
        fresh.check_loss(float("inf"))
