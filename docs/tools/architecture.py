"""The architecture page, from the import rules in pyproject.toml and the imports that the code really has.

python docs/tools/architecture.py            # write docs/architecture.md
python docs/tools/architecture.py --check    # exit 1 if it is not current
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "tamperlens"
HOOKS = "hooks/tamperlens_hooks"
HEAD = """# Architecture

*Made by `python docs/tools/architecture.py` from the import rules in `pyproject.toml` and from the code; a test holds
it current.*

Two source roots, both plain packages. `hooks/tamperlens_hooks` touches live modules and knows nothing of prompts, files
or statistics; it never imports `tamperlens`. `src/tamperlens` is the science. Every import points to a lower layer, and subpackages
that share a layer and a line below with `|` never import each other, so each measure can be read, tested, replaced
and cited alone.
"""
FOOT = """
## Where to change what

| to change | look at | its tests |
| --- | --- | --- |
| a formula | the subpackage's file named after it; its docstring holds the source | `tests/SUBPACKAGE` |
| a judge, an attack | one registry each: `judges/registry.py`, `finetune/attacks.py` | `tests/judges`, `tests/finetune` |
| a model family | `hooks/tamperlens_hooks/anatomy.py` | `tests/hooks` |
| a figure | `plots/`, one file per kind; palette and type in `plots/style.py` | `tests/plots` |
| an experiment that combines measures | `studies/` | `tests/studies` |
| a published table | `analyses/`, public names only | `tests/analyses` |
"""


def floors() -> list[list[str]]:
    """Layers of the import contract, top first; rooms on one line do not import each other."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in rules["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            return [re.findall(r"[\w.]+", layer) for layer in contract["layers"]]
    raise SystemExit("pyproject.toml has no contract of type layers")


def files_of(room: str) -> list[Path]:
    """Source files of a room."""
    path = SOURCE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def exists(room: str) -> bool:
    """Whether this version has the room."""
    return (SOURCE / room / "__init__.py").is_file() or (SOURCE / f"{room}.py").is_file()


def job_of(path: Path) -> str:
    """What a room's docstring says that it is for: its first sentence, without the floor."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    text = re.sub(r"^Floor \d(, \w+)?: ", "", " ".join(text.split()))
    first = re.split(r"(?<=\.)\s", text)[0].rstrip(".:")
    first = first.replace("|", "\\|")
    return first if first.startswith("tamperlens") else first[:1].upper() + first[1:]


def imports_of(room: str) -> list[str]:
    """Rooms that a room imports, sorted; "hooks" for the hook layer."""
    found = set()
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "tamperlens":
                    names = [f"tamperlens.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "tamperlens_hooks":
                    found.add("hooks")
                elif parts[0] == "tamperlens" and len(parts) > 1 and exists(parts[1]):
                    found.add(parts[1])
    return sorted(found - {room})


def page() -> str:
    """The page's text."""
    layers = [[room for room in layer if exists(room)] for layer in floors()]
    layers = [layer for layer in layers if layer]
    lines = [HEAD, "```text"]
    lines += [f"{len(layers) - i:>2}  {'  |  '.join(layer)}" for i, layer in enumerate(layers)]
    lines += [
        f" 0  {HOOKS}",
        "```",
        "",
        "| layer | subpackage | its one job | imports |",
        "| --- | --- | --- | --- |",
    ]
    for i, layer in enumerate(layers):
        for room in layer:
            path = SOURCE / room / "__init__.py"
            path = path if path.is_file() else SOURCE / f"{room}.py"
            uses = ", ".join(f"`{name}`" for name in imports_of(room))
            lines.append(f"| {len(layers) - i} | `{room}` | {job_of(path)} | {uses} |")
    lines.append(f"| 0 | `{HOOKS}` | {job_of(ROOT / HOOKS / '__init__.py')} | |")
    return "\n".join(lines) + "\n" + FOOT


def main() -> None:
    """Command line."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{PAGE.name} is not current; run: python docs/tools/architecture.py")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
