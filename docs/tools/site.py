"""Lay the site's pages out for the generator: those in docs/, and those made from other files.

    python docs/tools/site.py build/docs

Made are the tutorials, the reference, and copies of what lives at the root. A tutorial's page holds what it
printed and drew where `build/tutorials` has an execution of this very version (`make docs` runs them first);
otherwise it holds the code alone and says so.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from run_tutorial import cells, digest, needs_real

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ROOT / "build" / "tutorials"
NOT_RUN = (
    '!!! note "Not executed in this build"\n\n    `make docs` executes every tutorial and shows its output.\n'
)
# Subpackage: what it is imported as, and what it is for.
ROOMS = {
    "tamperlens": ("tamperlens", "The door: what `import tamperlens` gives."),
    "judges": ("tamperlens.judges", "What an answer is."),
    "rates": ("tamperlens.rates", "Rates over prompts and models, with n and intervals."),
    "directions": ("tamperlens.directions", "The refusal direction, its choice, nulls and distances."),
    "neurons": ("tamperlens.neurons", "Scores of weights, sets, overlaps, ranks, units."),
    "drift": ("tamperlens.drift", "How far groups of weights move; H1, H2 or inconclusive."),
    "heads": ("tamperlens.heads", "Scores of attention heads, ablation curves, patterns."),
    "capability": ("tamperlens.capability", "What a model can still do."),
    "finetune": ("tamperlens.finetune", "LoRA and full fine-tuning, attacks, freezing, compute."),
    "prompts": ("tamperlens.prompts", "Prompt sets, files of them, chat rendering."),
    "models": ("tamperlens.models", "Loading, generation, fingerprints."),
    "hooks": ("tamperlens_hooks", "Read, differentiate and edit live modules (`tamperlens.hooks`)."),
    "stats": ("tamperlens.base.stats", "Intervals, paired tests, corrections (`tamperlens.stats`)."),
    "plots": ("tamperlens.plots", "Figures in the house style."),
    "report": ("tamperlens.report", "The self-contained page."),
    "grid": ("tamperlens.grid", "Many studies: models × attacks × seeds, here or on Ray."),
    "base": ("tamperlens.base", "What every subpackage speaks."),
}
# Modules shown one by one, where a subpackage's contents page does not list names.
MODULES = {
    "tamperlens": [
        "tamperlens.models.loading",
        "tamperlens.studies.audit",
        "tamperlens.studies.brittleness",
        "tamperlens.studies.spillover",
        "tamperlens.studies.arena",
        "tamperlens.studies.trajectory",
        "tamperlens.studies.screening",
        "tamperlens.studies.influence",
        "tamperlens.studies.planted",
    ],
    "finetune": ["tamperlens.finetune", "tamperlens.finetune.attacks", "tamperlens.finetune.defences"],
    "stats": ["tamperlens.base.stats", "tamperlens.base.power"],
    "plots": [],
    "report": ["tamperlens.report.blocks", "tamperlens.report.page"],
    "base": [
        "tamperlens.base.results",
        "tamperlens.base.protocols",
        "tamperlens.base.masks",
        "tamperlens.base.runs",
        "tamperlens.base.registry",
        "tamperlens.base.errors",
    ],
}


def stage(out: Path) -> None:
    """Write every page and asset of the site under a folder."""
    made = {
        "contributing.md": _from_root("CONTRIBUTING.md"),
        "changelog.md": _from_root("CHANGELOG.md"),
        "analyses.md": _from_root("analyses/README.md"),
        "reference/index.md": _reference_index(),
    }
    for name, (module, words) in ROOMS.items():
        made[f"reference/{name}.md"] = _reference(name, module, words)
    for script in sorted((ROOT / "docs" / "tutorials").glob("[0-9]_*.py")):
        made[f"tutorials/{script.stem}.md"] = tutorial(script)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "tools", "__pycache__"))
    for path, text in made.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")


def _from_root(name: str) -> str:
    """A page of the repository, with its links turned to where the site has them."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    for path, page in (("CONTRIBUTING.md", "contributing.md"), ("analyses/README.md", "analyses.md")):
        text = text.replace(f"]({path})", f"]({page})").replace(f"](../{path})", f"]({page})")
    return text


def _source(module: str) -> Path | None:
    for root in ("src", "hooks"):
        path = ROOT / root / Path(*module.split("."))
        for found in (path.with_suffix(".py"), path / "__init__.py"):
            if found.is_file():
                return found
    return None


def _reference_index() -> str:
    rows = [f"| [{name}]({name}.md) | {words} |" for name, (_, words) in ROOMS.items()]
    return "\n".join(["# Reference", "", "| subpackage | what for |", "| --- | --- |", *rows, ""])


def _reference(name: str, module: str, words: str) -> str:
    shown = MODULES.get(name)
    if shown is None:
        shown = [module]
    if name == "plots":
        folder = _source(module).parent  # type: ignore[union-attr]
        skip = {"__init__", "style"}
        shown = [f"{module}.{p.stem}" for p in sorted(folder.glob("*.py")) if p.stem not in skip]
    lines = [f"# {module.replace('tamperlens_hooks', 'tamperlens.hooks')}", "", words, ""]
    for one in shown:
        if _source(one) is not None:
            lines += [f"::: {one}", ""]
    return "\n".join(lines)


def tutorial(script: Path) -> str:
    """The page of a tutorial in percent format, with its outputs where they are at hand."""
    folder = EXECUTED / script.stem
    page = folder / "page.json"
    if page.is_file() and (data := json.loads(page.read_text(encoding="utf-8")))["sha256"] == digest(script):
        shown, foot = data["cells"], f"*Executed on {_where(script)} in {data['seconds']:.0f} s.*"
    else:
        shown = [{"kind": kind, "content": content} for kind, content in cells(script.read_text("utf-8"))]
        foot = NOT_RUN
    parts = []
    for cell in shown:
        if cell["kind"] == "markdown":
            parts.append(cell["content"])
            continue
        parts.append(f"```python\n{cell['content']}\n```")
        parts += [_output(one, folder) for one in cell.get("outputs", [])]
    return "\n\n".join(["---\nhide: [toc]\n---", *parts, "---", foot, ""])


def _where(script: Path) -> str:
    return "SmolLM2-135M-Instruct" if needs_real(script) else "the organism"


def _output(one: dict[str, Any], folder: Path) -> str:
    if "svg" in one:
        svg = re.sub(r"\s*\n\s*", " ", (folder / one["svg"]).read_text(encoding="utf-8"))
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(one["alt"])}"', 1)
        return f"<figure>{svg}<figcaption>{html.escape(one['caption'])}</figcaption></figure>"
    if "html" in one:
        return f'<div class="output">{one["html"]}</div>'
    return f'<div class="output"><pre><code>{html.escape(one["text"])}</code></pre></div>'


if __name__ == "__main__":
    stage(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / "docs")
