"""The command explains itself, at once."""

from __future__ import annotations

import subprocess
import sys


def test_help_has_examples(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    for words in ("Examples", "tamperlens audit", "--harmful", "--attack", "--resume", "report.html"):
        assert words in result.output
    result = invoke("audit", "--help")
    assert result.exit_code == 0
    for option in (
        "--out",
        "--harmful",
        "--harmless",
        "--attack",
        "--steps",
        "--seed",
        "--device",
        "--dtype",
        "--resume",
    ):
        assert option in result.output


def test_version_and_no_arguments(invoke):
    assert invoke("--version").output.startswith("tamperlens ")
    assert "Examples" in invoke().output
    assert invoke("nonsense").exit_code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom tamperlens.cli import app\n"
        "try:\n    app(['audit', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'plotly', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
