"""B1a, B1b, B1c, B2: the cost of SNIP and of a set difference, as ratios against plain alternatives.

    OMP_NUM_THREADS=1 python benchmarks/bench_neurons.py                # all, prints one line each
    python benchmarks/bench_neurons.py snip-speed --repetitions 9

Contestants are interleaved in one process and the median of the ratios of neighbouring runs is reported, so
that a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from interleaved import ratio
from tiny_models import make_model, make_tokenizer
from torch import Tensor

from tamperlens import neurons
from tamperlens.base.parts import parts_of, shapes_of
from tamperlens.models import ChatModel
from tamperlens.neurons import WeightScores
from tamperlens.prompts import PromptSet, encode_pairs


def chat(hidden: int = 512, layers: int = 8, mlp: int = 1408) -> ChatModel:
    module = make_model(
        "llama", hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, head_dim=hidden // 8,
    )  # fmt: skip
    return ChatModel.from_parts(module, make_tokenizer(), name="benchmark", check_anatomy=False)


def turns(n: int, tokens: int = 128) -> PromptSet:
    """n turns of exactly `tokens` tokens: a token a byte, five of the template."""
    generator = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz ")
    half = (tokens - 5) // 2
    text = ["x" + "".join(generator.choice(letters, tokens - 7)) + "x" for _ in range(n)]
    return PromptSet.from_pairs([(one[:half], one[half:]) for one in text], name="benchmark")


def plain(model: ChatModel, data: PromptSet, rows: int = 8) -> Callable[[], None]:
    """Ordinary forward and backward passes with weight gradients, 8 rows at a time."""
    encoded = encode_pairs(model.tokenizer, data)
    ids = torch.tensor([turn.input_ids for turn in encoded])
    labels = torch.tensor([turn.labels for turn in encoded])
    wanted = {id(model.module.get_parameter(name)) for name in weights_of(model)}

    def run() -> None:
        for parameter in model.module.parameters():
            parameter.requires_grad_(id(parameter) in wanted)
        for start in range(0, len(ids), rows):
            model.module.zero_grad()
            batch = slice(start, start + rows)
            model.module(input_ids=ids[batch], labels=labels[batch], use_cache=False).loss.backward()
        model.module.zero_grad()

    return run


def weights_of(model: ChatModel) -> list[str]:
    return list(dict.fromkeys(part.parameter for part in model.anatomy.projections()))


def as_published(model: ChatModel, data: PromptSet) -> dict[str, Tensor]:
    """The layer-by-layer loop: for each block all examples, one at a time, with that block's gradients only.

    Re-expressed from boyiwei/alignment-attribution-code, lib/model_wrapper.py (`prune_wandg`): embeddings
    and all other weights are frozen, |grad| of the block's matrices is added up after every example.
    """
    encoded = encode_pairs(model.tokenizer, data)
    found: dict[str, Tensor] = {}
    for layer in range(model.n_layers):
        names = [part.parameter for part in model.anatomy.projections(layer)]
        model.module.requires_grad_(False)
        mine = {name: model.module.get_parameter(name).requires_grad_(True) for name in names}
        sums = {name: torch.zeros_like(weight) for name, weight in mine.items()}
        for turn in encoded:
            model.module.zero_grad()
            model.module(
                input_ids=torch.tensor([turn.input_ids]), labels=torch.tensor([turn.labels]), use_cache=False
            ).loss.backward()
            for name, weight in mine.items():
                assert weight.grad is not None
                sums[name] += weight.grad.abs()
        for name, weight in mine.items():
            found[name] = weight.detach().abs() * sums[name] / len(encoded)
    model.module.zero_grad()
    return found


def say(name: str, what: str, value: float, hold: str, detail: str) -> None:
    print(f"{name:4s} {what:58s} {value:6.2f}   hold {hold:7s} ({detail})", flush=True)


def snip_speed(repetitions: int) -> None:
    """B1a."""
    model, data = chat(), turns(16)
    value, ours, theirs = ratio(lambda: neurons.snip(model, data), plain(model, data), repetitions)
    say(
        "B1a", "SNIP / plain batch-8 forward+backward, N 16", value, "≤ 1.3", f"{ours:.2f} s / {theirs:.2f} s"
    )


def snip_against_loop(repetitions: int) -> None:
    """B1b at three lengths: the shorter the rows, the more the loop pays for taking them one by one."""
    model = chat()
    for tokens in (32, 64, 128):
        data = turns(8, tokens)
        scores, literal = neurons.snip(model, data), as_published(model, data)
        for name, tensor in scores.items():
            assert float((tensor - literal[name]).norm() / literal[name].norm()) < 1e-5, name
        for size in (8, "auto"):  # this small model leaves "auto", which bounds memory, one long row
            value, theirs, ours = ratio(
                lambda data=data: as_published(model, data),  # type: ignore[misc]
                lambda data=data, size=size: neurons.snip(model, data, batch_size=size),  # type: ignore[misc]
                repetitions,
            )
            say(
                "B1b",
                f"loop as published / SNIP, 8 layers, T {tokens}, batch {size}",
                value,
                "≥ 5",
                f"{theirs:.2f} s / {ours:.2f} s",
            )


def snip_memory(repetitions: int) -> None:
    """B1c: peak resident memory over that before the pass, in units of the fp32 scores, at two N.

    Each measurement runs in a process of its own, because an allocator gives memory back when it likes.
    """
    import subprocess

    for n in (4, 16, 64):
        out = subprocess.run(
            [sys.executable, __file__, "memory-child", "--examples", str(n)],
            check=True, capture_output=True, text=True, env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        ).stdout  # fmt: skip
        say(
            "B1c",
            f"peak memory over base / 4P bytes, N {n}",
            float(out.split()[-1]),
            "≤ 1.8",
            "fp32 scores included",
        )


def memory_child(n: int) -> None:
    from tamperlens.base.provenance import PeakMemory

    model, data = chat(), turns(n)
    neurons.snip(model, data.head(1), layers=[7])  # imports, thread pools and kernels are not the pass
    gc.collect()
    size = sum(model.module.get_parameter(name).numel() for name in weights_of(model))
    base, memory = resident(), PeakMemory()
    scores = neurons.snip(model, data)
    peak = memory.read()["peak_rss_bytes"]
    assert scores.total == size
    print((peak - base) / (4 * size))


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status; this benchmark needs Linux")


def set_difference(repetitions: int) -> None:
    """B2."""
    model = chat(hidden=2048, layers=1, mlp=16)
    part = next(part for part in parts_of(model) if part.name == "0.q")
    shape = shapes_of(model, [part])[part.parameter]
    sides = []
    for seed in (0, 1):
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) ** 4
        sides.append(
            WeightScores(
                {part.parameter: drawn},
                (part,),
                "benchmark",
                "",
                "random",
                {},
                {f"set {seed}": ""},
                1,
                model.fingerprint,
                model.base_fingerprint,
                model.name,
            )
        )
    for percent, hold in ((3, "≥ 4"), (50, "≥ 30")):
        p = percent / 100

        def ours(p: float = p) -> Any:
            return neurons.set_difference(*sides, p=p, q=p)

        def theirs(p: float = p) -> Tensor:
            """As published: top-k indices of both, those of safety that are not among those of utility."""
            safety, utility = (side[part.parameter].flatten() for side in sides)
            k = int(p * safety.numel())
            top_s = torch.topk(safety, k).indices
            top_u = torch.topk(utility, k).indices
            unique = torch.unique(torch.cat([top_u]))
            flags = torch.zeros(safety.numel(), dtype=torch.bool)
            flags[top_s[~torch.isin(top_s, unique)]] = True
            return flags.reshape(shape)

        assert torch.equal(ours()[part.parameter], theirs())
        value, slow, fast = ratio(theirs, ours, repetitions)
        say(
            "B2",
            f"topk/unique/isin / set difference, 2048² at {percent}/{percent}",
            value,
            hold,
            f"{slow * 1e3:.0f} ms / {fast * 1e3:.0f} ms",
        )


BENCHMARKS = {
    "snip-speed": snip_speed,
    "snip-against-loop": snip_against_loop,
    "snip-memory": snip_memory,
    "set-difference": set_difference,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, "memory-child", []], default=[])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=16, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.which == ["memory-child"]:
        memory_child(options.examples)
        return
    for name in options.which or BENCHMARKS:
        BENCHMARKS[name](options.repetitions)


if __name__ == "__main__":
    main()
