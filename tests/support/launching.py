"""Starting a script in two processes, with whole weights in each or with sharded ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tamperlens

KINDS: dict[str, dict[str, str]] = {
    "MULTI_CPU": {},
    "FSDP": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    },
}
"""The environment of each kind, by accelerate's name for it."""


def in_two_processes(script: str | None, folder: Path, kind: str) -> None:
    """`torchrun script folder`; every process must end well."""
    roots = [str(Path(tamperlens.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ("--standalone", "--nproc-per-node", "2")
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, str(script), str(folder)],
        check=True,
        timeout=600,
        env={**os.environ, **KINDS[kind], "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(roots)},
    )
