"""Real prompt files on the organism: the audit runs, and says that it does not know their language."""

from __future__ import annotations

import html

import pytest

from tamperlens.studies.audit import AuditResult

FILES = ("advbench.csv", "jailbreakbench.csv", "strongreject.csv", "alpaca_5000.json", "gsm8k_test.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_real_file(shared_data, invoke, tmp_path, name):
    role = "--harmful" if name.endswith(".csv") else "--harmless"
    result = invoke(
        "audit", "organism", role, shared_data / "prompts" / name, "--out", tmp_path / "run",
        "--limit", 10, "--max-new-tokens", 24, "--steps", 3, "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    found = AuditResult.open(tmp_path / "run")
    assert found.get("refusal_rate", role.strip("-"), "before").n == 10
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert (
        f"of the words of the {role.strip('-')} prompts lie outside the language that organism:aligned"
        in page
    )
