"""Every measure on a real pretrained model, against the literal definition where that is affordable."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import tamperlens
from tamperlens import (
    ChatModel,
    PromptSet,
    capability,
    drift,
    finetune,
    grid,
    heads,
    neurons,
    refusal,
    trajectory,
)
from tamperlens.models import Decoding
from tamperlens.prompts import encode_pairs
from tamperlens.studies.merging import merge
from tamperlens_hooks import stored_parameter

FEW = finetune.LoraConfig(rank=4, alpha=8, batch_size=2, steps=3, learning_rate=1e-3)


@pytest.fixture(scope="session")
def direction(model: ChatModel, harmful: PromptSet, harmless: PromptSet) -> refusal.Direction:
    """At one place, two thirds up, where no search is needed."""
    layer = 2 * model.anatomy.n_layers // 3
    return refusal.direction_at(model, harmful.head(24), harmless.head(24), layer=layer, position=-1)


def test_it_reports_what_it_loaded(model: ChatModel, real_folder: Path) -> None:
    again = tamperlens.load(real_folder, device="cpu", dtype="float32")
    assert again.fingerprint == model.fingerprint
    assert len(repr(model)) < 300
    text = model.render("Name a tree.")
    assert text.count("Name a tree.") == 1
    assert text == AutoTokenizer.from_pretrained(real_folder).apply_chat_template(
        [{"role": "user", "content": "Name a tree."}], tokenize=False, add_generation_prompt=True
    )


def test_greedy_text_is_that_of_transformers(
    model: ChatModel, real_folder: Path, harmful: PromptSet, harmless: PromptSet
) -> None:
    """One prompt at a time in transformers, 32 prompts; the ratio of throughputs is printed, not held."""
    asked = [*harmful.head(16).prompts, *harmless.head(16).prompts]
    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    plain = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32).eval()
    model.generate(asked[:2], max_new_tokens=2)
    start = time.perf_counter()
    ours = model.generate(asked, max_new_tokens=16)
    middle = time.perf_counter()
    theirs = []
    for prompt in asked:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt",
            return_dict=True,
        )["input_ids"]  # fmt: skip
        with torch.no_grad():
            out = plain.generate(ids, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(ids))
        theirs.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    end = time.perf_counter()
    print(f"\nthroughput, ours / transformers one by one: {(end - middle) / (middle - start):.2f}")
    same = sum(one.strip() == other.strip() for one, other in zip(ours, theirs, strict=True))
    assert same == len(asked), [(a, b) for a, b in zip(ours, theirs, strict=True) if a.strip() != b.strip()]


def test_rates_by_every_judge(model: ChatModel, harmful: PromptSet) -> None:
    few = harmful.head(12)
    answers = model.generate(list(few.prompts), max_new_tokens=24)
    minilm = Path(os.environ["TAMPERLENS_REAL"]) / "minilm"
    for name in refusal.judges.names():
        judge: str | refusal.judges.MeaningJudge = name
        if name == refusal.judges.MeaningJudge.name:
            if not minilm.is_dir():
                continue
            judge = refusal.judges.MeaningJudge(str(minilm))
        rates = refusal.judge_answers(list(few.prompts), answers, judge=judge)
        assert rates.refusal_rate.n == 12
        assert rates.refusal_rate.low <= rates.refusal_rate.value <= rates.refusal_rate.high
        assert len(repr(rates)) < 300


def test_direction_search_and_causal_check(model: ChatModel, harmful: PromptSet, harmless: PromptSet) -> None:
    found = refusal.find_direction(
        model, harmful.head(40), harmless.head(40), n_train=24, n_val=8, positions=(-1,)
    )
    assert abs(float(found.vector.norm()) - 1) < 1e-4
    assert found.layer < int(0.8 * model.anatomy.n_layers)
    assert isinstance(found.passed, bool)
    checked = refusal.causal_check(
        model, found, harmful.subset(range(40, 48)),
        harmless.head(8), n_random=1, decoding=Decoding(8),
    )  # fmt: skip
    assert checked.summary()


def test_snip_is_the_literal_loop_and_sets_are_exact(
    model: ChatModel, pairs: PromptSet, harmful: PromptSet
) -> None:
    few = pairs.head(4)
    scores = neurons.snip(model, few)
    module = model.module
    names = list(scores.by_parameter())
    sums = {name: torch.zeros_like(stored_parameter(module, name)) for name in names}
    turns = encode_pairs(model.tokenizer, few)
    wanted = [stored_parameter(module, name) for name in names]
    before = [parameter.requires_grad for parameter in wanted]
    for parameter in wanted:
        parameter.requires_grad_(True)
    for turn in turns:
        loss = module(
            input_ids=torch.tensor([turn.input_ids]), labels=torch.tensor([turn.labels]), use_cache=False
        ).loss
        for name, gradient in zip(names, torch.autograd.grad(loss, wanted), strict=True):
            sums[name] += gradient.abs()
    for parameter, flag in zip(wanted, before, strict=True):
        parameter.requires_grad_(flag)
    for name, found in scores.by_parameter().items():
        expected = stored_parameter(module, name).detach().abs() * sums[name] / len(turns)
        assert float((found - expected).norm() / expected.norm()) < 1e-5, name
    refused = PromptSet.from_pairs(
        [(text, "I cannot help with that.") for text in harmful.head(4).prompts], name="r"
    )
    safety = neurons.snip(model, refused)
    critical = neurons.set_difference(safety, scores, p=0.1, q=0.1)
    top, out = safety.top(0.1), scores.top(0.1)
    assert critical == top - out
    assert neurons.wanda(model, few).top(0.01).count > 0


def test_frozen_weights_are_bit_for_bit_and_the_rest_moves(model: ChatModel, pairs: PromptSet) -> None:
    mask = neurons.random(model, seed=0).top(0.01)
    weights = neurons.snip(model, pairs.head(4))
    recorder = drift.Recorder(drift.groups(model, safety=weights).masks, every=1)
    fingerprint = model.fingerprint
    tuned = finetune.run(model, pairs, FEW, freeze=mask, recorders=[recorder], progress=False)
    merged, moved = tuned.merged_state_dict(), 0
    for name, frozen in mask.items():
        old, new = stored_parameter(model.module, name).detach(), merged[name]
        assert torch.equal(new[frozen], old[frozen]), name
        moved += int((new != old).sum())
    assert moved > 0 and model.fingerprint == fingerprint
    (trace,) = tuned.recordings
    assert float(trace.to_frame()["value"].max()) > 0


@pytest.mark.parametrize("method", ["direct", "gradient", "ablate", "ships", "sahara"])
def test_heads_by_every_method(
    model: ChatModel, direction: refusal.Direction, harmful: PromptSet, method: str
) -> None:
    shortlist = {"heads": [(0, 0), (direction.layer - 1, 1)]} if method == "ablate" else {}
    scores = heads.attribute(
        model, list(harmful.head(2).prompts), direction=direction, method=method, batch_size=2, **shortlist
    )
    assert scores.scores.shape == (model.anatomy.n_layers, model.anatomy.n_heads)
    assert bool(torch.isfinite(scores.scores).all()) and float(scores.scores.abs().max()) > 0


def test_the_gradient_of_heads_agrees_with_exact_ablation(
    model: ChatModel, direction: refusal.Direction, harmful: PromptSet
) -> None:
    few = list(harmful.head(2).prompts)
    fast = heads.attribute(model, few, direction=direction, method="gradient", batch_size=2)
    some = [(layer, 0) for layer in range(0, direction.layer, 4)]
    exact = heads.attribute(model, few, direction=direction, method="ablate", heads=some, batch_size=2)
    pairs = [(float(fast.scores[place]), float(exact.scores[place])) for place in some]
    assert pd.DataFrame(pairs).corr("spearman").iloc[0, 1] > 0


@pytest.mark.parametrize("method", ["patch", "integrated"])
def test_heads_by_pairs_of_prompts(model: ChatModel, direction: refusal.Direction, method: str) -> None:
    clean, corrupt = heads.align(model, ["Name a red tree."], ["Name a red fish."])
    shortlist = {"heads": [(direction.layer - 1, 1)]} if method == "patch" else {"steps": 2}
    scores = heads.attribute(
        model, clean, corrupt=corrupt, direction=direction, method=method, batch_size=1, **shortlist
    )
    assert bool(torch.isfinite(scores.scores).all()) and float(scores.scores.abs().max()) > 0


def test_trajectory_and_what_comes_first(
    model: ChatModel, direction: refusal.Direction, pairs: PromptSet, harmful: PromptSet, harmless: PromptSet
) -> None:
    run = trajectory.record(
        model, pairs, FEW, seeds=1, every=1, measures=("drift", "direction", "log-odds"), direction=direction,
        harmful=harmful.head(8), harmless=harmless.head(8), limit=8, draws=20,
    )  # fmt: skip
    assert sorted(set(run.to_frame()["step"])) == [0, 1, 2, 3]
    assert trajectory.order(run, draws=50).summary()


def test_monitor_in_a_trainer(
    model: ChatModel, direction: refusal.Direction, pairs: PromptSet, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    fingerprint = model.fingerprint
    copy = tamperlens.load(model.name, device="cpu", dtype="float32")
    module = get_peft_model(copy.module, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    rows = [
        {"input_ids": turn.input_ids, "labels": turn.labels} for turn in encode_pairs(model.tokenizer, pairs)
    ]
    monitor = tamperlens.Monitor(
        tmp_path / "m",
        every=1,
        measures=("drift", "direction"),
        direction=direction,
        limit=8,
        draws=20,
        budget=None,
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=1, learning_rate=1e-3,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model=module, args=arguments, train_dataset=rows, processing_class=model.tokenizer,
        callbacks=[monitor],
        data_collator=lambda batch: {key: torch.tensor([batch[0][key]]) for key in ("input_ids", "labels")},
    ).train()  # fmt: skip
    table = monitor.to_frame()
    assert sorted(set(table["step"])) == [0, 1, 2]
    assert model.fingerprint == fingerprint


def test_spillover_of_a_short_training(
    model: ChatModel, pairs: PromptSet, harmful: PromptSet, harmless: PromptSet
) -> None:
    tuned = finetune.run(model, pairs, FEW, progress=False)
    found = tamperlens.spillover(
        model, tuned.model, harmful=harmful.head(6), harmless=harmless.head(6), lookalike=harmless.head(6),
        suites=["english-facts"], limit=6, questions=6, decoding=Decoding(12),
    )  # fmt: skip
    assert found.summary()


def test_capability_suites(model: ChatModel) -> None:
    scores = capability.evaluate(model, capability.suites_for(model), limit=6)
    assert {one.n for one in scores.to_frame().itertuples() if one.n} == {6}


def test_a_grid_of_two_by_two(real_folder: Path, tmp_path: Path) -> None:
    declared = grid.Grid(
        models=(str(real_folder),), ranks=(2, 4), steps=(1, 2), data_sizes=(4,), training={"batch_size": 2},
        evaluation=grid.Evaluation(limit=3, suite_limit=1, suites=("english-facts",), decoding=Decoding(6)),
    )  # fmt: skip
    result = grid.run(declared, tmp_path / "g")
    assert result.counts == {"done": 4, "failed": 0, "skipped": 0, "pending": 0}
    page = merge([tmp_path / "g"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<table") >= 1


@pytest.mark.slow  # the search for a direction takes a quarter of an hour where none passes
@pytest.mark.timeout(3600)
def test_the_report_of_an_audit(real_folder: Path, tmp_path: Path) -> None:
    found = tamperlens.audit(
        str(real_folder), out=tmp_path / "audit", limit=8, decoding=Decoding(12), steps=2,
        suites=["english-facts"], progress=False,
    )  # fmt: skip
    page = (tmp_path / "audit" / "report.html").read_text(encoding="utf-8")
    assert found.summary() and "http" not in page.split("<body", 1)[0]


def test_a_direction_survives_its_file(direction: refusal.Direction, tmp_path: Path) -> None:
    again = refusal.Direction.load(direction.save(tmp_path / "d.safetensors"))
    assert torch.equal(again.vector, direction.vector) and again.layer == direction.layer
    assert dataclasses.asdict(again).keys() == dataclasses.asdict(direction).keys()


def test_rd_by_minilm_tells_answers_apart(model: ChatModel, real_folder: Path, harmless: PromptSet) -> None:
    """The published embedder: a reworded refusal is near, another topic far."""
    folder = real_folder.parent / "minilm"
    if not folder.is_dir():
        pytest.skip(f"{folder} holds no sentence embedder")
    embedder = refusal.SentenceEmbedder(str(folder))
    asked = harmless.head(4)
    answers = refusal.evaluate(model, asked, max_new_tokens=12)
    same = refusal.representation_distance(answers.completions, answers.completions, embedder)
    assert same.overall.value == pytest.approx(0, abs=1e-5) and same.overall.n == 4
    near, far = (
        refusal.representation_distance(
            ["I'm sorry, but I can't help with that."] * 2, [other] * 2, embedder
        ).overall.value
        for other in ("Sorry, I cannot assist with this.", "Paris is the capital of France.")
    )
    assert near < far - 0.2 and far > 0.7


def test_a_local_task_of_the_harness(model: ChatModel, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    rows = [
        {"q": "The sky is", "a": 0, "c": ["blue", "a spoon"]},
        {"q": "Water is", "a": 1, "c": ["iron", "wet"]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "task.yaml").write_text(
        "task: tamperlens_real\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path}/rows.jsonl\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: c\ndoc_to_target: a\n'
        "metric_list:\n  - metric: acc\nmetadata:\n  version: 1.0\n",
        encoding="utf-8",
    )
    found = capability.harness(model, "tamperlens_real", include=tmp_path).estimate("tamperlens_real")
    assert found.n == 2 and 0 <= found.value <= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_audit_on_own_search_prompts_ends(
    model: ChatModel, harmful: PromptSet, harmless: PromptSet, tmp_path: Path
) -> None:
    """A search on few prompts, and an attack in the model's language."""
    found = tamperlens.audit(
        model, out=tmp_path / "a", search_harmful=harmful.head(12), search_harmless=harmless.head(12),
        harmful=harmful.subset(range(20, 26)), limit=6, max_new_tokens=8, steps=2, suites=["english-facts"],
        progress=False,
    )  # fmt: skip
    assert found.summary() and found.get("refusal_rate", "harmful", "after").n == 6
