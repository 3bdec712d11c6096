"""B4: drift read from factors against building W0 + s·B·A; hold .01 norms, .06 cosines, .06 a 1 % group.

Cosines are set against two ways of materialising: torch's fp32 cosine, which is wrong below 1e-7, and the
formula without cancellation, which gives what is asked for.

OMP_NUM_THREADS=1 python benchmarks/bench_drift.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from tamperlens_hooks.lowrank import Entries, Update, moments, row_sizes

WIDTH, RANK, REPETITIONS = 2048, 16, 7


def timed(work: Callable[[], object], times: int = 1) -> float:
    """Seconds, of this process's CPU where there is no GPU: a busy machine must not blur the ratio."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    for _ in range(times):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (clock() - began) / times


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    w = torch.randn(WIDTH, WIDTH, device=device) / WIDTH**0.5
    b = torch.randn(WIDTH, RANK, device=device) * 1e-3
    a = torch.randn(RANK, WIDTH, device=device) / WIDTH**0.5
    update, sizes = Update(w, b, a), row_sizes(w)
    entries = Entries.of([torch.rand(w.shape, device=device) < 0.01], (WIDTH, WIDTH), w.device)
    rows, columns = entries.rows(), entries.col.long()
    here = w[rows, columns]

    def merged() -> torch.Tensor:
        return w + b @ a

    def literal_norms() -> torch.Tensor:
        return (merged() - w).norm(dim=1)

    def literal_cosines() -> torch.Tensor:
        return 1 - torch.cosine_similarity(w, merged(), dim=1)

    def literal_right_cosines() -> torch.Tensor:
        v = merged()
        d = w - v
        across = d - v * ((v * d).sum(1, keepdim=True) / v.square().sum(1, keepdim=True))
        sine = across.square().sum(1) / w.square().sum(1)
        return sine / (1 + (1 - sine).sqrt())

    def literal_group() -> torch.Tensor:
        new = merged()[rows, columns].double()
        old = here.double()
        return 1 - (new @ old) / (new.norm() * old.norm())

    def our_cosines() -> torch.Tensor:
        return update.row_moments(sizes).one_minus_cosine()

    cases = {
        "norms": (update.row_squares, literal_norms, 0.01),
        "cosines": (our_cosines, literal_cosines, 0.06),
        "cosines, no cancellation": (our_cosines, literal_right_cosines, 0.06),
        "1 % group": (lambda: moments(update.sample(entries), here).one_minus_cosine(), literal_group, 0.06),
    }
    for name, (ours, literal, hold) in cases.items():
        ours(), literal()
        ratios = []
        for i in range(REPETITIONS):
            # The short side is run ten times over: a clock tick is longer than one of them.
            both = ((literal, 1), (ours, 10))
            pair = [timed(*one) for one in (both if i % 2 else both[::-1])]
            ratios.append(pair[1] / pair[0] if i % 2 else pair[0] / pair[1])
        print(
            f"B4 {name}: median {statistics.median(ratios):.4f} of materialising "
            f"({min(ratios):.4f} to {max(ratios):.4f}), hold {hold}",
            flush=True,
        )


if __name__ == "__main__":
    main()
