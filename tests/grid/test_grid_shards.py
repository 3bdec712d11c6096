"""Several processes on one folder: each makes its part, together they make what one would."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from grid_killing import start

from tamperlens import grid
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.runs import RunFolder
from tamperlens.grid.running import Shard


def test_every_training_run_is_in_one_part(declared):
    declaration = declared(seeds=(0, 1, 2), ranks=(1, 2))
    for n in (1, 2, 4, 9):
        parts = [Shard(i, n).cells(declaration) for i in range(1, n + 1)]
        assert set().union(*parts) == set(declaration.cells())
        assert sum(map(len, parts)) == len(declaration.cells())
        for group in declaration.groups():  # one run serves all budgets: it is not torn apart
            assert sum(bool(part & set(group)) for part in parts) == 1


@pytest.mark.parametrize("words", ["", "0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "1.0/2"])
def test_what_is_no_shard_is_refused_before_anything_is_written(declared, tmp_path, words):
    with pytest.raises(InputError, match="must be i/n"):
        grid.run(declared(), tmp_path / "g", shard=words)
    assert not (tmp_path / "g").exists()


def test_a_shard_and_ray_are_refused(declared, tmp_path):
    with pytest.raises(InputError, match="give one of the two"):
        grid.run(declared(), tmp_path / "g", shard="1/2", ray="local")


def test_two_processes_at_once_make_what_one_makes(declared, tmp_path):
    declaration = declared(seeds=(0, 1), steps=(1, 2))
    whole = grid.run(declaration, tmp_path / "whole")
    toml = tmp_path / "g.toml"
    toml.write_text(
        f'models = ["{declaration.models[0]}"]\nranks = [2]\nsteps = [1, 2]\n'
        "data_sizes = [4]\nseeds = [0, 1]\n"
        "[training]\nbatch_size = 2\n[evaluation]\nlimit = 3\nsuite_limit = 1\n"
        'suites = ["facts"]\nmax_new_tokens = 4\n',
        encoding="utf-8",
    )
    started = [start(toml, tmp_path / "g", "--shard", f"{i}/2") for i in (1, 2)]
    assert [process.wait(timeout=500) for process in started] == [0, 0], (tmp_path / "g.log").read_text()
    assert grid.status(tmp_path / "g").counts == {"done": 4, "failed": 0, "skipped": 0, "pending": 0}
    assert RunFolder.read(tmp_path / "g").finished
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "g" / "results_grid.csv"), pd.read_csv(tmp_path / "whole" / "results_grid.csv")
    )
    assert whole.counts["done"] == 4


def test_parts_one_after_the_other_and_a_part_again(declared, tmp_path: Path):
    declaration = declared(seeds=(0, 1), steps=(1,))
    first = grid.run(declaration, tmp_path / "g", shard="1/2")
    assert first.counts == {"done": 1, "failed": 0, "skipped": 0, "pending": 1}
    assert not RunFolder.read(tmp_path / "g").finished
    again = grid.run(declaration, tmp_path / "g", shard="1/2")
    assert again.table.equals(first.table)
    with pytest.raises(RunFolderError, match="another run"):
        grid.run(declared(seeds=(0, 1), steps=(2,)), tmp_path / "g", shard="2/2")
    assert grid.run(declaration, tmp_path / "g", shard="2/2").counts["done"] == 2
    assert RunFolder.read(tmp_path / "g").finished


def test_a_shard_waits_for_its_turn_and_says_so_when_it_is_too_long(declared, tmp_path, monkeypatch):
    monkeypatch.setattr("tamperlens.grid.running.WAIT", 0.2)
    from tamperlens.grid.folder import open_folder

    declaration = declared(steps=(1,))
    with open_folder(declaration, tmp_path / "g"), pytest.raises(RunFolderError, match="in use"):
        grid.run(declaration, tmp_path / "g", shard="1/1")
