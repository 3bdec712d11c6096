"""A run that was stopped goes on to exactly the weights of one that was not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tamperlens import finetune
from tamperlens.base.errors import RunFolderError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune import FullConfig, LoraConfig, TunedModel
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

Chat = Callable[..., ChatModel]
# Dropout, so that random states matter; three steps an epoch, so that the data order does.
LORA = LoraConfig(steps=7, learning_rate=1e-2, batch_size=3, dropout=0.2, save_every=2, warmup=2)
FULL = FullConfig(
    steps=7, learning_rate=1e-3, batch_size=3, save_every=3, schedule="cosine", weight_decay=0.01
)


ALL_AT_ONCE = LoraConfig(
    steps=5, learning_rate=1e-2, batch_size=2, accumulation=2, dropout=0.1, save_every=2,
    gradient_checkpointing=True, precision="bfloat16", rslora=True,
)  # fmt: skip


def mask_of(model: ChatModel, share: float = 0.3) -> WeightMask:
    generator = torch.Generator().manual_seed(0)
    names = sorted({part.parameter for part in model.anatomy.projections()})
    return WeightMask.from_tensors(
        model,
        {n: torch.rand(model.module.get_parameter(n).shape, generator=generator) < share for n in names},
    )


class Stop:
    """Records a number, and stops the run once."""

    every = 1

    def __init__(self, at: int | None = None, at_the_end: bool = False) -> None:
        self.at, self.at_the_end = at, at_the_end

    def start(self, model: Any) -> None:
        pass

    def record(self, step: int, model: Any) -> Sequence[dict[str, Any]]:
        if step == self.at:
            raise KeyboardInterrupt
        return [{"value": step * 10}]

    def finish(self) -> Any:
        if self.at_the_end:
            raise KeyboardInterrupt


def weights(tuned: TunedModel) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in tuned.merged_state_dict().values()])


@pytest.mark.parametrize(
    ("config", "at"), [(LORA, 4), (LORA, 6), (FULL, 5)], ids=["lora-4", "lora-6", "full-5"]
)
def test_resumed_equals_uninterrupted(
    chat: Chat, toy: PromptSet, tmp_path: Path, config: Any, at: int
) -> None:
    model = chat("gpt2")  # has dropout of its own
    whole = finetune.run(model, toy, config, recorders=[Stop()], progress=False)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune.run(model, toy, config, recorders=[Stop(at)], out=folder, progress=False)
    assert not (folder / "tuned").exists()
    resumed = finetune.run(model, toy, config, recorders=[Stop()], out=folder, progress=False)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.log["step"].tolist() == list(range(1, 8))
    assert resumed.log["loss"].tolist() == whole.log["loss"].tolist()
    assert resumed.rows["step"].tolist() == whole.rows["step"].tolist()
    one, two = whole.accounting, resumed.accounting
    assert (one.tokens, one.flops, one.steps) == (two.tokens, two.flops, two.steps)
    written = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in written if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_a_finished_run_is_read(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    model = chat("llama")
    config = LoraConfig(steps=2, learning_rate=1e-2)
    first = finetune.run(model, toy, config, out=tmp_path / "run", progress=False)
    began = time.perf_counter()
    again = finetune.run(model, toy, config, out=tmp_path / "run", progress=False)
    assert time.perf_counter() - began < first.accounting.wall_seconds + 5
    assert torch.equal(weights(first), weights(again))
    assert again.accounting == first.accounting
    with pytest.raises(RunFolderError, match="finished"):
        finetune.run(model, toy, config, out=tmp_path / "run", progress=False, resume=False)
    with pytest.raises(RunFolderError, match="recorders cannot watch"):
        finetune.run(model, toy, config, out=tmp_path / "run", progress=False, recorders=[Stop()])


def test_another_run_is_refused(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    config = LoraConfig(steps=2, learning_rate=1e-2)
    first = finetune.run(chat("llama"), toy, config, out=tmp_path / "run", progress=False)
    for model, data, settings in (
        (chat("llama"), toy, LoraConfig(steps=2, learning_rate=2e-2)),
        (chat("llama"), toy.head(4), config),
        (chat("llama", seed=5), toy, config),
    ):
        with pytest.raises(RunFolderError, match="another run"):
            finetune.run(model, data, settings, out=tmp_path / "run", progress=False)
    again = finetune.run(chat("llama"), toy, config, out=tmp_path / "run", progress=False)
    assert torch.equal(weights(first), weights(again))


def test_a_run_that_diverges_leaves_its_last_good_adapter(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    model = chat("llama")
    config = FullConfig(steps=30, learning_rate=9.0, batch_size=8, max_grad_norm=0, schedule="constant")
    with pytest.raises(finetune.DivergenceError) as caught:
        finetune.run(model, toy, config, out=tmp_path / "run", progress=False)
    kept = TunedModel.load(tmp_path / "run" / "last-good", model)
    assert torch.equal(weights(kept), weights(caught.value.tuned))
    assert not (tmp_path / "run" / "tuned").exists()


SCRIPT = """
import sys
sys.path[:0] = [{support!r}]
import torch
from tiny_models import make_model, make_tokenizer
from tamperlens import finetune
from tamperlens.base.masks import WeightMask
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet
model = ChatModel.from_parts(make_model("gpt2"), make_tokenizer(), name="gpt2", check_anatomy=False)
data = PromptSet.from_pairs([("Say " + w, w + " it is") for w in "abcdefgh"], name="letters")
common = dict(learning_rate=1e-3, batch_size=3, save_every=20)
config = {{
    "lora": finetune.LoraConfig(steps=300, dropout=0.2, **common),
    "frozen": finetune.LoraConfig(
        steps=150, dropout=0.2, accumulation=2, gradient_checkpointing=True, precision="bfloat16", **common
    ),
    "full frozen": finetune.FullConfig(steps=200, weight_decay=0.1, **common),
}}[{kind!r}]
freeze = None
if "frozen" in {kind!r}:
    draw = torch.Generator().manual_seed(0)
    names = sorted({{part.parameter for part in model.anatomy.projections()}})
    freeze = WeightMask.from_tensors(
        model, {{n: torch.rand(model.module.get_parameter(n).shape, generator=draw) < 0.3 for n in names}}
    )
