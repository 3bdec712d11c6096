"""Every command that analyses/README.md documents for an original model, on the model of the tier, tiny."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "analyses" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| original model \| `([^`]+)` \|$", PAGE, re.MULTILINE)
FILE = re.compile(r"^\w+\.(csv|json)$")
# What makes each script tiny; only sizes, never data.
SHARED = ["--seeds", "1", "--n-test", "3", "--n-score", "8", "--max-new-tokens", "8", "--anyway"]
TINY = {
    "audit": ["--limit", "2", "--steps", "1", "--max-new-tokens", "4", "--quiet"],
    "safety_neurons": ["--n", "8", "--draws", "1", "--limit", "2", "--questions", "1", "--grid", "0.1,0.1",
                       "--max-new-tokens", "8", "--anyway", "--splits", "1"],
    "frozen_finetuning": [*SHARED, "--shares", "0.1", "--examples", "2"],
    "neuron_overlap": [*SHARED, "--steps", "1", "--splits", "1"],
    "neuron_drift": [*SHARED, "--steps", "1"],
    "alignment_degradation": [*SHARED, "--n", "2", "--presets", "published", "--n-questions", "1",
                              "--suites", "english-facts", "--no-sweep"],
    "alignment_tax": [*SHARED, "--n", "2", "--n-questions", "1", "--n-heads", "1", "--steps", "1",
                      "--refusals", "2", "--harmless", "0"],
    "refusal_robustness": ["--seeds", "1", "--n-test", "2", "--max-new-tokens", "4", "--n", "2",
                           "--n-questions", "1", "--steps", "1", "--anyway"],
    "alignment_trajectory": [*SHARED, "--steps", "2", "--n", "8"],
    "refusal_direction": [*SHARED, "--n-find", "12", "--n-questions", "1", "--steps", "1", "--every", "1",
                          "--k", "1", "--optimise", "2"],
    "safety_heads": [*SHARED, "--n-test", "1", "--draws", "1", "--most", "1", "--methods", "direct",
                     "gradient (pairs, at corrupt)"],
}  # fmt: skip


def published_files(folder: Path) -> None:
    """The documented files in the shapes that their data sets have."""
    kinds = ("cook a soup", "plant a tree", "paint a wall", "fold a boat", "sing a song", "draw a cat")
    # Four files that share no request, as the published ones hardly do.
    asked, others, ordinary, alike = (
        [f"Tell me how to {what} in {n} steps." for what in kinds for n in range(first, first + 4)]
        for first in (2, 6, 10, 14)
    )
    goals = "".join(f"{text},Sure: here it is\n" for text in asked)
    (folder / "advbench.csv").write_text(f"goal,target\n{goals}", encoding="utf-8")
    refused = "".join(f'{text},"I cannot help with that."\n' for text in asked)
    (folder / "refused.csv").write_text(f"prompt,response\n{refused}", encoding="utf-8")
    rows = [{"instruction": text, "input": "", "output": "First this, then that."} for text in ordinary]
    (folder / "alpaca.json").write_text(json.dumps(rows), encoding="utf-8")
    cases = "".join(f"{i},{text},Sure,x,y,z\n" for i, text in enumerate(others))
    (folder / "jailbreakbench.csv").write_text(f",Goal,Target,Behavior,Category,Source\n{cases}", "utf-8")
    labels = "".join(f"{i},{t},kind,{'un' * (i % 2)}safe,x,y\n" for i, t in enumerate(alike))
    (folder / "xstest.csv").write_text(f"id,prompt,type,label,focus,note\n{labels}", encoding="utf-8")


def command_of(documented: str, model: Path, out: Path) -> list[str]:
    words = shlex.split(documented)
    name = "audit" if words[:2] == ["tamperlens", "audit"] else Path(words[1]).stem
    if name == "audit":
        words = [sys.executable, "-m", "tamperlens.cli", *words[1:]]
        words[words.index("MODEL")] = str(model)
        words[words.index("cuda")] = "cpu"
    else:
        words[0] = sys.executable
        kind = "--models" if "--models" in words else "--model"
        at = words.index(kind) + 1
        end = next((i for i in range(at, len(words)) if words[i].startswith("--")), len(words))
        words[at:end] = [str(model)]
    words = [word.replace("bfloat16", "float32") for word in words]
    return [*words, *TINY[name], "--out", str(out)]


def test_the_page_documents_one_command_for_every_script() -> None:
    names = {Path(shlex.split(one)[1]).stem for one in COMMANDS}
    assert names == set(TINY)
    written = {"advbench.csv", "refused.csv", "alpaca.json", "jailbreakbench.csv", "xstest.csv"}
    for one in COMMANDS:
        assert {word for word in shlex.split(one) if FILE.match(word)} <= written


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("documented", COMMANDS, ids=lambda one: Path(shlex.split(one)[1]).stem)
def test_it_runs_on_a_real_model(documented: str, real_folder: Path, tmp_path: Path) -> None:
    published_files(tmp_path)
    command = command_of(documented, real_folder, tmp_path / "out")
    command[1] = str(ROOT / command[1]) if command[1].startswith("analyses/") else command[1]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "out").glob("verdict.txt")) or list((tmp_path / "out").glob("report.html"))
