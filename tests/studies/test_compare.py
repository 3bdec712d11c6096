"""`compare` on small models: shams do not change, attacks do, and what cannot be compared is named."""

from __future__ import annotations

import copy
import json
import shutil

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

import tamperlens
from tamperlens.base.errors import InputError, ModelLoadError, RunFolderError
from tamperlens.models import Decoding, save_adapter
from tamperlens.studies.compare import Comparison, Comparisons, difference_lens, weights
from tamperlens.studies.compare.bench import Bench, Settings
from tamperlens.studies.compare.export import inspect_log, model_card
from tamperlens.studies.compare.running import one_of
from tamperlens.studies.compare.tables import escape_latex, latex, markdown
from tamperlens.studies.opening import checkpoints, pair_with

SIZES = {"quick": True, "limit": 8, "questions": 1, "decoding": Decoding(8)}
NOTHING_GIVEN = {"harmful": None, "harmless": None, "lookalike": None}


@pytest.fixture(scope="module")
def base():
    return tamperlens.load("organism:tiny")


@pytest.fixture(scope="module")
def against(base):
    """`against(tuned)` -> Comparison with the base, which is measured once; one question a suite."""
    settings = Settings(quick=True, limit=8, questions=1, decoding=Decoding(8), draws=200)
    bench = Bench(base, settings, NOTHING_GIVEN)
    return lambda tuned: one_of(bench, tuned, "tuned", "auto", "auto", lambda line: None)


def lora(model, *, zero=False, seed=0, scale=1.0):
    torch.manual_seed(seed)
    wrapped = get_peft_model(
        copy.deepcopy(model.module), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=zero)
    )
    if not zero:
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.data.mul_(scale)
    return model.with_module(wrapped.eval(), name=f"{model.name} + lora")


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    """A finished run: the base itself, and the base with large random factors on it."""
    root = tmp_path_factory.mktemp("compare")
    save_adapter(lora(base, scale=8.0), root / "adapter")
    out = root / "run"
    found = tamperlens.compare(base, base, str(root / "adapter"), out=out, **SIZES)
    return out, found


def test_the_base_itself_has_not_changed(folder):
    same = folder[1][0]
    rates = {"refusal", "over-refusal", "degenerate answers", "capability"}  # few prompts cannot tell
    assert {verdict for name, verdict in same.verdicts.items() if name not in rates} == {"no change"}
    assert "changed" not in same.verdicts.values() and same.disagreements == []
    assert any("is the base" in note for note in same.notes)


def test_large_random_factors_are_seen_in_weights_and_in_what_is_said(folder):
    changed = folder[1][1]
    assert changed.verdicts["weights"] == "changed" and changed.verdicts["token KL"] == "changed"
    drift = changed["weights"].tables["drift"]
    assert (drift["relative_l2"] > 0).all() and drift["effective_rank"].max() <= 4 + 1e-6


def test_the_rank_of_a_merged_update_is_not_told_of_half_precision(base):
    """LoRA of rank 4, merged: at most 4 in float32; in bfloat16 the rank of the rounding, which is said."""
    whole = copy.deepcopy(lora(base, scale=0.02).module).merge_and_unload()
    merged = base.with_module(whole, name="merged")
    halves = [one.with_module(copy.deepcopy(one.module).bfloat16(), name=one.name) for one in (base, merged)]
    ranks, said = [], []
    for one, other in ((base, merged), halves):
        found = weights.drift(pair_with(one, other))
        ranks.append(found.tables["drift"]["effective_rank"].median())
        said.append(any("half precision" in text for text in found.words))
    assert ranks[0] < 4.01 < 6 < ranks[1] and said == [False, True]


def test_relative_drift_is_that_of_the_merged_weights(base, against):
    tuned = lora(base, scale=3.0)
    found = against(tuned).get("relative drift ‖ΔW‖/‖W‖", "q", "change").value
    merged = dict(copy.deepcopy(tuned.module).merge_and_unload().named_parameters())
    moved = size = 0.0
    for name, before in base.module.named_parameters():
        if "q_proj.weight" in name:
            moved += float((merged[name] - before).detach().double().square().sum())
            size += float(before.detach().double().square().sum())
    assert found == pytest.approx((moved / size) ** 0.5, rel=1e-5)


def test_run_folder_is_read_back_to_the_bit_and_resumed(folder, base):
    out, found = folder
    again = Comparisons.open(out)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    pd.testing.assert_frame_equal(again.answers(), found.answers())
    assert again.summary() == found.summary()
    with pytest.raises(RunFolderError, match="resume"):
        tamperlens.compare(base, base, str(out.parent / "adapter"), out=out, **SIZES)
    kept = tamperlens.compare(base, base, str(out.parent / "adapter"), out=out, resume=True, **SIZES)
    assert kept.summary() == found.summary()


