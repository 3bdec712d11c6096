"""B6: the cost of head attribution, in forward passes and against one whole pass for every head.

    OMP_NUM_THREADS=1 python benchmarks/bench_heads.py                # all, prints one line each
    python benchmarks/bench_heads.py exact --repetitions 9

Contestants are interleaved in one process and the median of the ratios of neighbouring runs is reported, so
that a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from bench_neurons import chat, ratio, say

from tamperlens import heads
from tamperlens.hooks import ablate_heads
from tamperlens.models import ChatModel, evaluating
from tamperlens.models.generation import forward_last

TOKENS = (70, 90)


def made() -> ChatModel:
    return chat(hidden=512, layers=8, mlp=1408)  # 64 heads


def prompts(n: int, length: int = 120, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz ")
    return ["x" + "".join(generator.choice(letters, length - 2)) + "x" for _ in range(n)]


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, TOKENS[0]] - logits[:, TOKENS[1]]


def forward(model: ChatModel, texts: list[str]) -> Callable[[], torch.Tensor]:
    batch = model.encode(texts)

    def run() -> torch.Tensor:
        with evaluating(model.module):
            return metric(
                forward_last(
                    model.module, batch["input_ids"], batch["attention_mask"], batch["position_ids"],
                    use_cache=False,
                )
            )  # fmt: skip

    return run


def gradients(repetitions: int) -> None:
    """B6a: all heads at once, without pairs and with."""
    model, texts, others = made(), prompts(4), prompts(4, seed=1)
    run = forward(model, texts)
    for words, more in (
        ("gradient, zero baseline / one forward", {}),
        ("gradient of pairs / two forwards", {"corrupt": others}),
    ):
        value, ours, plain = ratio(
            lambda more=more: heads.attribute(model, texts, method="gradient", target=metric, **more),
            run,
            repetitions,
        )
        if more:
            value, plain = value / 2, plain * 2
        say("B6a", words, value, "≤ 3", f"{ours * 1e3:.0f} ms / {plain * 1e3:.0f} ms")


def exact(repetitions: int) -> None:
    """B6b: zero ablation of every head against one whole pass each."""
    model, texts = made(), prompts(2)
    run = forward(model, texts)
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.anatomy.n_heads)]

    def naive() -> torch.Tensor:
        before = run()
        effects = []
        for at in every:
            with ablate_heads(model, [at]):
                effects.append(before - run())
        return torch.stack(effects)

    def ours() -> Any:
        return heads.attribute(model, texts, method="ablate", target=metric)

    difference = (ours().per_prompt.flatten(1).T - naive()).abs().max()
    assert difference < 1e-4, difference
    value, fast, slow = ratio(ours, naive, repetitions)
    say(
        "B6b", f"exact, all {len(every)} heads / one pass a head", value, "≤ .5",
        f"{fast:.2f} s / {slow:.2f} s",
    )  # fmt: skip


BENCHMARKS = {"gradient": gradients, "exact": exact}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.which or BENCHMARKS:
        BENCHMARKS[name](options.repetitions)


if __name__ == "__main__":
    main()
