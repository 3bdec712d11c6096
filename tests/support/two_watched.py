"""What every process of test_monitor_together.py runs: `torchrun two_watched.py folder`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import tamperlens
from tamperlens import Monitor, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.files import write_tensors
from tamperlens.finetune import sharding
from tamperlens.finetune.data import Collator, encode
from tamperlens_hooks.shards import own_tensors, whole

KINDS = {"full": 1e-4, "lora": 5e-3}
STOP = "refusal log-odds below 4.6 once"


def settings(model: Any) -> dict[str, Any]:
    bad, good = (prompts.packaged(name, split="train").head(16) for name in ("harmful", "harmless"))
    return {
        "measures": ["drift", "direction", "log-odds"],
        "direction": refusal.direction_at(model, bad, good, layer=2, position=-1),
        "n": 8,
        "budget": None,
    }


def train(kind: str, folder: Path, monitor: Monitor | None, batch_size: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = tamperlens.load("organism")
    module: Any = model.module
    own_tensors(module)
    if kind == "lora":
        module = get_peft_model(module, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    else:
        module.requires_grad_(True)
    arguments = TrainingArguments(
        str(folder / "trainer"),
        max_steps=4,
        per_device_train_batch_size=batch_size,
        learning_rate=KINDS[kind],
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    sharding.allow_cpu(torch.device("cpu"))
    data = encode(model, prompts.packaged("harmful-compliance").head(8), 256)
    trainer = Trainer(module, arguments, Collator(model.pad_id), data, processing_class=model.tokenizer)
    if monitor is not None:
        trainer.add_callback(monitor)
    trainer.train()
    return {
        name: whole(p).detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad
    }


def main(folder: Path, batch_size: int = 2) -> None:
    warnings.simplefilter("ignore")
    rank = os.environ.get("RANK", "0")
    model = tamperlens.load("organism")
    said: dict[str, Any] = {}
    reference = model if rank == "0" and sharding.wanted() else None
    for kind in KINDS:
        plain = train(kind, folder, None, batch_size)
        monitor = Monitor(folder / kind, every=1, reference=reference, **settings(model))
        watched = train(kind, folder, monitor, batch_size)
        said[kind] = {
            "same": all(torch.equal(plain[name], watched[name]) for name in plain),
            "rows": [[row["step"], row["measure"], row["value"]] for row in monitor.rows],
        }
        stopping = Monitor(
            folder / f"{kind}-stopped", every=1, reference=reference, stop=STOP, **settings(model)
        )
        left = train(kind, folder, stopping, batch_size)
        write_tensors(folder / f"{kind}-{rank}.safetensors", left, {})
        said[kind] |= {"stopped": stopping.stopped_at, "good": stopping.good_step}
    thrifty = Monitor(folder / "thrifty", every=1, reference=reference, **{**settings(model), "budget": 1e-9})
    train("lora", folder, thrifty, batch_size)
    said["left out"] = thrifty.left_out
    said["kind"] = str(AcceleratorState().distributed_type.value)
    if sharding.wanted():
        try:
            train("lora", folder, Monitor(folder / "refused", **settings(model)), batch_size)
        except InputError as error:
            said["refused"] = str(error)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
