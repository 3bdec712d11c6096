"""The version is the git tag's; a clone without tags and a copy without git build all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def built(folder: Path) -> str:
    """The version that the build backend gives."""
    command = [sys.executable, "-m", "hatchling", "version"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What a version is made of: the project's file and what it names."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_tag_is_the_version_and_later_commits_come_after_it(copy: Path) -> None:
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "one")
    untagged = Version(built(copy))
    assert untagged.is_devrelease
    git(copy, "tag", "v3.4.5")
    assert built(copy) == "3.4.5"
    git(copy, "commit", "-qm", "two", "--allow-empty")
    later = Version(built(copy))
    assert Version("3.4.5") < later < Version("3.4.6")
    assert later.local is not None
    assert later.local.startswith("g")  # names the commit


def test_a_copy_without_git_has_the_fallback(copy: Path) -> None:
    assert built(copy) == "0.1.dev0"


def test_the_command_says_what_is_installed() -> None:
    from importlib.metadata import version

    command = Path(sys.executable).with_name("tamperlens")
    done = subprocess.run([str(command), "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["tamperlens", version("tamperlens")]
