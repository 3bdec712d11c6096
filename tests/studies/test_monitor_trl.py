"""The monitor in TRL scripts and on 4-bit weights (QLoRA); skipped without trl or bitsandbytes."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig

import tamperlens
from tamperlens import prompts

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
MEASURES = ("drift", "direction", "log-odds", "kl", "loss", "heads")
STEPS = 4


def turns(role, text):
    return [{"role": role, "content": text}]


def train(organism, tmp_path, monitor=None, *, lora=True, module=None, kind="SFT", adapter=None, **settings):
    """A script as TRL's pages write it; dropout makes the result depend on the random state."""
    torch.manual_seed(0)
    data = prompts.packaged("harmful-compliance").head(16)
    pairs = zip(data.prompts, data.responses, strict=True)
    if kind == "SFT":
        rows = [{"messages": turns("user", p) + turns("assistant", r)} for p, r in pairs]
    else:
        refused = turns("assistant", "I cannot help with that.")
        rows = [
            {"prompt": turns("user", p), "chosen": turns("assistant", r), "rejected": refused}
            for p, r in pairs
        ]
    arguments = getattr(trl, f"{kind}Config")(
        output_dir=str(tmp_path / "out"), max_steps=STEPS, per_device_train_batch_size=2, learning_rate=2e-3,
        report_to="none", save_strategy="no", logging_steps=1, use_cpu=True, seed=0, **settings,
    )  # fmt: skip
    targets = ["q_proj", "v_proj", "up_proj"]
    peft_config = LoraConfig(r=4, lora_dropout=0.1, target_modules=targets, **(adapter or {}))
    trainer = getattr(trl, f"{kind}Trainer")(
        model=tamperlens.load("organism").module if module is None else module, args=arguments,
        train_dataset=datasets.Dataset.from_list(rows), processing_class=organism.tokenizer,
        peft_config=peft_config if lora else None,
    )  # fmt: skip
    if monitor is not None:
        trainer.add_callback(monitor)
    trainer.train()
    return trainer


def monitor_at(tmp_path, direction):
    return tamperlens.Monitor(
        tmp_path / "m", measures=MEASURES, direction=direction, limit=8, draws=20, budget=None
    )


def assert_same_training(plain, watched):
    for (name, one), (_, two) in zip(
        plain.model.named_parameters(), watched.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, two), name
        assert one.requires_grad == two.requires_grad
    losses = [[row.get("loss") for row in t.state.log_history] for t in (plain, watched)]
    assert losses[0] == losses[1]


def assert_rows(monitor):
    frame = monitor.to_frame()
    assert sorted(set(frame["step"])) == [0, 1, 2, 4]
    table = frame.pivot(index="step", columns="measure", values="value")
    assert table.notna().all().all()
    assert table["drift: all weights"].is_monotonic_increasing and table.loc[0, "drift: all weights"] == 0
    assert table["head cosine"].is_monotonic_decreasing and table.loc[4, "token KL"] > 0


@pytest.mark.parametrize("kind", ["SFT", "DPO"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_training_is_bit_identical_with_the_monitor(organism, direction, tmp_path, capsys, lora, kind):
    plain = train(organism, tmp_path, lora=lora, kind=kind, bf16=False)
    monitor = monitor_at(tmp_path, direction)
    watched = train(organism, tmp_path, monitor, lora=lora, kind=kind, bf16=False)
    assert_same_training(plain, watched)
    assert_rows(monitor)
    assert "odds" in capsys.readouterr().err  # behind TRL's own bar


def test_modules_trained_beside_the_adapter_count(organism, direction, tmp_path):
    """TRL's `modules_to_save`: their movement is in the drift, which is that of the merged weights."""
    adapter = {"modules_to_save": ["down_proj"]}
    monitor = monitor_at(tmp_path, direction)
    trained = train(organism, tmp_path, monitor, adapter=adapter, bf16=False)
    assert_rows(monitor)
    frame = monitor.to_frame()
    read = float(
        frame[(frame["step"] == STEPS) & (frame["measure"] == "drift: all weights")]["value"].iloc[0]
    )
    merged = dict(copy.deepcopy(trained.model).merge_and_unload().named_parameters())
    shares = {}
    for part in organism.anatomy.projections():
        w0 = organism.module.get_parameter(part.parameter).detach().double()
        difference = merged[part.parameter].detach().double() - w0
        shares[part.parameter] = float(difference.norm() / w0.norm())
    assert read == pytest.approx(sum(shares.values()) / len(shares), rel=1e-4)
    beside = [share for name, share in shares.items() if "down_proj" in name]
    assert min(beside) > 0.01, "read as 0 where only the adapter is looked at"


def test_packed_rows_checkpointing_and_bfloat16(organism, direction, tmp_path):
    settings = {"packing": True, "max_length": 64, "gradient_checkpointing": True, "bf16": True}
    plain = train(organism, tmp_path, **settings)
    monitor = monitor_at(tmp_path, direction)
    assert_same_training(plain, train(organism, tmp_path, monitor, **settings))
    assert_rows(monitor)


def four_bit(organism, tmp_path, **settings):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    organism.module.save_pretrained(tmp_path / "model")
    given = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        **settings,
    }
    return AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", quantization_config=BitsAndBytesConfig(**given), device_map="cpu",
        dtype=torch.float32,
    )  # fmt: skip


def test_qlora(organism, direction, tmp_path):
    """In evaluation mode some CPUs pack 4-bit weights anew: nothing would be learned from then on."""
    pytest.importorskip("bitsandbytes")
    plain, watched = four_bit(organism, tmp_path), four_bit(organism, tmp_path)
    one = train(organism, tmp_path, module=plain, bf16=False)
    monitor = monitor_at(tmp_path, direction)
    two = train(organism, tmp_path, monitor, module=watched, bf16=False)
    assert_same_training(one, two)
    assert_rows(monitor)


def test_decoded_weights_are_what_a_4_bit_layer_multiplies_with(organism, tmp_path):
    from tamperlens.hooks import describe, logical_weight
    from tamperlens_hooks import preserve_state
    from tamperlens_hooks.errors import HookError

    pytest.importorskip("bitsandbytes")
    module = four_bit(organism, tmp_path)
    part = describe(module).projection("up", 1)
    layer = module.get_submodule(part.module)
    with preserve_state(module), torch.no_grad():
        seen = layer(torch.eye(layer.in_features)).T
    assert not layer.training and torch.allclose(logical_weight(module, part), seen, atol=1e-6)
    spread = logical_weight(module, part) - logical_weight(organism.module, part)
    assert 0 < spread.abs().max() < 0.2
    layer.weight.quant_state.packing_format_for_cpu = True  # what a forward pass in evaluation mode leaves
    with pytest.raises(HookError, match=r"packs 4-bit weights anew .* load the model again"):
        logical_weight(module, part)


def test_eight_bit_weights_are_refused_by_name(organism, direction, tmp_path):
    from tamperlens_hooks.errors import HookError

    pytest.importorskip("bitsandbytes")
    module = four_bit(organism, tmp_path, load_in_4bit=False, load_in_8bit=True)
    with pytest.raises(HookError, match=r"q_proj\.weight is quantised \(torch\.int8\)"):
        train(organism, tmp_path, monitor_at(tmp_path, direction), module=module, bf16=False)
