"""Recorded drift against the merged weights in fp64; controls matched; groups of every storage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tamperlens import drift, finetune
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.drift.grouping import matched
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

DATA = PromptSet.from_pairs([(f"say {i}", f"word {i * 7}") for i in range(6)], name="words")


def chat(tiny, family: str, seed: int = 3) -> ChatModel:
    module, tokenizer = tiny(family, seed=seed)
    return ChatModel.from_parts(module, tokenizer, name=f"tiny {family}")


def mask_of(model: ChatModel, share: float, seed: int) -> WeightMask:
    generator = torch.Generator().manual_seed(seed)
    names = sorted({part.parameter for part in model.anatomy.projections()})
    return WeightMask.from_tensors(
        model,
        {n: torch.rand(model.module.get_parameter(n).shape, generator=generator) < share for n in names},
    )


def literal(base: ChatModel, merged, part, flags: torch.Tensor | None) -> dict[str, float]:
    old = base.module.get_parameter(part.parameter).detach().double()[part.index]
    new = merged[part.parameter].double()[part.index]
    rms = old.square().mean().sqrt()
    if flags is not None:
        chosen = flags[part.index]
        old, new = old[chosen], new[chosen]
    delta = new - old
    return {
        "l2": delta.norm().item(),
        "relative_l2": (delta.norm() / old.norm()).item(),
        "one_minus_cosine": 1 - torch.cosine_similarity(old.flatten(), new.flatten(), dim=0).item(),
        "max": delta.abs().max().item(),
        "share_moved": (delta.abs() > 1e-3 * rms).double().mean().item(),
    }


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("how", ["lora", "frozen", "full"])
def test_every_measure_against_the_merged_weights(tiny, family: str, how: str) -> None:
    base, unaligned = chat(tiny, family), chat(tiny, family, seed=9)
    groups = {"one": mask_of(base, 0.05, 1), "two": mask_of(base, 0.2, 2)}
    config: finetune.LoraConfig | finetune.FullConfig = finetune.LoraConfig(
        steps=3, rank=2, learning_rate=1e-2, batch_size=2
    )
    if how == "full":
        config = finetune.FullConfig(steps=3, learning_rate=1e-3, batch_size=2)
    recorder = drift.Recorder(groups, every=2, unaligned=unaligned)
    freeze = mask_of(base, 0.3, 5) if how == "frozen" else None
    tuned = finetune.run(base, DATA, config, recorders=[recorder], freeze=freeze, progress=False)
    trace = tuned.recordings[0]
    assert isinstance(trace, drift.DriftTrace)
    assert trace.steps == [0, 2, 3]
    frame = trace.to_frame()
    assert list(frame.columns) == ["step", "group", "layer", "module", "measure", "value", "n"]
    start = frame[(frame["step"] == 0) & frame["measure"].isin(["l2", "one_minus_cosine"])]
    assert (start["value"] == 0).all()
    assert len(tuned.rows) == len(frame)
    merged = tuned.merged_state_dict()
    end = frame[frame["step"] == 3].set_index(["group", "layer", "module", "measure"])
    for part in base.anatomy.projections():
        for name, mask in (*groups.items(), ("all weights", None)):
            flags = None if mask is None else mask[part.parameter]
            expected = literal(base, merged, part, flags)
            for measure in expected if mask is not None else ("l2", "relative_l2", "one_minus_cosine"):
                row = end.loc[(name, part.layer, part.name, measure)]
                assert row["value"] == pytest.approx(expected[measure], rel=2e-3, abs=1e-7), measure
                if flags is not None:
                    assert row["n"] == int(flags[part.index].sum())
        index = part.index
        old = base.module.get_parameter(part.parameter).detach().double()[index]
        delta = merged[part.parameter].double()[index] - old
        v = old - unaligned.module.get_parameter(part.parameter).detach().double()[index]
        if part.transposed:
            delta, v = delta.T, v.T
        across = v @ v.T @ delta
        cosine = ((across * delta).sum() / across.norm() / delta.norm()).item()
        found = end.loc[("all weights", part.layer, part.name, "alignment_cosine")]["value"]
        assert found == pytest.approx(cosine, abs=2e-3)
        s = torch.linalg.svdvals(delta)
        s = s[s > 1e-5 * s[0]]  # the merged weight is fp32: below is rounding
        if how == "lora":
            rank = torch.special.entr(s / s.sum()).sum().exp().item()
            found = end.loc[("all weights", part.layer, part.name, "effective_rank")]["value"]
            assert found == pytest.approx(rank, rel=1e-2)


def test_recording_changes_no_weight(tiny) -> None:
    base = chat(tiny, "llama")
    config = finetune.LoraConfig(steps=2, learning_rate=1e-2, batch_size=2)
    plain = finetune.run(base, DATA, config, progress=False).merged_state_dict()
    recorder = drift.Recorder({"one": mask_of(base, 0.1, 1)}, every=1)
    watched = finetune.run(base, DATA, config, recorders=[recorder], progress=False).merged_state_dict()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_a_resumed_run_gives_the_whole_trace(tiny, tmp_path) -> None:
    base = chat(tiny, "llama")
    config = finetune.LoraConfig(steps=5, learning_rate=1e-2, batch_size=2, save_every=2)
    groups = {"one": mask_of(base, 0.1, 1)}

    class Stops(drift.Recorder):
        def record(self, step, model):
            if step == 4:
                raise KeyboardInterrupt
            return super().record(step, model)

    whole = finetune.run(base, DATA, config, recorders=[drift.Recorder(groups, every=1)], progress=False)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(
            base, DATA, config, recorders=[Stops(groups, every=1)], out=tmp_path / "run", progress=False
        )
    again = finetune.run(
        base, DATA, config, recorders=[drift.Recorder(groups, every=1)], out=tmp_path / "run", progress=False
    )
    first, second = whole.recordings[0].to_frame(), again.recordings[0].to_frame()
    assert second["step"].unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert first.drop(columns="value").equals(second.drop(columns="value"))
    assert np.array_equal(first["value"], second["value"], equal_nan=True)


def test_controls_are_matched_on_size(tiny) -> None:
    """A group of large weights gets a control of large weights, disjoint, in the same matrix, as many."""
    base = chat(tiny, "gpt2")
    large = {}
    for part in base.anatomy.projections():
        weight = base.module.get_parameter(part.parameter).detach()
        generator = torch.Generator().manual_seed(1)
        # top half of |w|, a fifth of it
        flags = (weight.abs() > weight.abs().median()) & (torch.rand(weight.shape, generator=generator) < 0.2)
        large[part.parameter] = flags
    safety = WeightMask.from_tensors(base, large)
    groups = drift.groups(
        base, safety=safety, critical=mask_of(base, 0.02, 3), utility=mask_of(base, 0.02, 4)
    )
    assert list(groups) == [
        "top safety", "safety-critical", "top utility", "control of top safety",
        "control of safety-critical", "control of top utility", "random",
    ]  # fmt: skip
    control = groups["control of top safety"]
    assert control.counts() == safety.counts()
    assert groups["random"].counts() == safety.counts()
    for name in ("top safety", "safety-critical", "top utility"):
        assert (control & groups[name]).count == 0
    table = groups.matching[groups.matching["group"] == "top safety"]
    assert np.allclose(table["mean_group"], table["mean_control"], rtol=0.02)
    drawn = [
        float(base.module.get_parameter(n).detach()[groups["random"][n]].abs().mean()) for n in control.bits
    ]
    held = [float(base.module.get_parameter(n).detach()[control[n]].abs().mean()) for n in control.bits]
    assert all(h > 1.2 * d for h, d in zip(held, drawn, strict=True))  # random weights are not a match
    again = drift.groups(
        base, safety=safety, critical=groups["safety-critical"], utility=groups["top utility"]
    )
    assert all(again[name] == groups[name] for name in groups)


def test_a_bin_that_runs_out_takes_the_nearest() -> None:
    size = np.array([1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 8, 7, 0.5, 0.2] * 2, dtype=np.float32)
    chosen = size == 9
    found = matched(size, chosen, ~chosen, 4, np.random.default_rng(0))
    assert found.sum() == chosen.sum()
    assert not (found & chosen).any()
    assert found[size >= 7].sum() == 4  # both 8s and both 7s, before any 1


def test_identical_models_and_measure(tiny) -> None:
    base = chat(tiny, "llama")
    trace = drift.measure(base, base, {"one": mask_of(base, 0.1, 1)})
    table = trace.table("one_minus_cosine")
    assert (table == 0).all().all()
    ranks = trace.to_frame().query("measure == 'effective_rank'")
    assert ranks["value"].isna().all()
    assert (ranks["n"] == 0).all()


def test_figures(tiny, tmp_path) -> None:
    base = chat(tiny, "llama")
    groups = drift.groups(base, safety=mask_of(base, 0.05, 1), utility=mask_of(base, 0.05, 2))
    recorder = drift.Recorder(groups, every=1)
    config = finetune.LoraConfig(steps=2, learning_rate=1e-2, batch_size=2)
    trace = finetune.run(base, DATA, config, recorders=[recorder], progress=False).recordings[0]
    assert trace.controls == {
        "top safety": "control of top safety",
        "top utility": "control of top utility",
    }
    for plot in trace.plots():
        assert all(path.stat().st_size > 1000 for path in plot.save(tmp_path))
        assert plot.alt
    verdict = drift.test_hypotheses(trace)
    assert verdict.verdict in {"H1", "H2", "cannot tell"}
    again = drift.DriftTrace.load(trace.save(tmp_path / "trace.safetensors"))
    assert again.to_frame().equals(trace.to_frame())
    assert math.isfinite(verdict.comparisons[0].ratio.value)


def test_bad_input(tiny) -> None:
    base, other = chat(tiny, "llama"), chat(tiny, "llama", seed=4)
    mask = mask_of(other, 0.1, 1)
    with pytest.raises(InputError, match="made for"):
        drift.Recorder({"one": mask}).start(base)
    with pytest.raises(InputError, match="made for"):
        drift.groups(base, safety=mask)
    with pytest.raises(InputError, match="WeightMask"):
        drift.Recorder({"one": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="every"):
        drift.Recorder({"one": mask}, every=0)
    with pytest.raises(InputError, match="empty"):
        drift.groups(base, safety=mask_of(base, 0.0, 1))
    with pytest.raises(InputError, match="other matrices"):
        drift.measure(base, chat(tiny, "qwen3"), {"one": mask_of(base, 0.1, 1)})
    with pytest.raises(InputError, match="no measure"):
        drift.measure(base, base, {"one": mask_of(base, 0.1, 1)}).table("angle")
