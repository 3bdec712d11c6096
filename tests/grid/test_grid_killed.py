"""Killed at random moments and run again: nothing lost, nothing done twice, every cell the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from grid_killing import attempts, cells, contents, kill_after, stamps, start

from tamperlens import grid

LADDER = """
models = ["organism:tiny", "organism:small", "organism"]
ranks = [4]
steps = [1, 2, 4, 6]
data_sizes = [6]
seeds = [0, 1]
[training]
batch_size = 2
[evaluation]
limit = 6
suite_limit = 2
max_new_tokens = 16
"""


@pytest.mark.slow
def test_ladder_killed_three_times_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    declaration = tmp_path / "ladder.toml"
    declaration.write_text(LADDER)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(declaration, whole).wait() == 0
    rng = random.Random(0)
    before: dict[str, int] = {}
    for done in sorted(rng.sample(range(1, 22), 3)):
        there = kill_after(start(declaration, broken), broken, done, rng.random())
        assert there < 24  # killed in the middle
        now = stamps(broken)
        assert before.items() <= now.items()  # nothing lost, nothing written again
        before = now
    assert start(declaration, broken).wait() == 0
    assert before.items() <= stamps(broken).items()
    assert len(cells(whole)) == len(cells(broken)) == 24
    assert contents(whole) == contents(broken)
    assert attempts(broken) == {1}
    assert not (broken / "training").exists()
    one, two = grid.status(whole).table, grid.status(broken).table
    assert one.to_csv() == two.to_csv()


@pytest.mark.slow
def test_two_workers_on_ray_with_one_killed_equal_the_serial_run(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    import os
    import signal
    import threading
    import time

    from tamperlens.grid import cluster

    declaration = tmp_path / "ladder.toml"
    declaration.write_text(LADDER.replace('"organism:small", "organism"]', '"organism:small"]'))
    serial, spread = tmp_path / "serial", tmp_path / "spread"
    assert start(declaration, serial).wait() == 0
    killed: list[int] = []
    hired: list[object] = []
    hire = cluster.Pool.hire

    def watched(self: cluster.Pool, session: object) -> object:
        hired.append(hire(self, session))
        return hired[-1]

    def kill_one() -> None:
        while len(cells(spread)) < 2:
            time.sleep(0.05)
        for worker in hired[1:]:  # the first one only measured the models before the attack
            try:
                process = int(ray.get(worker.process.remote(), timeout=300))
            except ray.exceptions.RayError:
                continue
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        cluster.Pool.hire = watched  # type: ignore[method-assign]
        thread = threading.Thread(target=kill_one, daemon=True)
        thread.start()
        result = grid.run(declaration, spread, ray="local", workers=2)
        thread.join(timeout=10)
    finally:
        cluster.Pool.hire = hire  # type: ignore[method-assign]
        ray.shutdown()
    assert killed
    assert result.counts["done"] == 16
    assert contents(serial) == contents(spread)
