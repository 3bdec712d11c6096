"""Ablation curves, the recorder inside a run, and what changes between checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from head_examples import CLEAN, RESPONSIBLE, planted

from tamperlens import finetune, heads
from tamperlens.base.errors import InputError
from tamperlens.hooks import ablate_heads
from tamperlens.prompts import PromptSet

MARKED = ["#ick it", "go # by", "all of#"]


def test_the_first_head_takes_the_answer_away_and_random_ones_do_not(tmp_path) -> None:
    model, _, answer = planted()
    given = {"target": "refusal_tokens", "refusal_tokens": [answer]}
    scores = heads.attribute(model, MARKED, method="ablate", **given)
    curve = heads.ablation_curve(model, scores, MARKED, most=3, draws=8, **given)
    assert curve.k == (0, 1, 2, 3)
    assert curve.heads[0] == RESPONSIBLE
    untouched, first = curve.values[0].value, curve.values[1].value
    assert first < untouched - 2
    goal = heads.resolve_target(model, "refusal_tokens", refusal_tokens=[answer])
    for k in (0, 1, 2):
        with torch.no_grad():
            if k:
                with ablate_heads(model, scores.top(k)):
                    after = [float(goal.read(model, model.encode([text]))[0]) for text in MARKED]
            else:
                after = [float(goal.read(model, model.encode([text]))[0]) for text in MARKED]
        assert curve.values[k].value == pytest.approx(np.mean(after), abs=1e-5)
    # one head of layer 1 at random is the responsible one in a sixth of draws
    assert curve.random[1].value > first
    assert curve.random[1].high == pytest.approx(untouched, abs=0.3)
    assert curve.share[1] >= 0.5
    frame = curve.to_frame()
    assert set(frame["series"]) == {"top", "random"}
    assert len(frame) == 8
    again = heads.AblationCurve.load(curve.save(tmp_path / "curve.json"))
    assert again.to_frame().equals(frame)
    assert [path.suffix for path in curve.plot().save(tmp_path)] == [".html", ".png", ".svg"]


def test_random_heads_are_of_the_same_layers() -> None:
    from tamperlens.heads.curves import _random

    generator = np.random.default_rng(0)
    chosen = [(0, 1), (2, 0), (2, 3)]
    drawn = [_random(generator, chosen, 4) for _ in range(40)]
    assert all(sorted(layer for layer, _ in one) == [0, 2, 2] for one in drawn)
    assert all(len(set(one)) == 3 for one in drawn)
    assert {head for one in drawn for layer, head in one if layer == 0} == {0, 1, 2, 3}


def test_a_measure_of_ones_own(chat) -> None:
    model = chat("llama")
    seen = []

    def says_nothing(watched) -> list[float]:
        seen.append(watched.logits_last(CLEAN).argmax(-1).tolist())
        return [float(token == seen[0][i]) for i, token in enumerate(seen[-1])]

    curve = heads.ablation_curve(model, [(0, 0), (1, 1)], CLEAN, measure=says_nothing, mode="mean", draws=2)
    assert curve.target == "says_nothing"
    assert curve.values[0].value == 1
    assert len(seen) == 1 + 2 * (1 + 2)
    assert curve.method == "given order"


def test_curve_errors(chat) -> None:
    model = chat("llama")
    given = {"target": "refusal_tokens", "refusal_tokens": [70]}
    with pytest.raises(InputError, match="different heads"):
        heads.ablation_curve(model, [(0, 0), (0, 0)], CLEAN, **given)
    with pytest.raises(InputError, match="most is 5"):
        heads.ablation_curve(model, [(0, 0)], CLEAN, most=5, **given)
    with pytest.raises(InputError, match="mode='resample' must be one of"):
        heads.ablation_curve(model, [(0, 0)], CLEAN, mode="resample", **given)


def test_the_recorder_scores_the_model_in_training(tiny, tmp_path) -> None:
    from tamperlens.models import ChatModel

    module, tokenizer = tiny("llama", seed=11)
    base = ChatModel.from_parts(module, tokenizer, name="base", check_anatomy=False)
    data = PromptSet.from_pairs([(f"say {i}", f"word {i * 7}") for i in range(6)], name="words")
    given = {"target": "refusal_tokens", "refusal_tokens": [70, 80]}
    recorder = heads.HeadRecorder(CLEAN, every=2, method="ablate", **given)
    config = finetune.LoraConfig(steps=3, rank=2, learning_rate=3e-2, batch_size=2)
    tuned = finetune.run(base, data, config, recorders=[recorder], progress=False)
    trace = tuned.recordings[0]
    assert isinstance(trace, heads.HeadTrace)
    assert trace.steps == (0, 2, 3)
    before = heads.attribute(base, CLEAN, method="ablate", **given)
    after = heads.attribute(tuned.model, CLEAN, method="ablate", **given)
    assert torch.allclose(trace.scores[0], before.scores, atol=1e-5)
    assert torch.allclose(trace.scores[-1], after.scores, atol=1e-4)
    moved = trace.compare(0, 3)
    a, b = before.scores.double().flatten(), after.scores.double().flatten()
    assert moved.cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-4)
    assert moved.cosine < 0.9999
    whole = heads.compare(before, after)
    assert whole.spearman == pytest.approx(moved.spearman, abs=0.02)
    layer, head = whole.most_changed(1)[0]
    assert abs(float(whole.difference[layer, head])) == float(whole.difference.abs().max())
    frame = trace.to_frame()
    assert len(frame) == 3 * 18
    assert frame[frame["step"] == 0].sort_values("score")["rank"].iloc[-1] == 1
    rows = tuned.rows[tuned.rows["recorder"] == "heads"]
    assert len(rows) == 3 * 19
    summary = rows[rows["layer"] == -1].sort_values("step")
    assert summary["cosine"].iloc[0] == pytest.approx(1)
    assert summary["cosine"].iloc[-1] == pytest.approx(moved.cosine)
    assert heads.HeadTrace.load(trace.save(tmp_path / "trace.safetensors")).to_frame().equals(frame)
    with pytest.raises(InputError, match="step 1 was not recorded"):
        trace.compare(0, 1)
    with pytest.raises(InputError, match="every"):
        heads.HeadRecorder(CLEAN, every=0)
    with pytest.raises(InputError, match="nothing was recorded"):
        heads.HeadRecorder(CLEAN).finish()
    with pytest.raises(InputError, match="differ in method"):
        heads.compare(before, heads.attribute(base, CLEAN, method="gradient", **given))
