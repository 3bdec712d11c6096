"""B5: the cost of residual means, as ratios against a bare forward pass of the body.

    OMP_NUM_THREADS=1 python benchmarks/bench_refusal.py                # all, prints one line each
    python benchmarks/bench_refusal.py means --repetitions 9

The bare pass runs the same batches (sorted by length, left-padded) through the decoder without the
unembedding and without hooks. Contestants are interleaved in one process and the median of the ratios of
neighbouring runs is reported, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from interleaved import ratio
from tiny_models import make_model, make_tokenizer

from tamperlens import refusal
from tamperlens.directions.candidates import batches, mean_activations
from tamperlens.models import ChatModel

LAYERS = 8
POSITIONS = [-2, -1]


def chat(hidden: int = 256) -> ChatModel:
    module = make_model(
        "llama", hidden_size=hidden, intermediate_size=704, num_hidden_layers=LAYERS,
        num_attention_heads=8, num_key_value_heads=8, head_dim=hidden // 8, vocab_size=8192,
    )  # fmt: skip
    return ChatModel.from_parts(module, make_tokenizer(), name="benchmark", check_anatomy=False)


def texts(n: int) -> list[str]:
    """n prompts of 20 to 120 letters, a token a letter, in random order."""
    generator = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz ")
    return ["x" + "".join(generator.choice(letters, int(generator.integers(20, 120)))) for _ in range(n)]


def body(model: ChatModel, prompts: list[str]) -> Callable[[], None]:
    """The blocks on the same batches, nothing read."""
    decoder = model.module.get_submodule(model.anatomy.decoder)
    made = list(batches(model, prompts, keep=10**6)[0])  # nothing shared: whole prompts

    def run() -> None:
        with torch.no_grad():
            for batch in made:
                decoder(**batch)

    return run


def cached(model: ChatModel, prompts: list[str]) -> Callable[[], Any]:
    """The common way: every hidden state of every position kept by `output_hidden_states`, with logits."""
    made = list(batches(model, prompts, keep=10**6)[0])  # nothing shared: whole prompts

    def run() -> Any:
        total: Any = 0
        with torch.no_grad():
            for batch in made:
                states = model.module(**batch, output_hidden_states=True).hidden_states
                total = total + torch.stack(states[:-1])[:, :, POSITIONS].double().sum(1)
        return total / len(prompts)

    return run


def say(name: str, what: str, value: float, hold: str, detail: str) -> None:
    print(f"{name:4s} {what:58s} {value:6.3f}   hold {hold:8s} ({detail})", flush=True)


def means(repetitions: int, n: int) -> None:
    """B5 at all layers, tokenisation and batching included."""
    model, prompts = chat(), texts(n)
    got = mean_activations(model, prompts, POSITIONS)
    torch.testing.assert_close(got, cached(model, prompts)().transpose(0, 1), rtol=1e-4, atol=1e-5)
    value, ours, bare = ratio(
        lambda: mean_activations(model, prompts, POSITIONS), body(model, prompts), repetitions
    )
    say(
        "B5",
        f"means, {LAYERS} layers / bare body forward, n {n}",
        value,
        "≤ 1.1",
        f"{ours:.2f} / {bare:.2f} s",
    )


def stopped(repetitions: int, n: int) -> None:
    """B5 stopped at the input of block l: l of L blocks run."""
    model, prompts = chat(), texts(n)
    for layer in (LAYERS // 4, LAYERS // 2, 3 * LAYERS // 4):
        value, ours, bare = ratio(
            lambda layer=layer: mean_activations(model, prompts, POSITIONS, [layer]),  # type: ignore[misc]
            body(model, prompts), repetitions,
        )  # fmt: skip
        share = layer / LAYERS
        hold = f"≤ {1.1 * share:.3f}"
        say("B5", f"means, stopped at {layer} of {LAYERS} / bare body forward", value, hold,
            f"{ours:.2f} / {bare:.2f} s")  # fmt: skip


def hidden_states(repetitions: int, n: int) -> None:
    """The common way against the bare pass, for comparison."""
    model, prompts = chat(), texts(n)
    value, theirs, bare = ratio(cached(model, prompts), body(model, prompts), repetitions)
    say(
        "B5", "output_hidden_states, kept / bare body forward", value, "(1.7)", f"{theirs:.2f} / {bare:.2f} s"
    )


def disk(repetitions: int, n: int) -> None:
    """Activations found on disk against the pass that they save."""
    model, prompts = chat(), texts(n)
    with tempfile.TemporaryDirectory() as folder:
        cache = refusal.ActivationCache(folder)
        value, found, bare = ratio(
            lambda: refusal.activations(model, prompts, -1, cache=cache),
            lambda: refusal.activations(model, prompts, -1),
            repetitions,
        )
    say("B5", "activations from disk / read anew", value, "< 0.5", f"{found:.3f} / {bare:.2f} s")


BENCHMARKS = {"means": means, "stopped": stopped, "hidden-states": hidden_states, "disk": disk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.which or BENCHMARKS:
        BENCHMARKS[name](options.repetitions, options.prompts)


if __name__ == "__main__":
    main()
