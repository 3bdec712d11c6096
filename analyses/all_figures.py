"""Every published figure and table on the organism, one script after the other, with a manifest.

    python analyses/all_figures.py --out results
    python analyses/all_figures.py --only neuron_drift refusal_direction
    python analyses/all_figures.py --quick                 # small settings: shows that everything runs

A script that finished with the same arguments and version is left alone. `OUT/manifest.json` says for each
script its arguments, exit status, wall and processor seconds, peak memory, and the hash of every file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tamperlens

HERE = Path(__file__).resolve().parent
# Script: its arguments when quick. Without --quick every script runs as it stands.
SCRIPTS: dict[str, list[str]] = {
    "neuron_drift": ["--seeds", "2", "--steps", "6", "--n-score", "16"],
    "alignment_degradation": ["--seeds", "1", "--n-test", "8"],
    "refusal_direction": ["--seeds", "1", "--n-test", "8", "--steps", "4", "--n-find", "48"],
    "safety_heads": ["--n-test", "8", "--draws", "2", "--most", "2"],
    "neuron_overlap": ["--seeds", "1", "--n-score", "16", "--steps", "4", "--splits", "1"],
    "alignment_tax": ["--seeds", "1", "--n-test", "6", "--n-questions", "4", "--n-heads", "4", "--steps", "3",
                      "--refusals", "5", "--harmless", "0"],
    "frozen_finetuning": ["--seeds", "1", "--n-score", "16", "--n-test", "8", "--shares", "0.3",
                          "--examples", "10"],
    "safety_neurons": ["--n", "16", "--draws", "1", "--limit", "6", "--questions", "2", "--grid", "0.03,0.03",
                       "--max-new-tokens", "8"],
    "refusal_robustness": ["--models", "organism:tiny", "--seeds", "1", "--steps", "1", "2", "--n-test", "6"],
    "alignment_trajectory": ["--seeds", "1", "--steps", "4", "--n", "8", "--n-score", "16"],
    "planted_truth": ["--quick"],
    "defences": ["--model", "organism:tiny", "--only", "safety-aware merge", "--seeds", "1",
                 "--prompts", "2", "4", "--keep", "1", "1"],
    "data_screening": ["--seeds", "1"],
    "data_cost": ["--model", "organism:tiny", "--seeds", "1", "--top-seeds", "2", "--sets", "4"],
    "data_influence": ["--halves", "6"],
}  # fmt: skip


def audit(out: Path, quick: bool) -> list[str]:
    """The audit's command."""
    small = ["--limit", "8", "--steps", "3", "--max-new-tokens", "8"] if quick else []
    return [sys.executable, "-m", "tamperlens.cli", "audit", "organism", "--out", str(out), "--quiet", *small,
            "--resume"]  # fmt: skip


def written(folder: Path) -> dict[str, str]:
    """Hash of every file under a folder, but for the shared plotly library."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("plotly.min.js", "log.txt", ".lock")
    }


def ran(command: list[str], log: Path) -> dict[str, Any]:
    """Run a command; exit status, and what it took: seconds, processor seconds (all threads), peak MiB."""
    environment = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        started = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return {
        "status": started.returncode, "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss * unit / 2**20),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="*", choices=["audit", *SCRIPTS], default=["audit", *SCRIPTS])
    parser.add_argument("--quick", action="store_true", help="small settings, for trying it out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    failed = []
    for name in given.only:
        out = given.out / name
        command = audit(out, given.quick)
        if name != "audit":
            extra = SCRIPTS[name] if given.quick else []
            command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *extra]
        shown = [Path(command[0]).name, *(part.replace(f"{HERE.parent}/", "") for part in command[1:])]
        entry = manifest.get(name, {})
        same = entry.get("command") == shown and entry.get("version") == tamperlens.__version__
        if same and entry.get("status") == 0:
            print(f"{name}: finished before", flush=True)
            continue
        out.mkdir(parents=True, exist_ok=True)
        took = ran(command, out / "log.txt")
        manifest[name] = {
            "command": shown, "version": tamperlens.__version__, **took, "files": written(out)
        }  # fmt: skip
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        temporary.replace(path)
        words = "done" if took["status"] == 0 else f"FAILED, see {out / 'log.txt'}"
        print(f"{name}: {words} in {took['seconds']} s ({took['cpu_seconds']} s of processor)", flush=True)
        failed += [name] if took["status"] else []
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
