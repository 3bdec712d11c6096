"""B3: a linear map with frozen entries against plain LoRA, forward and backward; hold 1.3 at 1 %, 1.6 at 3 %.

OMP_NUM_THREADS=1 python benchmarks/bench_freeze.py
"""

from __future__ import annotations

import statistics
import time
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tamperlens_hooks.freeze import freeze_adapter

WIDTH, TOKENS, RANK, REPETITIONS = 2048, 512, 16, 5
HOLD = {0.01: 1.3, 0.03: 1.6}


def adapted(share: float | None, path: str = "auto") -> nn.Module:
    torch.manual_seed(0)
    base = nn.ModuleDict({"map": nn.Linear(WIDTH, WIDTH, bias=False)})
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=32, target_modules=["map"]))
    layer = model.base_model.model["map"]
    nn.init.normal_(layer.lora_B["default"].weight, std=0.01)
    if share is not None:
        flags = torch.rand(WIDTH, WIDTH) < share
        freeze_adapter(model, {"map.weight": flags}, path)
    return layer


def seconds(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> float:
    # CPU seconds of this process, where there is no GPU: a busy machine must not blur the ratio.
    clock = time.perf_counter if x.is_cuda else time.process_time
    began = clock()
    layer(x).backward(g)
    if x.is_cuda:
        torch.cuda.synchronize()
    spent = clock() - began
    x.grad = None
    return spent


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(1, TOKENS, WIDTH, device=device, requires_grad=True)
    g = torch.randn(1, TOKENS, WIDTH, device=device)
    plain = adapted(None).to(device)
    for share in (0.01, 0.03, 0.3):
        for path in ("sparse", "blocks") if share < 0.1 else ("blocks",):
            frozen = adapted(share, path).to(device)
            seconds(plain, x, g), seconds(frozen, x, g)
            ratios = []
            for i in range(REPETITIONS):  # interleaved, order alternating
                pair = [seconds(one, x, g) for one in ((plain, frozen) if i % 2 else (frozen, plain))]
                ratios.append(pair[1] / pair[0] if i % 2 else pair[0] / pair[1])
            hold = f", hold {HOLD[share]}" if share in HOLD and path == "sparse" else ""
            print(
                f"B3 {share:.0%} {path}: median {statistics.median(ratios):.2f} of plain LoRA "
                f"({min(ratios):.2f} to {max(ratios):.2f}){hold}",
                flush=True,
            )


if __name__ == "__main__":
    main()
