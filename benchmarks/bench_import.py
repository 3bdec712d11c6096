"""B8: `import tamperlens; load("organism")` against importing torch and transformers, in fresh processes.

    python benchmarks/bench_import.py --repetitions 5

transformers imports nothing until a class is asked for, so it is measured both bare and with what loading any
Llama needs. Processor seconds of each process (`os.wait4`), interleaved; the first round warms the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from interleaved import words

CODE = {
    "bare": "import torch, transformers",
    "classes": "import torch; from transformers import AutoTokenizer, LlamaForCausalLM",
    "tamperlens": "import tamperlens; tamperlens.load('organism')",
}


def seconds(code: str) -> float:
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{code!r} failed")
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    rounds = [{name: seconds(code) for name, code in CODE.items()} for _ in range(repetitions + 1)][1:]
    for name in ("bare", "classes"):
        ratios = sorted(found["tamperlens"] / found[name] for found in rounds)
        print(f"B8   tamperlens / {name} ({CODE[name]}): {words(ratios)}")


if __name__ == "__main__":
    main()
