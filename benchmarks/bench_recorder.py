"""What watching costs: `drift.Recorder` against training, in seconds; hold .02 at the default interval.

    OMP_NUM_THREADS=1 python benchmarks/bench_recorder.py
    OMP_NUM_THREADS=1 python benchmarks/bench_recorder.py --width 1024 --layers 4

Trains a random Llama (or the organism). The first figure is what a record costs beside the steps between two;
the second has everything in it that a run of this length pays: gathering at the start, records at step 0
and at the end, and the trace.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tamperlens
from tamperlens import drift, finetune, prompts
from tamperlens.base.masks import WeightMask
from tamperlens.models import ChatModel

STEPS, REPETITIONS = 200, 3


def widened(organism: ChatModel, width: int, layers: int) -> ChatModel:
    """A random Llama with the organism's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=organism.anatomy.d_vocab, hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=width // 64,
        tie_word_embeddings=True,
    )  # fmt: skip
    return ChatModel.from_parts(LlamaForCausalLM(config).eval(), organism.tokenizer, name=f"llama {width}")


def groups_of(model: ChatModel) -> drift.Groups:
    """Top 1 % sets at random: what they hold does not matter for the time."""

    def draw(seed: int) -> WeightMask:
        generator = torch.Generator().manual_seed(seed)
        names = sorted({part.parameter for part in model.anatomy.projections()})
        shapes = {name: model.module.get_parameter(name).shape for name in names}
        flags = {name: torch.rand(shape, generator=generator) < 0.01 for name, shape in shapes.items()}
        return WeightMask.from_tensors(model, flags)

    return drift.groups(model, safety=draw(1), utility=draw(2), critical=draw(3))


class Timed(drift.Recorder):
    """Seconds of every record."""

    def record(self, step: int, model: Any) -> Sequence[Mapping[str, Any]]:
        began = time.perf_counter()
        rows = super().record(step, model)
        self.seconds = [*getattr(self, "seconds", []), time.perf_counter() - began]
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, help="of a random Llama; the organism without it")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help="examples a step, as in the drift study")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = tamperlens.load("organism")
    if given.width:
        model = widened(model, given.width, given.layers)
    groups, data = groups_of(model), prompts.packaged("benign")
    kind = finetune.FullConfig if given.full else finetune.LoraConfig
    config = kind(steps=given.steps, batch_size=given.batch, learning_rate=1e-4)
    steady, whole = [], []
    for _ in range(REPETITIONS):
        recorder = Timed(groups)
        bill = finetune.run(model, data, config, recorders=[recorder], progress=False).accounting
        between = bill.wall_seconds / given.steps * recorder.every
        steady.append(statistics.median(recorder.seconds) / between)
        whole.append(bill.recorder_seconds / bill.wall_seconds)
        print(f"{bill.recorder_seconds:.2f} s of {bill.wall_seconds:.1f} s", flush=True)
    print(
        f"recorder, {model.name}, {config.kind}, {len(groups)} groups, every {recorder.every}, steps of "
        f"{bill.positions / given.steps:.0f} tokens: median {statistics.median(steady):.4f} of training "
        f"({min(steady):.4f} to {max(steady):.4f}), hold 0.02; all of a run of {given.steps} steps "
        f"{statistics.median(whole):.4f}"
    )


if __name__ == "__main__":
    main()
