"""A disk that is full after so many bytes: one clear line, nothing half, and gone on with once there is room.

`TAMPERLENS_DISKS=40 pytest -m slow tests/cli/test_full_disk.py` tries up to forty sizes of each kind of run.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import manifest
from killed_programs import KINDS, Runs, outcome, said, strays

DISKS = int(os.environ.get("TAMPERLENS_DISKS", "5"))
PAGE = 4096


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, pages: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={pages * PAGE}", str(disk)], check=True)


def sizes(whole: Path) -> list[int]:
    """Pages after which the disk is full in the middle of each file, in the order of their writing."""
    files = sorted(
        (path for path in whole.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
    )
    found, total = [], 8  # the folders
    for path in files:
        pages = -(-path.stat().st_size // PAGE)
        found.append(total + pages // 2)
        total += pages + 1
    chosen = sorted(set(found))
    return (
        chosen
        if len(chosen) <= DISKS
        else [chosen[i * (len(chosen) - 1) // (DISKS - 1)] for i in range(DISKS)]
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_full_and_gone_on_with(kind: str, tmp_path: Path, runs: Runs, disk: Path) -> None:
    whole = tmp_path / "whole" / "run"
    expected = runs.whole(kind, whole)
    ends: Counter[str] = Counter()
    for pages in sizes(whole):
        out = disk / str(pages) / "run"
        link = tmp_path / str(pages)
        link.mkdir()
        resize(disk, pages)
        # The log lies on another disk, or it could say nothing.
        place = link / "run"
        place.symlink_to(out, target_is_directory=True)
        out.mkdir(parents=True)
        runs.start(kind, place)
        (code,) = runs.ended() or [None]
        text = said(place)
        if code == 0:
            ends["enough"] += 1
        else:
            assert "No space left on device" in text, text[-1500:]
            last = text.strip().splitlines()[-1]
            assert len(last) < 400, text[-1500:]
            if kind in ("audit", "grid", "compare"):
                assert code == 2 and "Traceback" not in text, text[-1500:]
            else:
                assert last.startswith("tamperlens.base.errors."), text[-1500:]
            stages = list(manifest(place)["stages"])
            ends[f"after {stages[-1] if stages else 'nothing'}"] += 1
        resize(disk, 1 << 16)
        runs.start(kind, place)
        assert runs.ended() == [0], said(place)[-1500:]
        assert outcome(kind, place) == expected, pages
        assert strays(place) == []
        subprocess.run(["rm", "-r", str(out)], check=True)
    print(f"{kind}: {dict(ends)}")