@pytest.mark.slow
def test_a_killed_run_goes_on_without_asking_again(base, tmp_path, monkeypatch):
    from tamperlens.studies.compare import behaviour, bench

    calls = []
    whole = bench.ask
    monkeypatch.setattr(
        bench, "ask", lambda model, *a, **k: calls.append(model.name) or whole(model, *a, **k)
    )

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(behaviour, "distance", stop)
        with pytest.raises(KeyboardInterrupt):
            tamperlens.compare(base, lora(base), out=tmp_path / "run", **SIZES)
    assert len(calls) == 2
    tamperlens.compare(base, lora(base), out=tmp_path / "run", resume=True, **SIZES)
    assert len(calls) == 2
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    "sham", ["bfloat16", "float16", "merged and unmerged", "zero steps", "zero steps, merged"]
)
def test_shams_have_not_changed(base, against, sham):
    module = copy.deepcopy(base.module)
    if sham in ("bfloat16", "float16"):
        tuned = base.with_module(module.to(getattr(torch, sham)).float(), name=sham)
    elif sham == "merged and unmerged":
        wrapped = lora(base).module
        wrapped.merge_adapter()
        wrapped.unmerge_adapter()
        tuned = base.with_module(wrapped.unload(), name=sham)
    else:
        tuned = lora(base, zero=True)
        if sham.endswith("merged"):
            tuned = base.with_module(tuned.module.merge_and_unload(), name=sham)
    found = against(tuned)
    assert found.verdicts["weights"] == "no change", found["weights"].summary()
    assert "changed" not in found.verdicts.values(), found.summary()


def test_an_update_below_half_precision_is_still_a_change(base, against):
    module = copy.deepcopy(base.module)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "q_proj" in name:
                weight += 1e-5 * torch.randn_like(weight)
    found = against(base.with_module(module, name="nudged"))
    assert found.verdicts["weights"] == "changed"


def test_embedding_alone_is_seen(base, against):
    module = copy.deepcopy(base.module)
    with torch.no_grad():
        module.get_input_embeddings().weight[3] += 0.5
    found = against(base.with_module(module, name="embedding"))
    assert found.verdicts["weights"] == "changed"
    assert "embed" in " ".join(found["weights"].words)


def test_other_architecture_is_compared_by_what_it_says(against):
    found = against("organism:small")
    assert found.verdicts["weights"] == found.verdicts["direction"] == "not compared"
    assert "architectures differ" in found["weights"].effect.reason
    assert found.verdicts["refusal"] in ("changed", "no change", "inconclusive")
    assert any("architectures differ" in note for note in found.notes)


def test_other_vocabulary_is_named(against, chat):
    found = against(chat("llama"))
    assert found.verdicts["token KL"] == "not compared"
    assert "vocabularies differ" in found["token KL"].effect.reason
    assert found["refusal"].effect.n == 8


def test_a_folder_without_tokenizer_takes_the_bases(base, tmp_path):
    base.save_pretrained(tmp_path / "bare")
    for file in (tmp_path / "bare").glob("*token*"):
        file.unlink()
    pair = pair_with(base, str(tmp_path / "bare"))
    assert pair.tuned.tokenizer is base.tokenizer
    assert any("no tokenizer" in note for note in pair.notes)


def test_mixed_precision_is_said(base, tmp_path):
    pair = pair_with(base, base.with_module(copy.deepcopy(base.module).to(torch.bfloat16), name="half"))
    assert any("bfloat16" in note and "float32" in note for note in pair.notes)


def test_an_adapter_of_another_base_is_refused(base, tmp_path):
    other = tamperlens.load("organism:small")
    save_adapter(lora(other), tmp_path / "adapter")
    with pytest.raises(ModelLoadError, match=r"another base|was made for"):
        tamperlens.compare(base, str(tmp_path / "adapter"), **SIZES)


def steps(root, base, numbers, losses):
    for step in numbers:
        place = root / f"checkpoint-{step}"
        save_adapter(lora(base, seed=step), place)
        log = [{"step": s, "loss": losses[s], "learning_rate": 1e-3} for s in losses if s <= step]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": log}))


