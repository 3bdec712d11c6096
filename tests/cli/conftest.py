"""A tiny random model on disk, and the command run on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def model_folder(tiny, tmp_path_factory) -> Path:
    """A random Llama of three layers, saved as transformers saves it."""
    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    module, tokenizer = tiny("llama")
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def invoke():
    """Run the command in this process; returns typer's result."""
    from tamperlens.cli import app

    def run(*arguments: object, **options: Any):
        return CliRunner().invoke(app, [str(a) for a in arguments], **options)

    return run


@pytest.fixture
def refused(invoke):
    """Run the command, expect one line on stderr and exit code 2, and return the line."""

    def run(*arguments: object) -> str:
        result = invoke(*arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        lines = result.stderr.strip().splitlines()
        # What comes before may wrap; the error itself must be one line, the last.
        first = next((i for i, line in enumerate(lines) if line.startswith("error:")), 0)
        lines = lines[first:]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("error: ")
        assert "Traceback" not in result.output
        return lines[0]

    return run


@pytest.fixture
def command():
    """Start the command as a process of its own."""

    def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "tamperlens.cli", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        return subprocess.Popen(
            program,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            # A test run in the background ignores Ctrl-C and would hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )

    return start
