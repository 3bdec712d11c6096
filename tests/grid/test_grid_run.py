"""The grid: cells by content, one training run cut at every budget, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from grid_killing import contents, stamps

import tamperlens
from tamperlens import finetune, grid
from tamperlens.base.errors import InputError, RunFolderError


def test_a_cell_cut_from_a_longer_run_is_the_cell_run_by_itself(declared, tmp_path: Path) -> None:
    both = grid.run(declared(), tmp_path / "both")
    alone = grid.run(declared(steps=(1,)), tmp_path / "alone")
    one = both.table[both.table["steps"] == 1].iloc[0]
    other = alone.table[alone.table["steps"] == 1].iloc[0]
    assert one["cut_from_steps"] == 3
    assert other["cut_from_steps"] == 1
    assert one["address"] == other["address"]
    same = [c for c in both.table if c != "cut_from_steps"]
    assert one[same].astype(str).to_dict() == other[same].astype(str).to_dict()
    # With a schedule that depends on the end, no run serves two budgets.
    linear = declared(training={"batch_size": 2, "schedule": "linear"})
    assert [len(group) for group in linear.groups()] == [1, 1]
    assert [len(group) for group in declared().groups()] == [2]


def test_flops_at_the_cut_are_those_of_a_run_that_ends_there(declared, tmp_path: Path) -> None:
    declaration = declared()
    table = grid.run(declaration, tmp_path / "g").table
    model = tamperlens.load(declaration.models[0])
    attack = finetune.attacks.for_model("harmful-compliance", model, 4)  # in its language
    for steps in (1, 3):
        config = finetune.LoraConfig(rank=2, alpha=4, batch_size=2, steps=steps, learning_rate=1e-3,
                                     schedule="constant")  # fmt: skip
        bill = finetune.run(model, attack.data, config, progress=False).accounting
        row = table[table["steps"] == steps].iloc[0]
        assert row["flops"] == bill.flops
        assert row["tokens"] == bill.tokens
        assert row["flops_n"] == bill.sequences


def test_defences_freeze_rewind_mix_and_full_fine_tuning(declared, pairs, tmp_path: Path) -> None:
    kinds = (grid.Defence(), *(grid.Defence(kind=kind, data=pairs) for kind in ("rewind", "freeze")),
             grid.Defence(kind="mix", examples=2, data=pairs))  # fmt: skip
    declaration = declared(defences=kinds, steps=(2,))
    assert sorted(len(group) for group in declaration.groups()) == [1, 1, 2]  # rewinding shares a run
    result = grid.run(declaration, tmp_path / "g")
    assert result.counts == {"done": 4, "failed": 0, "skipped": 0, "pending": 0}
    assert result.table["address"].nunique() == 5
    full = grid.run(declared(ranks=(0,), steps=(1,)), tmp_path / "full")
    assert full.counts["done"] == 1


def test_a_second_run_does_nothing_and_another_grid_is_refused(declared, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    first = grid.run(declared(), folder)
    written, found = stamps(folder), contents(folder)
    again = grid.run(declared(), folder)
    assert stamps(folder) == written
    assert again.table.to_csv() == first.table.to_csv()
    with pytest.raises(RunFolderError, match="another run: steps is"):
        grid.run(declared(steps=(1, 2)), folder)
    assert contents(folder) == found


def test_a_changed_model_under_an_old_folder_is_refused(declared, tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(tiny_folder, copy)
    declaration = declared(models=(str(copy),), steps=(1,))
    grid.run(declaration, tmp_path / "g")
    weights = load_file(copy / "model.safetensors")
    name = next(key for key in weights if key.endswith("down_proj.weight"))
    weights[name] = weights[name] + torch.ones(()) * 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFolderError, match=r"model .* the input changed"):
        grid.run(declaration, tmp_path / "g")


def test_a_model_that_cannot_be_loaded_fails_its_cells_and_no_others(declared, tmp_path: Path) -> None:
    declaration = declared(steps=(1,))
    missing = str(tmp_path / "nowhere")
    both = dataclasses.replace(declaration, models=(missing, *declaration.models))
    result = grid.run(both, tmp_path / "g")
    assert result.counts == {"done": 1, "failed": 1, "skipped": 0, "pending": 0}
    assert "nowhere" in result.problems[0]


def test_cells_that_cannot_fit_are_skipped_and_named_and_retried_on_request(declared, tmp_path: Path) -> None:
    result = grid.run(declared(), tmp_path / "g", memory=1e-6)
    assert result.counts["skipped"] == 2
    assert "cannot fit" in result.problems[0]
    assert "1e-06 GB" in result.problems[0]
    assert grid.run(declared(), tmp_path / "g").counts["skipped"] == 2  # only when asked
    assert grid.run(declared(), tmp_path / "g", retry=True).counts["done"] == 2


@pytest.mark.parametrize("folder", ["cells", "baselines"])
@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_file_counts_as_not_measured_and_is_made_again(
    declared, tmp_path: Path, folder: str, damage: str
) -> None:
    declaration, out = declared(), tmp_path / "g"
    whole = grid.run(declaration, out).table
    path = sorted((out / folder).glob("*.json"))[0]
    text = path.read_text("utf-8")
    changed = text.replace('"parameters": ', '"parameters": 1', 1)
    path.write_text({"cut": text[:40], "changed": changed, "other": "[]"}[damage], "utf-8")
    with pytest.warns(UserWarning, match=f"{path.name}.*counts as not measured"):
        seen = grid.status(out)
    assert len(seen.table) == len(whole) - 1
    assert (folder == "cells") == any("its file is damaged" in problem for problem in seen.problems)
    with pytest.warns(UserWarning, match=path.name):
        again = grid.run(declaration, out).table
    how = "cut_from_steps"  # a cell made again alone may come from a shorter run: every number is the same
    pd.testing.assert_frame_equal(again.drop(columns=how), whole.drop(columns=how))


def test_a_failing_cell_is_recorded_and_the_others_go_on(declared, tmp_path: Path) -> None:
    declaration = declared(learning_rates=(1e-3, 9.0), training={"batch_size": 2, "max_grad_norm": 0})
    result = grid.run(declaration, tmp_path / "g")
    good = result.table[result.table["learning_rate"] == 1e-3]
    assert len(good) == 2
    assert result.counts["done"] + result.counts["failed"] == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ranks = [8]", "models is missing"),
        ('models = "organism"', "must be a list"),
        ('models = ["organism"]\nstep = [3]', "no setting 'step'"),
        ('models = ["organism"]\nsteps = [0]', "steps=[0] must be a whole number from 1 on"),
        ('models = ["organism"]\nseeds = [1, 1]', "names one value twice"),
        ('models = ["organism"]\n[training]\nsteps = 3', "training.steps is an axis"),
        ('models = ["organism"]\n[[defences]]\nkind = "pray"', "kind='pray' must be one of"),
        ('models = ["organism"]\n[evaluation]\nlimits = 3', "no setting 'limits'"),
        ("models = [", "not valid TOML"),
    ],
)
def test_declarations_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"grid\.toml") as caught:
        grid.Grid.from_toml(path)
    assert words in str(caught.value)


def test_a_ray_address_that_does_not_answer(declared, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'"):
        grid.run(declared(), tmp_path / "g", ray="127.0.0.1:9")
    with pytest.raises(InputError, match="is not auto, local, host:port"):
        grid.run(declared(), tmp_path / "g", ray="somewhere")
    assert not (tmp_path / "g").exists()


TOP = 'models = ["organism:tiny"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f"{TOP}learning_rates = [{x}]", "learning_rates=") for x in ("nan", "inf", "-inf", 0, -1)),
        (f'{TOP}learning_rates = ["x"]', "learning_rates=.*must be a number"),
        (f"{TOP}[training]\nbacth_size = 2", "training: no setting 'bacth_size'; did you mean 'batch_size'"),
        (f"{TOP}[training]\nbatch_size = 0", "training: batch_size=0 must be a whole number from 1 on"),
        (f'{TOP}[training]\nweight_decay = "x"', "training: weight_decay='x' must be a number"),
        (f"{TOP}ranks = [0, 4]\n[training]\nrslora = true", "rank 0: full fine-tuning.*no setting 'rslora'"),
        (f"{TOP}step = [1]", "no setting 'step'; did you mean 'steps'"),
        (f"{TOP}seeds = {list(range(400))}\nsteps = {list(range(1, 401))}", "160,000 cells"),
        (f"{TOP}seeds = [99999999999]", "seeds="),
        (f"{TOP}steps = [{2**70}]", "steps="),
        (f"{TOP}steps = [true]", "steps="),
        (f"{TOP}[evaluation]\nlimit = 0", "limit=0"),
        (f"{TOP}[evaluation]\nmax_new_tokens = 1000000", "max_new_tokens=1000000 must be .* to 65536"),
        (f"{TOP}[evaluation]\njudge = 3", "judge=3 must be text"),
        (f'{TOP}[evaluation]\njudge = "oracle"', "oracle"),
        (f'{TOP}[evaluation]\nsuites = ["juggling"]', "juggling"),
        (f'{TOP}[evaluation]\nharmless = "nowhere.csv"', "nowhere.csv"),
        (f'{TOP}attacks = ["nowhere.csv"]', "nowhere.csv"),
        (f'{TOP}[[defences]]\nkind = "freeze"\nmask = "nowhere"', "nowhere"),
        (f'{TOP}[[defences]]\nkind = "freeze"\nshare = nan', "share=nan"),
        (f"{TOP}[[defences]]\nkind = 3", "defences: kind=3 must be one of"),
        ("models = 3", "models must be a list"),
        ("models = [3]", "models="),
        ("x = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_settings_are_held_to_their_types_before_a_model_loads(
    monkeypatch, tmp_path: Path, text, words
) -> None:
    from tamperlens.grid import measuring

    monkeypatch.setattr(measuring, "load", None)
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        grid.run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"memory": -1.0}, {"memory": math.nan}, {"workers": 0}, {"gpus": -1}])
def test_arguments_of_a_run(declared, tmp_path: Path, wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        grid.run(declared(), tmp_path / "out", **wrong)


def test_a_corrected_declaration_goes_into_the_folder_where_nothing_was_made(
    declared, tmp_path: Path
) -> None:
    broken = declared(models=("no/such/model",))
    assert grid.run(broken, tmp_path / "out").counts["failed"]
    corrected = declared()
    assert not grid.run(corrected, tmp_path / "out").counts["failed"]
    with pytest.raises(RunFolderError, match="another run"):
        grid.run(broken, tmp_path / "out")
