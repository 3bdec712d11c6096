"""`tamperlens grid run|status|table` in the order in which people use them, and the lines for bad input."""

from __future__ import annotations

import pandas as pd
import pytest

DECLARATION = """
models = ["{model}"]
ranks = [{ranks}]
steps = [1, 2]
data_sizes = [4]
[training]
batch_size = 2
[evaluation]
limit = 3
suite_limit = 1
suites = ["facts"]
max_new_tokens = 4
"""


@pytest.fixture
def sweep(model_folder, tmp_path):
    """A declaration with the given ranks, as a file."""

    def make(ranks="2"):
        path = tmp_path / f"sweep-{ranks.replace(', ', '-')}.toml"
        path.write_text(DECLARATION.format(model=model_folder, ranks=ranks))
        return path

    return make


def test_run_status_and_table(invoke, sweep, tmp_path):
    out = tmp_path / "grid"
    assert "2 done, 0 failed, 0 skipped, 0 pending" in invoke("grid", "run", sweep(), "-o", out, "-q").stdout
    written = pd.read_csv(out / "results_grid.csv")
    (out / "results_grid.csv").unlink()
    result = invoke("grid", "table", out)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_csv(out / "results_grid.csv"), written)
    head, *rows = result.stdout.splitlines()
    assert head.split() == [
        "model", "attack", "defence", "rank", "steps", "seed", "rrr", "ce", "rd", "over_refusal_harmless",
        "capability", "flops",
    ]  # fmt: skip
    assert [row.split()[4] for row in rows] == ["0", "1", "2"]  # before the attack, then the cells
    assert "2 done" in invoke("grid", "status", out).stdout


def test_two_grids_in_one_folder(invoke, refused, sweep, tmp_path):
    out = tmp_path / "grid"
    # A folder belongs to a grid once something was made in it.
    first = invoke("grid", "run", sweep(), "-o", out, "-q")
    assert first.exit_code == 0 and "2 done" in first.output, first.output
    said = refused("grid", "run", sweep("2, 3"), "-o", out, "-q")
    assert "another run: ranks is" in said


def test_cells_that_cannot_fit_are_skipped_and_named(invoke, sweep, tmp_path):
    """The limit lies between the two cells: the small one is made, the large one named."""
    from tamperlens import finetune, load
    from tamperlens.grid.memory import GB, model_bytes, trained_weights

    declaration = sweep("2, 4000")
    model = load(declaration.read_text().split('"')[1])
    weights = trained_weights(model, finetune.LoraConfig(rank=2000))
    limit = (model_bytes(model) + 16 * weights) / GB
    out = tmp_path / "grid"
    said = invoke("grid", "run", declaration, "-o", out, "-q", "--memory", limit).stdout
    assert "2 done, 0 failed, 2 skipped" in said
    named = [line for line in said.splitlines() if line.startswith("skipped: ")]
    assert len(named) == 2 and all("4000" in line and "cannot fit: about" in line for line in named)


def test_a_folder_that_is_no_grid(refused, tmp_path):
    (tmp_path / "x").mkdir()
    for verb in ("status", "table", "plot"):
        assert "is not a run folder" in refused("grid", verb, tmp_path / "x")


def test_a_ray_address_that_does_not_answer(refused, sweep, tmp_path):
    pytest.importorskip("ray")
    said = refused("grid", "run", sweep(), "-o", tmp_path / "g", "-q", "--ray", "127.0.0.1:9")
    assert "no Ray cluster answers at '127.0.0.1:9'" in said and "--ray local" in said


def test_a_changed_model_under_an_old_folder(invoke, refused, sweep, model_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    declaration = tmp_path / "copy.toml"
    declaration.write_text(DECLARATION.format(model=copy, ranks="2"))
    invoke("grid", "run", declaration, "-o", tmp_path / "g", "-q")
    weights = load_file(copy / "model.safetensors")
    name = next(key for key in weights if key.endswith("down_proj.weight"))
    save_file({**weights, name: weights[name] * 1.01}, copy / "model.safetensors", {"format": "pt"})
    said = refused("grid", "run", declaration, "-o", tmp_path / "g", "-q")
    assert "the input changed" in said and str(copy) in said


def test_a_failed_cell_is_a_failed_command_and_a_sweep_says_its_size(invoke, sweep, tmp_path):
    path = sweep()
    result = invoke("grid", "run", path, "-o", tmp_path / "good")
    assert result.exit_code == 0
    assert "2 cells in 1 training runs on 1 model" in result.stderr and "about" in result.stderr
    path.write_text(path.read_text().replace('models = ["', 'models = ["no/such/model", "'))
    result = invoke("grid", "run", path, "-o", tmp_path / "bad", "-q")
    assert result.exit_code == 1 and "2 done, 2 failed" in result.stdout


def test_no_remedy_that_the_command_does_not_have():
    from tamperlens.cli import as_options

    said = "fill or delete them, or leave such rows out (skip_unusable=True)"
    assert as_options(said, {"skip_unusable"}).endswith("leave such rows out (--skip-unusable)")
    assert as_options(said, {"out"}) == "fill or delete them, or leave such rows out"
    assert as_options("add resume=True to go on", {"resume"}) == "add --resume to go on"
    assert as_options("max_new_tokens=0 must be", {"max_new_tokens"}) == "--max-new-tokens 0 must be"
