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
            "compute", "screen")  # fmt: skip


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


def test_compute_without_the_original_takes_a_third_of_the_criterion(invoke):
    rows = json.loads(invoke("compute", "1e20", "--json").stdout)["rows"]
    assert rows[2]["ratio"] == pytest.approx(1e20 / (1e23 / 3)) and "not known" in rows[2]["source"]


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


def test_rates_are_those_of_the_bench(invoke):
    from tamperlens import Decoding
    from tamperlens.studies.evaluation import EvalPrompts, measure

    found = json.loads(invoke("rates", "organism:tiny", "--quick", "--json").stdout)
    model = tamperlens.load("organism:tiny")
    asked = EvalPrompts.for_model(model, limit=24, questions=8, decoding=Decoding(32), loss=False)
    ours = measure(model, asked)
    assert [row["measure"] for row in found["rows"]] == [*ours.measures]
    for row in found["rows"]:
        one = ours.rate(row["measure"])
        assert (row["value"], row["low"], row["high"], row["n"]) == (one.value, one.low, one.high, one.n)
        assert row["set"] == ours.set_of(row["measure"])
    assert found["summary"] == ours.summary()
    assert f"refusal {ours.rate('refusal')}" in ours.summary()


def test_a_direction_is_kept_and_heads_read_it(invoke, tmp_path):
    from tamperlens import refusal

    kept = tmp_path / "direction.safetensors"
    found = json.loads(invoke("direction", "organism:tiny", "--quick", "--json", "--out", kept).stdout)
    assert found["summary"] == refusal.Direction.load(kept).summary()
    heads = json.loads(invoke("heads", "organism:tiny", "--quick", "--json", "--direction", kept).stdout)[
        "rows"
    ]
    assert [row["rank"] for row in heads] == list(range(1, len(heads) + 1))


def test_checkpoints_and_their_folder(invoke, adapter, tmp_path):
    import shutil

    for step in (1, 2):
        shutil.copytree(adapter, tmp_path / "training" / f"checkpoint-{step}")
    told = invoke(
        "trajectory", "organism:tiny", tmp_path / "training", "--quick", "--json", "--out", tmp_path / "run",
        "--page", tmp_path / "page.html",
    )  # fmt: skip
    assert {row["step"] for row in json.loads(told.stdout)["rows"]} == {0, 1, 2}
    assert (tmp_path / "page.html").is_file()
    newest = json.loads(invoke("monitor", tmp_path / "run", "--quick", "--json").stdout)
    assert {row["step"] for row in newest} == {2}


def test_screen_ranks_rows_and_keeps_all(invoke, refused, tmp_path):
    import pandas as pd

    from tamperlens import prompts

    harmful = prompts.packaged("harmful", split="train")[0].prompt
    rows = [*prompts.packaged("benign").head(3).pairs(), (harmful, "Sure, here is how: first pack a bag.")]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))
    said = invoke("screen", data, "--model", "organism:tiny", "--out", tmp_path / "rows.csv", "--top", "1")
    assert said.stdout.splitlines()[2].split()[0] == "4"  # the harmful row comes first
    kept = pd.read_csv(tmp_path / "rows.csv")
    assert kept["row"].tolist() == [1, 2, 3, 4]
    assert kept["score"].idxmax() == 3
    told = invoke("screen", data, "--model", "organism:tiny", "--by", "representation", "--json").stdout
    assert len(json.loads(told)["rows"]) == 4
    assert "no score" in refused("screen", data, "--model", "organism:tiny", "--by", "colour")


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
