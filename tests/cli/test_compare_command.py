"""The commands `compare`, `models` and those of the measures: thin, and their JSON is JSON."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, get_peft_model

import tamperlens
from tamperlens.models import save_adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    import copy

    base = tamperlens.load("organism:tiny")
    module = get_peft_model(
        copy.deepcopy(base.module), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    return save_adapter(base.with_module(module.eval()), tmp_path_factory.mktemp("adapter") / "mine")


COMMANDS = ("compare", "models", "rates", "direction", "heads", "neurons", "drift", "trajectory", "monitor",
            "compute")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_usual_options(invoke, command):
    found = invoke(command, "--help")
    assert found.exit_code == 0
    assert f"tamperlens {command}" in found.stdout and "--json" in found.stdout
    if command != "models":
        assert "--out" in found.stdout and "--quick" in found.stdout


def test_compute_has_three_ratios_with_sources(invoke):
    found = invoke("compute", "1e20", "--parameters", "1e9", "--tokens", "1e12", "--json")
    rows = {row["threshold"]: row for row in json.loads(found.stdout)["rows"]}
    assert rows["general purpose"]["ratio"] == pytest.approx(1e-3)
    assert rows["systemic risk"]["ratio"] == pytest.approx(1e-5)
    assert rows["modifier"]["ratio"] == pytest.approx(1e20 / (6 * 1e9 * 1e12 / 3))
    assert all(row["source"] for row in rows.values())


def test_compute_without_the_original_leaves_the_third_open(invoke):
    rows = json.loads(invoke("compute", "1e20", "--json").stdout)["rows"]
    assert rows[2]["ratio"] is None


def test_bad_input_is_one_line(refused):
    assert "one of the two" in refused("compute")
    assert "no folder" in refused("trajectory", "organism:tiny", "nowhere")
    assert "tokens" in refused("compute", "1e20", "--parameters", "1e9")


def test_models_lists_what_is_at_hand(invoke, adapter):
    rows = json.loads(invoke("models", str(adapter.parent), "--json").stdout)
    kinds = {row["kind"] for row in rows}
    assert "organism" in kinds and "adapter (LORA)" in kinds
    assert "organism" in [row["name"] for row in rows]


def test_drift_of_an_adapter(invoke, adapter, tmp_path):
    found = invoke("drift", "organism:tiny", adapter, "--json", "--out", tmp_path / "drift.json")
    rows = json.loads(found.stdout)["rows"]
    assert all(row["relative_l2"] > 0 and row["effective_rank"] <= 2 + 1e-6 for row in rows)
    assert (tmp_path / "drift.json").is_file()


def test_neurons_keep_their_set(invoke, tmp_path):
    from tamperlens.base.masks import WeightMask

    found = invoke("neurons", "organism:tiny", "--quick", "--json", "--out", tmp_path / "set.safetensors")
    assert json.loads(found.stdout)["rows"]
    assert WeightMask.load(tmp_path / "set.safetensors").count > 0


@pytest.mark.slow
def test_compare_writes_its_folder_and_exports(invoke, adapter, tmp_path):
    out = tmp_path / "run"
    found = invoke(
        "compare", "organism:tiny", adapter, "--quick", "--limit", "8", "--max-new-tokens", "8", "--out", out,
        "--json", "--card", "--inspect", "--parquet", "--quiet",
    )  # fmt: skip
    first = json.loads(found.stdout)[0]
    assert {row["verdict"] for row in first["verdicts"]} <= {
        "changed",
        "no change",
        "inconclusive",
        "not compared",
    }
    for name in ("report.html", "table.md", "table.tex", "measures.csv", "measures.parquet", "card.md",
                 "inspect/tuned-1.json"):  # fmt: skip
        assert (out / name).is_file(), name
