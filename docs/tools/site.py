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

import griffe
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
SKIPPED = {"__init__", "style"}
ALSO = dict.fromkeys(("judges", "rates", "directions"), ("refusal",)) | {
    "models": ("tamperlens",), "prompts": ("tamperlens",), "tamperlens": ("tamperlens",)
}  # fmt: skip
"""Other names that a subpackage's objects go by."""
# Modules shown one by one, where a subpackage's contents page does not list names.
MODULES = {
    "tamperlens": [
        "tamperlens.models.loading",
        "tamperlens.studies.audit",
        "tamperlens.studies.compare",
        "tamperlens.studies.monitor",
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
    places: dict[str, str] = {}
    package = _package()
    for name, (module, words) in ROOMS.items():
        pages, where = _reference(name, module, words, package)
        made |= pages
        places |= where
    for script in sorted((ROOT / "docs" / "tutorials").glob("[0-9]_*.py")):
        made[f"tutorials/{script.stem}.md"] = tutorial(script)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "tools", "__pycache__"))
    pages = (path.relative_to(out).as_posix() for path in out.rglob("*.md"))
    written = {path: (out / path).read_text(encoding="utf-8") for path in pages}
    made = {path: text if path.startswith("reference/") else linked(text, path, places)
            for path, text in {**written, **made}.items()}  # fmt: skip
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


def _package() -> dict[str, griffe.Object | griffe.Alias]:
    """Both packages as griffe reads them, without importing anything."""
    loader = griffe.GriffeLoader(search_paths=[str(ROOT / "src"), str(ROOT / "hooks")])
    found = {name: loader.load(name) for name in ("tamperlens_hooks", "tamperlens")}
    loader.resolve_aliases(external=False)
    return found


def _signature(name: str, one: Any) -> str:
    """How a function is called, as a block of code; nothing for classes."""
    if not one.is_function:
        return ""
    words, starred = [], False
    for given in one.parameters:
        kind = given.kind.value
        if kind == "keyword-only" and not starred:
            words.append("*")
        star = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        starred = starred or star == "*" or kind == "keyword-only"
        plain = star or given.default is None
        words.append(f"{star}{given.name}" if plain else f"{given.name}={given.default}")
    return f"```python\n{name}({', '.join(words)})\n```\n\n"


def _public(module: str, package: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What a module offers, with the first sentence of each docstring and how it is called."""
    top, _, rest = module.partition(".")
    room = package[top][rest] if rest else package[top]
    own = (name for name, one in room.members.items() if not one.is_alias and not name.startswith("_"))
    found = {}
    for name in map(str, room.exports or own):
        try:
            one = room.members[name]
            if one.is_module or one.is_attribute:
                continue
            text = one.docstring.value if one.docstring else ""
            if one.is_alias and not one.canonical_path.startswith(f"{top}."):
                continue  # explained where it is defined
        except (KeyError, griffe.AliasResolutionError):
            continue
        sentence = re.split(r"(?<=[.;:])\s", " ".join(text.split("\n\n")[0].split()))[0]
        found[name] = (sentence, _signature(name, one))
    return found


def _reference(
    name: str, module: str, words: str, package: dict[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Pages of a subpackage, one an object that it offers, and where each name is explained."""
    title = module.replace("tamperlens_hooks", "tamperlens.hooks")
    shown = MODULES.get(name) or [module]
    if name == "plots":
        folder = _source(module).parent  # type: ignore[union-attr]
        shown = [f"{module}.{p.stem}" for p in sorted(folder.glob("*.py")) if p.stem not in SKIPPED]
    rows, pages, places = [], {}, {}
    for one in shown:
        if _source(one) is None:
            continue
        for thing, (text, call) in _public(one, package).items():
            path = f"reference/{name}/{thing}.md"
            rows.append(f"| [`{thing}`]({name}/{thing}.md) | {_cell(text)} |")
            pages[path] = f"# {title}.{thing}\n\n[{title}](../{name}.md)\n\n{call}::: {one}.{thing}\n"
            for room in {title.removeprefix("tamperlens."), one.rpartition(".")[2], *ALSO.get(name, ())}:
                places.setdefault(f"{room}.{thing}", path)
            if thing[0].isupper():  # classes also go by their own name
                places.setdefault(thing, path)
    pages[f"reference/{name}.md"] = "\n".join(
        [f"# {title}", "", words, "", "| name | |", "| --- | --- |", *rows, ""]
    )
    return pages, places


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_CODE = re.compile(
    r"(?<![\[`])`(?:tamperlens\.(?=\w+\.)|finetune\.(?=attacks\.))?([a-z]\w*\.\w+|[A-Z]\w+)[^`]*`(?!`|\])"
)


def linked(text: str, page: str, places: dict[str, str]) -> str:
    """A page whose code names, such as `rates.evaluate`, lead to the reference; blocks stay as they are."""
    up = "../" * page.count("/")

    def link(found: re.Match[str]) -> str:
        where = places.get(found[1])
        return f"[{found[0]}]({up}{where})" if where else found[0]

    parts = re.split(r"(^```.*?^```|^#.*?$|\[[^\]]*\]\([^)]*\))", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if i % 2 else _CODE.sub(link, part) for i, part in enumerate(parts))


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
