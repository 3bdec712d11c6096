"""What an audit says that its stages will cost, against what goes through the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import tamperlens
from tamperlens import finetune
from tamperlens.base.runs import RunFolder
from tamperlens.models import Decoding
from tamperlens.studies.audit import cost, stages
from tamperlens.studies.audit.inputs import Settings, gather
from tamperlens.studies.evaluation import ask

NOTHING = dict.fromkeys(("harmful", "harmless", "lookalike", "search_harmful", "search_harmless"))


def bench(settings: Settings, folder: Path) -> stages.Bench:
    model = tamperlens.load("organism:tiny")
    attack = finetune.attacks.get("harmful-compliance")(15)
    found = gather(NOTHING, model=model, attack_prompts=attack.data.prompts, limit=settings.limit)
    run = RunFolder.open(folder, kind="audit", config={})
    return stages.Bench(run, settings, model, found, attack, False)


def test_tokens_are_those_that_the_model_reads(tmp_path: Path) -> None:
    small = bench(Settings(limit=6, decoding=Decoding(8), suites=("addition",)), tmp_path)
    seen = []
    embedding = small.model.module.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].numel()))
    try:
        ask(small.model, small.asked)
    finally:
        hook.remove()
    found = cost.expected_costs(small, cost.Speed(1.0, 2.0))["before"]
    # The hook is not ours, so that nothing is shared: the template's tokens are read with every prompt.
    assert 0.5 * sum(seen) < found.read + found.written < 2 * sum(seen)
    assert found.seconds == pytest.approx(found.read + 2 * found.written)
    assert found.flops == 2 * small.model.n_parameters * (found.read + found.written)


def test_an_attack_of_single_examples_costs_what_single_passes_do(tmp_path: Path) -> None:
    """At 135 M weights a step of one example took four times as long as its share of a batch of prompts."""
    small = bench(Settings(limit=6), tmp_path)
    assert stages.attack_config(small).batch_size == 5  # of the organism's preset
    together, alone = (cost.expected_costs(small, cost.Speed(1.0, 1.0, each)) for each in (1.0, 4.0))
    assert alone["attack"].seconds == 4 * together["attack"].seconds
    assert {name for name in alone if alone[name] != together[name]} == {"attack"}
    wide = dataclasses.replace(small.attack.organism, batch_size=8)
    attack = dataclasses.replace(small.attack, organism=wide)
    large = cost.expected_costs(dataclasses.replace(small, attack=attack), cost.Speed(1.0, 1.0, 4.0))
    assert large["attack"].seconds == large["attack"].read
    found = cost.calibrate(small.model, small.asked.harmful.prompts)
    assert 0 < found.read <= found.alone


def test_quick_costs_less_in_every_stage_but_the_attack(tmp_path: Path) -> None:
    whole, quick = (bench(one, tmp_path / str(one.quick)) for one in (Settings(), Settings().hurried()))
    assert quick.settings.limit == 16
    assert stages.search(quick)[2] == [-1]
    both = [cost.expected_costs(one, cost.Speed(1.0, 1.0)) for one in (whole, quick)]
    for name in ("before", "direction", "after"):
        assert both[1][name].seconds < both[0][name].seconds / 4
    assert both[1]["attack"] == dataclasses.replace(both[0]["attack"], memory=both[1]["attack"].memory)
    assert "quick" not in Settings().config()
    assert Settings().hurried().config()["quick"] is True
