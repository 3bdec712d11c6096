"""Wheel and sdist build, install and import outside the checkout, with everything that they must carry."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 12_000_000  # bytes of weights that the wheel may carry
PAIR = ("weights/base/model.safetensors", "weights/aligned/model.safetensors")
LIMIT_OF_ALL = 15_000_000  # with the smaller organisms and the planted ones


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_sdist_holds_both_roots(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for needed in (
        "src/tamperlens/__init__.py",
        "hooks/tamperlens_hooks/__init__.py",
        "constraints.txt",
        "Makefile",
    ):
        assert needed in names


def test_wheel_imports_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        sizes = {
            item.filename: item.file_size
            for item in archive.infolist()
            if item.filename.endswith(".safetensors")
        }
        archive.extractall(tmp_path)  # what pip does with a pure wheel, less the scripts
    assert "tamperlens/py.typed" in names
    assert "tamperlens_hooks/py.typed" in names
    pair = [size for name, size in sizes.items() if name.endswith(PAIR)]
    assert len(pair) == 2
    assert sum(pair) <= LIMIT
    assert sum(sizes.values()) <= LIMIT_OF_ALL
    code = (
        "import tamperlens, tamperlens_hooks, sys; from tamperlens import prompts;"
        f"assert tamperlens.__file__.startswith({str(tmp_path)!r}), tamperlens.__file__;"
        f"assert tamperlens_hooks.__file__.startswith({str(tmp_path)!r});"
        "assert len(prompts.packaged('harmful', split='test')) >= 200;"
        "model = tamperlens.load('organism');"
        "print(model.generate(['What is 12 + 13?'])[0])"
    )
    # -P and an empty working folder: neither the checkout nor its editable install may help.
    environment = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "25" in done.stdout