def test_checkpoints_are_ordered_by_step_and_two_runs_are_refused(base, tmp_path):
    steps(tmp_path, base, (5, 100, 20), {5: 2.0, 20: 1.5, 100: 1.0})
    assert [one.name for one in checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-20", "checkpoint-100"]
    steps(tmp_path, base, (200,), {5: 2.1, 200: 0.5})
    with pytest.raises(InputError, match=r"two runs.*checkpoint-200"):
        checkpoints(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-200")
    base.save_pretrained(tmp_path / "checkpoint-300")
    with pytest.raises(InputError, match="two runs"):
        checkpoints(tmp_path)


def test_the_decoding_is_a_whole_one_and_stands_in_the_manifest(base, folder):
    config = json.loads((folder[0] / "manifest.json").read_text())["config"]
    assert config["max_new_tokens"] == 8 and "decoding" not in config and "temperature" not in config
    how = Decoding(3, temperature=0.7, seed=5, system="Be short.")
    settings = Settings.of(quick=True, decoding=how)
    assert Bench(base, settings, NOTHING_GIVEN).asked.decoding == how
    assert settings.config()["decoding_seed"] == 5 and settings.config()["temperature"] == 0.7
    assert Settings.of(quick=True).decoding == Decoding(32) and Settings.of(quick=False).decoding == Decoding(
        64
    )
    with pytest.raises(InputError, match="max_new_tokens"):
        Settings.of(quick=True, decoding=Decoding(0))
    with (
        pytest.warns(DeprecationWarning, match=r"decoding=Decoding\("),
        pytest.raises(InputError, match="no row with text"),
    ):
        tamperlens.compare(base, base, max_new_tokens=8, harmful=[])


def test_tables_can_be_pasted(folder):
    items = folder[1].items
    text = markdown(items)
    assert text.count("\n| refusal |") == 2 and "| verdict |" in text
    lines = [line for line in latex(items).splitlines() if line.endswith(r"\\")]
    assert all(line.count(" & ") == 6 for line in lines)
    assert escape_latex("50 % of a_b & {c} \\") == r"50 \% of a\_b \& \{c\} \textbackslash{}"


def test_page_is_one_file_that_runs_no_script_but_its_own(folder):
    page = (folder[0] / "report.html").read_text()
    assert len(page.encode()) < 5_000_000
    assert "default-src 'none'" in page and "script-src 'sha256-" in page
    for outside in ('src="http', 'href="http', "url(http", "@import"):
        assert outside not in page


def test_model_text_cannot_leave_its_place_on_the_page(folder, tmp_path):
    from dataclasses import replace

    from tamperlens import report
    from tamperlens.base.files import read_json
    from tamperlens.studies.compare.page import compose

    bad = "</script><img src=x onerror=alert(1)>"
    one = folder[1][1]
    answers = one.answers.assign(tuned=bad, prompt=bad)
    page = report.render(
        compose(read_json(folder[0] / "manifest.json"), [replace(one, answers=answers, tuned=bad)], [])
    )
    assert bad not in page and "<img" not in page and page.count("</script>") == 2


def test_inspect_log_has_what_its_schema_asks_for(folder):
    one = folder[1][1]
    log = json.loads(json.dumps(inspect_log(one, "tuned"), allow_nan=False))
    assert log["version"] == 2 and log["status"] == "success"
    assert {"created", "task", "dataset", "model", "config"} <= set(log["eval"])
    assert len(log["samples"]) == len(one.answers) == log["results"]["total_samples"]
    sample = log["samples"][0]
    assert {"id", "epoch", "input", "target", "messages", "output", "scores"} <= set(sample)
    assert len({sample["id"] for sample in log["samples"]}) == len(log["samples"])
    refused = next(s for s in log["results"]["scores"] if s["name"] == "refused (harmful)")
    assert refused["metrics"]["mean"]["value"] == one.get("refusal rate", "harmful").value
    log_module = pytest.importorskip("inspect_ai.log")
    log_module.EvalLog.model_validate(log)


def test_model_card_is_read_by_the_hub_library(folder):
    from huggingface_hub import ModelCard

    text = model_card(folder[1].items[1:])
    results = ModelCard(text).data.eval_results
    assert {one.metric_type for one in results} >= {"refusal_rate", "accuracy"}
    assert "| instrument |" in text


def test_the_lens_reads_what_was_added(base):
    """A bias on a middle layer along a token's unembedding is read out as that token."""
    word = next(
        (i, t) for t, i in base.tokenizer.get_vocab().items() if t.strip().isalpha() and len(t.strip()) > 3
    )
    module = copy.deepcopy(base.module)
    row = module.get_output_embeddings().weight[word[0]].detach()
    layer = base.n_layers // 2

    def push(_, __, output):
        return (output[0] + 3 * row, *output[1:]) if isinstance(output, tuple) else output + 3 * row

    handle = module.get_submodule(base.anatomy.blocks[layer]).register_forward_hook(push)
    found = difference_lens(base, base.with_module(module, name="pushed"), base_texts(), layer=layer)
    handle.remove()
    norm = module.get_submodule(base.anatomy.final_norm).weight.detach()
    scores = (norm * row) @ module.get_output_embeddings().weight.detach().T
    assert base.tokenizer.decode([int(scores.argmax())]).strip() in found.top(3)
    torch.testing.assert_close(found.difference[1], 3 * row, atol=1e-4, rtol=1e-4)


def base_texts():
    return [str(p) for p in tamperlens.prompts.packaged("harmless", split="test").prompts[:8]]


def test_results_are_saved_and_loaded(folder, tmp_path):
    one = folder[1][1]
    again = Comparison.load(one.save(tmp_path / "one.json"))
    assert again.verdicts == one.verdicts
    with pytest.raises(InputError, match="no instrument"):
        one["nothing"]
    with pytest.raises(InputError, match="no row"):
        one.get("nothing")