finetune.run(model, data, config, freeze=freeze, out={out!r}, progress=False)
"""


@pytest.mark.parametrize(
    ("config", "family"), [(ALL_AT_ONCE, "gpt2"), (FULL, "llama")], ids=["everything", "full"]
)
def test_frozen_runs_resume_exactly(
    chat: Chat, toy: PromptSet, tmp_path: Path, config: Any, family: str
) -> None:
    model = chat(family)
    mask = mask_of(model)
    whole = finetune.run(model, toy, config, freeze=mask, progress=False)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(
            model, toy, config, freeze=mask, recorders=[Stop(4)], out=tmp_path / "run", progress=False
        )
    resumed = finetune.run(model, toy, config, freeze=mask, out=tmp_path / "run", progress=False)
    assert torch.equal(weights(whole), weights(resumed))
    merged = resumed.merged_state_dict()
    for name, flags in mask.items():
        old = model.module.get_parameter(name).detach()
        assert torch.equal(merged[name].view(torch.int32)[flags], old.view(torch.int32)[flags])
        assert not torch.equal(merged[name][~flags], old[~flags])


def test_stopped_between_the_last_step_and_saving(chat: Chat, toy: PromptSet, tmp_path: Path) -> None:
    """transformers' Trainer would make one step too many, which a learning rate that stays up shows."""
    model = chat("llama")
    config = LoraConfig(steps=4, learning_rate=1e-2, batch_size=3, save_every=2, schedule="constant")
    whole = finetune.run(model, toy, config, recorders=[Stop()], progress=False)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(
            model, toy, config, recorders=[Stop(at_the_end=True)], out=tmp_path / "run", progress=False
        )
    resumed = finetune.run(model, toy, config, recorders=[Stop()], out=tmp_path / "run", progress=False)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.rows["step"].tolist() == [0, 1, 2, 3, 4]
    assert resumed.accounting.steps == 4
    assert resumed.accounting.tokens == whole.accounting.tokens


class FillTheDisk(Stop):
    """From a step on no file may grow beyond a few bytes, as on a disk that is full."""

    def record(self, step: int, model: Any) -> Sequence[dict[str, Any]]:
        if step == self.at:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        return [{"value": step * 10}]


def test_a_full_disk_loses_nothing(
    chat: Chat, toy: PromptSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint before stays whole, the error says what to do, and the run goes on from there."""
    model, config = chat("llama"), LoraConfig(steps=6, learning_rate=1e-2, batch_size=3, save_every=2)
    whole = finetune.run(model, toy, config, recorders=[Stop()], progress=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with capfd.disabled(), pytest.raises(RunFolderError, match=r"cannot write .*; free some space"):
            finetune.run(model, toy, config, recorders=[FillTheDisk(3)], out=tmp_path / "run", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [one.name for one in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = finetune.run(model, toy, config, recorders=[Stop()], out=tmp_path / "run", progress=False)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.rows["step"].tolist() == list(range(7))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "frozen", "full frozen"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kind: str) -> None:
    support = str(Path(__file__).resolve().parent.parent / "support")

    def start(out: Path) -> subprocess.Popen[bytes]:
        script = SCRIPT.format(support=support, out=str(out), kind=kind)
        return subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert start(tmp_path / "whole").wait(600) == 0
    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / "killed" / "tuned").exists()
    assert start(tmp_path / "killed").wait(600) == 0
    file = "weights.safetensors" if kind == "full frozen" else "adapter_model.safetensors"
    whole, killed = (tmp_path / name / "tuned" / file for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
