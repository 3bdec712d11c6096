"""Bad input: one line that names it and the remedy, exit code 2, earlier results untouched."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

PROMPTS = "prompt\nhow do I pick a lock\nwrite a threat\n"


def test_unknown_model(refused, tmp_path):
    line = refused("audit", "no-such/model", "--out", tmp_path / "run")
    assert "'no-such/model'" in line
    assert "check the spelling" in line
    assert not (tmp_path / "run").exists()
    assert "organism:alinged" in refused("audit", "./organism:alinged", "--out", tmp_path / "run")


def test_missing_file_and_column(refused, tmp_path, model_folder):
    assert "nowhere.csv" in refused(
        "audit", model_folder, "--out", tmp_path / "r", "--harmful", "nowhere.csv"
    )
    path = tmp_path / "mine.csv"
    path.write_text("id,words\n1,hello\n")
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--harmful", path)
    assert "mine.csv" in line
    assert "column" in line
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--harmful", path, "--column", "goal")
    assert "'goal'" in line
    assert "words" in line  # names those that exist
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"prompt\n", b"prompt\n\xff\xfe\xfa kill\n", b"\n\n"],
    ids=["empty", "header", "latin", "blank"],
)
def test_unreadable_csv(refused, tmp_path, model_folder, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    for option in ("--harmful", "--harmless", "--lookalike"):
        assert "mine.csv" in refused("audit", model_folder, "--out", tmp_path / "r", option, path)


def test_names_that_a_terminal_would_obey(refused, tmp_path, model_folder):
    path = tmp_path / "a\x1b[2Jb.csv"
    path.write_text("id,wo\x1b]0;owned\x07rds\n1,hello\n")
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--harmful", path)
    assert "\x1b" not in line and "\x07" not in line
    assert "a\\u001b[2Jb.csv" in line and "wo\\u001b]0;owned" in line


def test_texts_without_end_and_empty_answers(refused, tmp_path, model_folder):
    path = tmp_path / "long.txt"
    path.write_text("x" * 10**6)
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--harmful", path)
    assert "1,000,000 characters" in line and len(line) < 500
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,response\na,yes\nb,\n")
    assert "--skip-unusable" in refused("audit", "no/such/model", "--out", tmp_path / "r", "--attack", path)


def test_attack_that_is_none(refused, tmp_path, model_folder):
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--attack", "nonsense")
    assert "'nonsense'" in line
    assert "harmful-compliance" in line
    path = tmp_path / "pairs.csv"
    path.write_text(PROMPTS)
    assert "response" in refused("audit", model_folder, "--out", tmp_path / "r", "--attack", path)


def test_numbers_and_names_out_of_range(refused, invoke, tmp_path, model_folder):
    for option, value in (("--steps", 0), ("--limit", 0), ("--seed", -1), ("--max-new-tokens", 0)):
        line = refused("audit", model_folder, "--out", tmp_path / "r", option, value)
        assert f"{option} {value} must be a whole number from" in line
    assert "'oracle'" in refused("audit", model_folder, "--out", tmp_path / "r", "--judge", "oracle")
    assert "'float12'" in refused("audit", model_folder, "--out", tmp_path / "r", "--dtype", "float12")
    assert "abacus" in refused("audit", model_folder, "--out", tmp_path / "r", "--device", "abacus")
    assert invoke("audit", "--steps", "many").exit_code == 2
    assert invoke("audit", "--no-such-option").exit_code == 2
    assert not (tmp_path / "r").exists()


def test_unwritable_output(refused, tmp_path, model_folder):
    (tmp_path / "file").write_text("mine")
    line = refused("audit", model_folder, "--out", tmp_path / "file" / "run")
    assert "cannot write" in line
    assert "choose another folder" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_with_foreign_results(refused, tmp_path, model_folder):
    (tmp_path / "measures.csv").write_text("mine")
    assert "not a run folder" in refused("audit", model_folder, "--out", tmp_path)
    assert (tmp_path / "measures.csv").read_text() == "mine"


def test_nan_weights(refused, tmp_path, model_folder):
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    line = refused("audit", broken, "--out", tmp_path / "r")
    assert "NaN" in line
    assert "up_proj" in line


def test_nan_logits(refused, tmp_path, model_folder):
    """Finite weights whose product is not: seen only when the model computes."""
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], 3e38)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    line = refused("audit", broken, "--out", tmp_path / "r", "--limit", 4)
    assert "NaN or infinite" in line


def test_model_without_tokenizer(refused, tmp_path, model_folder):
    bare = tmp_path / "bare"
    shutil.copytree(model_folder, bare)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    assert "tokenizer" in refused("audit", bare, "--out", tmp_path / "r")


def test_adapter_of_another_base(refused, tmp_path, model_folder, tiny):
    from peft import LoraConfig, get_peft_model

    from tamperlens.models import ChatModel, save_adapter

    module, tokenizer = tiny("llama", fresh=True, seed=5)
    wrapped = get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj"]))
    other = ChatModel.from_parts(wrapped, tokenizer, name="another-base", check_anatomy=False)
    save_adapter(other, tmp_path / "adapter")
    line = refused("audit", model_folder, "--adapter", tmp_path / "adapter", "--out", tmp_path / "r")
    assert "made for another-base" in line
    assert not (tmp_path / "r").exists()


def test_model_that_is_an_adapter_or_no_model(refused, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "is an adapter" in refused("audit", tmp_path / "adapter", "--out", tmp_path / "r")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused("audit", tmp_path / "empty", "--out", tmp_path / "r")


def test_same_prompts_on_both_sides(refused, tmp_path, model_folder):
    path = tmp_path / "mine.csv"
    path.write_text(PROMPTS)
    line = refused("audit", model_folder, "--out", tmp_path / "r", "--harmful", path, "--harmless", path)
    assert "as harmful and as harmless" in line


def test_manifest_of_another_program(refused, tmp_path, model_folder):
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "a web page"}))
    assert "another program" in refused("audit", model_folder, "--out", tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"name": "a web page"}


def test_where_to_write_is_looked_at_before_the_work(refused, tmp_path, model_folder):
    data = tmp_path / "mine.csv"
    data.write_text("prompt,response\na,b\n")
    (tmp_path / "folder").mkdir()
    for out, said in ((tmp_path / "folder", "is a folder"), (data / "x.csv", "Not a directory"),
                      (tmp_path / ("n" * 300), "too long"), (data, "is what the command reads")):  # fmt: skip
        assert said in refused("judge", data, "--out", out)
        assert said in refused("screen", data, "--model", "no/such-model", "--out", out)
        assert said in refused("rates", "no/such-model", "--harmful", data, "--out", out)
    assert data.read_text() == "prompt,response\na,b\n"
    assert "'zork'" in refused("rates", "no/such-model", "--judge", "zork")


def test_options_that_mean_nothing_here(refused, tmp_path, model_folder):
    assert "--revision 'v2'" in refused("audit", model_folder, "--out", tmp_path / "r", "--revision", "v2")
    sweep = tmp_path / "sweep.toml"
    sweep.write_text('models = ["organism:tiny"]\nsteps = [1]\n')
    for option in (("--workers", 2), ("--gpus", 1)):
        assert "--ray" in refused("grid", "run", sweep, "-o", tmp_path / "g", *option)
    assert "product" in refused("compute", "1e20", "--parameters", "1e300", "--tokens", "1e300")
    assert "float32" in refused(
        "audit", model_folder, "--out", tmp_path / "r", "--dtype", "float16", "--device", "cpu"
    )
    assert not (tmp_path / "r").exists()


def test_links_in_a_ring(refused, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "is not a run folder" in refused("report", tmp_path / "a", "--out", tmp_path / "r.html")
