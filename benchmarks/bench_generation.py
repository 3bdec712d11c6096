"""B7: throughput of `ChatModel.generate` against `transformers.generate` on the same 64 prompts.

    OMP_NUM_THREADS=1 python benchmarks/bench_generation.py organism
    OMP_NUM_THREADS=1 python benchmarks/bench_generation.py path/to/model --repetitions 3 --tokens 32

Prompts are packaged ones, alone ("short", all of about one length) or up to twelve of them in one turn
("mixed"). Transformers gets them left-padded, all at once or sorted by length in batches of 8 or 16, with the
same stop tokens; both are greedy. Ratios are of processor time, transformers / tamperlens, interleaved in one
process: above 1 tamperlens is faster. Answers that differ are counted: ties in fp32 round differently in
batches of another shape.
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
import torch
from interleaved import spread, words

import tamperlens
from tamperlens import prompts as sets
from tamperlens.models import ChatModel

N = 64


def texts(kind: str) -> list[str]:
    """64 prompts of about one length, or of 1 to 12 times that."""
    pool = [p for name in ("harmless", "lookalike", "harmful") for p in sets.packaged(name).prompts]
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 13, N) if kind == "mixed" else np.ones(N, dtype=int)
    return [" ".join(generator.choice(pool, int(size))) for size in sizes]


def ours(model: ChatModel, prompts: list[str], tokens: int) -> list[str]:
    return model.generate(prompts, max_new_tokens=tokens)


def theirs(model: ChatModel, prompts: list[str], tokens: int, rows: int) -> list[str]:
    """Sorted by length (where there is more than one batch), left-padded, greedy."""
    order = sorted(range(len(prompts)), key=lambda i: -len(model.token_ids([prompts[i]])[0]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        batch = model.encode([prompts[i] for i in chosen])
        del batch["position_ids"]
        made = model.module.generate(
            **batch, max_new_tokens=tokens, do_sample=False, eos_token_id=sorted(model.stop_ids),
            pad_token_id=model.pad_id,
        )  # fmt: skip
        for i, row in zip(chosen, made[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in model.stop_ids), len(row))
            answers[i] = model.tokenizer.decode(row[:end], skip_special_tokens=True).strip()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="organism")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--kinds", nargs="+", default=["mixed", "short"])
    arguments = parser.parse_args()
    model = tamperlens.load(arguments.model)
    for kind in arguments.kinds:
        prompts = texts(kind)
        lengths = [len(ids) for ids in model.token_ids(prompts)]
        mine = ours(model, prompts, arguments.tokens)
        for rows in arguments.rows:
            other = theirs(model, prompts, arguments.tokens, rows)
            different = sum(a != b for a, b in zip(mine, other, strict=True))
            ratios, slow, fast = spread(
                functools.partial(theirs, model, prompts, arguments.tokens, rows),
                functools.partial(ours, model, prompts, arguments.tokens),
                arguments.repetitions,
            )
            print(
                f"{model.name} {kind} ({min(lengths)}-{max(lengths)} tokens, "
                f"{torch.get_num_threads()} threads), "
                f"transformers with {rows} rows / tamperlens: {words(ratios)}; {slow:.2f} s, {fast:.2f} s; "
                f"{different} of {N} answers differ",
                flush=True,
            )


if __name__ == "__main__":
    main()
