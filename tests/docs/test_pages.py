"""Documentation: what it says exists, what links it has lead somewhere, generated pages are current."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_blocks import ROOT, blocks, pages

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
MADE = {"tutorials": "docs/tutorials", "reference": "docs"}  # pages that the build makes from other files
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("[0-9]_*.py"))


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def target(page: Path, link: str) -> Path | None:
    """The file that a link leads to; None for a page that the build makes and whose source exists."""
    path = (page.parent / link).resolve()
    if path.exists():
        return path
    inside = path.relative_to(ROOT)
    if inside.parts[:2] == ("docs", "tutorials") and path.with_suffix(".py").exists():
        return None
    from_root = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md",
                 "analyses.md": "analyses/README.md"}  # fmt: skip
    if inside.parts[0] == "docs" and inside.name in from_root:
        return ROOT / from_root[inside.name]
    if inside.parts[:2] == ("docs", "reference"):
        return None
    raise AssertionError(f"{page.relative_to(ROOT)}: {link} leads nowhere")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for found in LINK.findall(text):
        link = next(filter(None, found))
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        where = target(page, name) if name else page
        if anchor and where is not None:
            assert anchor in anchors(where.read_text(encoding="utf-8")), f"{page.name}: no heading {link}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_parse_and_blocks_have_a_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"python", "bash", "text"}, f"{page.name}:{block.line}: {block.language}"
        if block.language == "python":
            ast.parse(block.text)


def test_scripts_and_goals_that_pages_name_exist() -> None:
    for page in pages():
        for block in blocks(page):
            for script in re.findall(r"python (\S+\.py)", block.text if block.language == "bash" else ""):
                assert (ROOT / script).is_file(), f"{page.name}:{block.line}: {script}"
        for script in re.findall(r"`(?:python )?(analyses/\w+\.py)", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in pages():
        for goal in re.findall(r"\bmake ([a-z-]+)(?=`|\s+#|\n)", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{goal}:", makefile, re.MULTILINE), f"{page.name}: make {goal}"


def named(text: str) -> list[list[str]]:
    """Words of every `tamperlens` and analysis command in blocks and in running text, run or not."""
    inline = re.findall(r"`((?:tamperlens|python analyses/\w+\.py) [^`\n]+)`", text)
    fenced = "\n".join(re.findall(r"^ *```bash\n(.*?)```", text, re.MULTILINE | re.DOTALL))
    lines = [line.strip() for line in fenced.replace("\\\n", " ").splitlines()]
    starts = ("tamperlens ", "python analyses/")
    return [shlex.split(line, comments=True) for line in [*inline, *lines] if line.startswith(starts)]


def known(command: list[str]) -> set[str]:
    """Options that a command has."""
    if command[0] == "python":
        scripts = [ROOT / command[1], ROOT / "analyses" / "_shared.py"]
        return {name for path in scripts for name in re.findall(r'"(--[a-z-]+)"', path.read_text())}
    from tamperlens import cli

    found: Any = typer.main.get_command(cli.app)
    for word in command[1:]:
        if word not in getattr(found, "commands", {}):
            break
        found = found.commands[word]
    return {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_pages_name_exist(page: Path) -> None:
    for command in named(page.read_text(encoding="utf-8")):
        given = {word.split("=")[0] for word in command if word.startswith("--")} - {"--help"}
        assert given <= known(command), f"{page.name}: {' '.join(command)}"


def test_the_architecture_page_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "tools" / "architecture.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_citation_is_of_the_tag() -> None:
    """The tag is the version; the citation is the one file that repeats it."""
    cited = re.search(r"^version: (\d+\.\d+\.\d+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    tags = subprocess.run(
        ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD"], capture_output=True, text=True
    ).stdout.split()
    released = [tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    assert released in ([], [f"v{cited[1]}"])


def test_every_analysis_is_in_the_table_and_among_the_figures() -> None:
    table = (ROOT / "analyses" / "README.md").read_text(encoding="utf-8")
    figures = (ROOT / "analyses" / "all_figures.py").read_text(encoding="utf-8")
    for script in (ROOT / "analyses").glob("*.py"):
        if script.stem.startswith("_") or script.stem in ("all_figures", "organism_card", "safety_tuned"):
            continue
        assert f"`{script.name}`" in table, script.name
        assert f'"{script.stem}"' in figures, script.name


def test_tutorials_split_into_cells() -> None:
    sys.path.insert(0, str(ROOT / "docs" / "tools"))
    try:
        from run_tutorial import cells
    finally:
        sys.path.pop(0)
    assert len(TUTORIALS) == 8
    for script in TUTORIALS:
        found = cells(script.read_text(encoding="utf-8"))
        assert found[0][0] == "markdown"
        assert found[0][1].startswith("# ")
        assert sum(kind == "code" for kind, _ in found) >= 3
    assert cells("# %% [markdown]\n# # A\n# b\n# %%\nx = 1\n") == [("markdown", "# A\nb"), ("code", "x = 1")]


def test_dead_links_of_a_built_site_are_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="here">A</h1><a href="sub/two.html#there">b</a><a href="#here">c</a><a href="https://a.b">d</a>'
    )
    (tmp_path / "sub" / "two.html").write_text('<h2 id="there">B</h2><a href="../index.html">back</a>')
    command = [sys.executable, str(ROOT / "docs" / "tools" / "links.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["3", "links,", "0", "dead"])
    (tmp_path / "sub" / "two.html").write_text('<a href="../index.html#gone">x</a><a href="three.html">y</a>')
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    for words in ("two.html#there: no such heading", "#gone: no such heading", "three.html: no such file"):
        assert words in done.stdout
