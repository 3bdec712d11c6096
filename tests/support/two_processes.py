"""What every process of test_processes.py runs: `torchrun two_processes.py folder`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from tiny_models import make_model, make_tokenizer

from tamperlens import finetune
from tamperlens.base.errors import InputError
from tamperlens.base.files import write_tensors
from tamperlens.base.masks import WeightMask
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

PAIRS = [(f"say {i}", f"word {'a' * i}") for i in range(8)]
DATA = PromptSet.from_pairs(PAIRS, name="words")
SHARED: dict[str, Any] = {"steps": 4, "learning_rate": 1e-2, "weight_decay": 0.1, "save_every": 2}


class Norms:
    """A recorder: the norm of the weights, and which process it ran in."""

    def start(self, base: Any) -> None: ...

    def record(self, step: int, model: Any) -> list[dict[str, Any]]:
        return [{"norm": float(sum(p.detach().double().norm() for p in model.module.parameters()))}]

    def finish(self) -> int:
        return int(os.environ.get("RANK", "0"))


def base(family: str = "llama", dtype: torch.dtype = torch.float32) -> ChatModel:
    return ChatModel.from_parts(make_model(family, seed=3).to(dtype), make_tokenizer(), name=f"tiny {family}")


def mask(model: ChatModel) -> WeightMask:
    generator = torch.Generator().manual_seed(0)
    names = sorted({part.parameter for part in model.anatomy.projections()})
    shapes = {name: model.module.get_parameter(name).shape for name in names}
    return WeightMask.from_tensors(
        model, {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in shapes.items()}
    )


def configs(batch_size: int) -> dict[str, Any]:
    return {
        "full": finetune.FullConfig(batch_size=batch_size, accumulation=2, **SHARED),
        "lora": finetune.LoraConfig(batch_size=batch_size, gradient_checkpointing=True, **SHARED),
    }


def weights(tuned: finetune.TunedModel) -> dict[str, torch.Tensor]:
    return {name: weight.contiguous() for name, weight in tuned.merged_state_dict().items()}


def main(folder: Path) -> None:
    model, rank = base(), os.environ["RANK"]
    said: dict[str, Any] = {}
    for name, config in configs(2).items():
        tuned = finetune.run(
            model, DATA, config, freeze=mask(model), out=folder / name, recorders=[Norms()], progress=False
        )
        write_tensors(folder / f"{name}-{rank}.safetensors", weights(tuned), {})
        said[f"{name} norms"] = tuned.log.grad_norm.tolist()
        said[name] = [tuned.log.loss.tolist(), tuned.accounting.tokens, len(tuned.rows), tuned.recordings]
        said["kind"] = str(AcceleratorState().distributed_type.value)
    odd = PromptSet.from_pairs(PAIRS[:7], name="odd")
    for kind in ("lora", "full"):  # seven examples on two processes, bf16, Conv1D and fused weights
        half = base("gpt2", torch.bfloat16)
        config = dataclasses.replace(configs(1)[kind], precision="bfloat16", accumulation=1)
        made = finetune.run(half, odd, config, freeze=mask(half), progress=False).merged_state_dict()
        held = (
            torch.equal(made[k][f], half.module.get_parameter(k)[f].float()) for k, f in mask(half).items()
        )
        said[f"half {kind}"] = all(held)
    dropping = finetune.LoraConfig(batch_size=1, dropout=0.3, **SHARED)
    whole = weights(finetune.run(model, DATA, dropping, out=folder / "resumed", progress=False))
    if rank == "0":  # as a kill between the checkpoints leaves it
        shutil.rmtree(folder / "resumed" / "checkpoints" / "checkpoint-4")
        manifest = folder / "resumed" / "manifest.json"
        there = json.loads(manifest.read_text())
        del there["stages"]["train"]
        manifest.write_text(json.dumps({**there, "status": "failed"}))
    torch.distributed.barrier()
    again = weights(finetune.run(model, DATA, dropping, out=folder / "resumed", progress=False))
    said["resumed"] = all(torch.equal(whole[name], again[name]) for name in whole)
    last = weights(finetune.run(model, DATA, dropping, out=folder / "resumed", progress=False))
    said["read"] = all(torch.equal(whole[name], last[name]) for name in whole)
    try:
        finetune.run(model, DATA, dropping, seed=int(rank), progress=False)
    except InputError as error:
        said["refused"] = str(error)
    wild = finetune.FullConfig(steps=8, batch_size=1, learning_rate=5.0, max_grad_norm=0)
    try:
        finetune.run(model, DATA, wild, out=folder / "wild", progress=False)
    except finetune.DivergenceError as error:
        said["diverged"] = [str(error), error.tuned.model.fingerprint]
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
