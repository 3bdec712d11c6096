"""Small runs as processes of their own, to be killed, to meet, to run out of disk: see `Runs`.

Forked after the imports, which take most of such a run and hold nothing that could be lost.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tamperlens.base.files import read_tensors, sha256_bytes, sha256_file

GRID = """models = ["organism:tiny"]
ranks = [4]
steps = [1, 2]
data_sizes = [4]
seeds = [0, 1]
[training]
batch_size = 2
[evaluation]
limit = 3
suite_limit = 1
suites = ["facts"]
max_new_tokens = 4
"""
KINDS = ("audit", "grid", "finetune", "trajectory", "compare")
RAY = "ray"
"""A grid on two Ray workers, which are processes of their own: see `workers`."""


def work(kind: str, out: Path) -> None:
    """Make the run, or go on with it."""
    if kind in ("audit", "grid", "compare", RAY):
        from tamperlens.cli import app

        declaration = out.parent / "sweep.toml"
        declaration.write_text(GRID)
        how = {
            "audit": [
                "audit",
                "organism:tiny",
                "--limit",
                "4",
                "--steps",
                "2",
                "--max-new-tokens",
                "4",
                "--resume",
            ],
            "grid": ["grid", "run", str(declaration)],
            RAY: ["grid", "run", str(declaration), "--ray", "local", "--workers", "2"],
            "compare": ["compare", "organism:tiny", "organism:tiny", "--quick", "--limit", "4", "--resume"],
        }
        app([*how[kind], "--out", str(out), "--quiet"])
        return
    import tamperlens
    from tamperlens import finetune, trajectory

    model = tamperlens.load("organism:tiny", device="cpu")
    config = finetune.LoraConfig(rank=2, steps=6, batch_size=2, save_every=1)
    attack = finetune.attacks.harmful_compliance(6)
    if kind == "finetune":
        finetune.run(model, attack, config, out=out, progress=False)
    else:
        trajectory.record(model, attack, config, measures=["direction", "kl"], seeds=2, n=8, out=out)


def outcome(kind: str, out: Path) -> Any:
    """What an interrupted run must have in common with an uninterrupted one."""
    if kind == "audit":
        return [sha256_file(out / name) for name in ("measures.csv", "changes.csv", "completions.csv")]
    if kind == "compare":
        return [sha256_file(path) for path in sorted(out.glob("*.csv"))]
    if kind in ("grid", RAY):
        from tamperlens.grid import Record

        return {path.stem: Record.load(path).content() for path in sorted((out / "cells").glob("*.json"))}
    if kind == "finetune":
        from safetensors.torch import load_file

        tensors = load_file(out / "tuned" / "adapter_model.safetensors")
        return {name: sha256_bytes(value.contiguous().numpy().tobytes()) for name, value in tensors.items()}
    found = [read_tensors(path) for path in sorted(out.glob("seed-*.safetensors"))]
    # As text, because NaN differs from itself.
    return [
        repr([{name: tensor.tolist() for name, tensor in sorted(tensors.items())}, header["body"]["table"]])
        for tensors, header in found
    ]


class Runs:
    """Starts runs and says how they end. Use as a context manager."""

    def __enter__(self) -> Runs:
        program = [sys.executable, __file__]
        self.server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        while self._said() != "ready":
            pass
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()

    def start(self, kind: str, *folders: Path) -> list[int]:
        """Start one run a folder, together; their process ids. The next start is after `ended`."""
        assert self.server.stdin is not None
        self.server.stdin.write((json.dumps([kind, *map(str, folders)]) + "\n").encode())
        self.server.stdin.flush()
        return list(json.loads(self._said()))

    def ended(self, within: float | None = None) -> list[int] | None:
        """The exit codes, or None if one is still at work after so many seconds."""
        ready, _, _ = select.select([self.server.stdout], [], [], within)
        return list(json.loads(self._said())) if ready else None

    def whole(self, kind: str, folder: Path) -> Any:
        """An undisturbed run, and what comes of it."""
        folder.parent.mkdir()
        self.start(kind, folder)
        assert self.ended() == [0], said(folder)
        return outcome(kind, folder)

    def _said(self) -> str:
        assert self.server.stdout is not None
        line = self.server.stdout.readline().decode()
        assert line, "the process that starts the runs is gone"
        return line.strip()


def said(folder: Path) -> str:
    """What the runs in a folder wrote to their standard streams."""
    return (folder.parent / "log").read_text()


def workers(process: int) -> list[int]:
    """Process ids of the Ray workers of a run."""
    import psutil

    try:
        below = psutil.Process(process).children(recursive=True)
        return [
            child.pid
            for child in below
            if "".join(child.cmdline()[:1]).startswith(("ray::IDLE", "ray::RemoteWorker"))
        ]
    except psutil.Error:
        return []


def strays(folder: Path) -> list[Path]:
    """Temporary files that writers left."""
    return [path for path in folder.rglob("*") if re.fullmatch(r"\..*\.tmp", path.name)]


def serve() -> None:
    """For every line of standard input, fork its runs, write their process ids, then their exit codes."""
    import peft  # noqa: F401
    import transformers.trainer  # noqa: F401

    import tamperlens.cli
    import tamperlens.studies.audit
    import tamperlens.studies.compare  # noqa: F401
    from tamperlens import finetune, grid, trajectory  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        kind, *folders = json.loads(line)
        processes = []
        for folder in folders:
            processes.append(os.fork())
            if not processes[-1]:
                _become(kind, Path(folder))
        print(json.dumps(processes), flush=True)
        ends = [os.waitpid(process, 0)[1] for process in processes]
        print(json.dumps([os.waitstatus_to_exitcode(end) for end in ends]), flush=True)


def _become(kind: str, out: Path) -> None:
    """The forked process: as a program of its own, whose standard streams are the log beside its folder."""
    log = os.open(out.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    code = 1
    try:
        work(kind, out)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
