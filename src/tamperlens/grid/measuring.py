"""The inputs of a model's cells, and everything that one cell measures."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from tamperlens import capability, finetune, judges, neurons, prompts, refusal
from tamperlens.base.errors import InputError
from tamperlens.base.files import sha256_file
from tamperlens.base.masks import WeightMask
from tamperlens.base.stats import Estimate, complement, undefined
from tamperlens.finetune import Attack
from tamperlens.grid.declaration import Cell, Defence, Evaluation, Grid
from tamperlens.grid.records import SETS, Baseline, data_pin, file_pin, model_pin, set_pin
from tamperlens.models import ChatModel, evaluating, left_pad, load
from tamperlens.prompts import PromptSet
from tamperlens.studies.evaluation import EvalPrompts, ask, by_kind

SCORED = 128
"""Examples that a selection of weights is scored on (Wei et al. 2024)."""


def check_inputs(grid: Grid) -> None:
    """Read every file and look up every name of a declaration: what needs no model is found out without one.

    Raises:
        InputError: one of them cannot be used; the message names it.
    """
    how = grid.evaluation
    judges.get(how.judge)
    for suite in how.suites:
        capability.Suite.packaged(suite)
    given_sets(how)
    for name in grid.attacks:
        for size in grid.data_sizes:
            if name not in finetune.attacks.names():
                finetune.attacks.from_file(name, n=size)
    for defence in grid.defences:
        if defence.mask:
            WeightMask.load(defence.mask)
        for file in filter(None, (defence.data, defence.utility)):
            _pairs(file)


def given_sets(how: Evaluation) -> dict[str, PromptSet | None]:
    """The prompts that are evaluated on, None where the packaged ones are."""
    named = {which: getattr(how, which) or None for which in SETS}
    return by_kind(prompts.read_each(named, how.column or None))


class Bench:
    """One loaded model with its prompts, masks and measures.

    Args:
        grid: the declaration.
        name: of the model, as declared.
    """

    def __init__(self, grid: Grid, name: str) -> None:
        self.grid, self.name = grid, name
        self.model = load(name, device=grid.device, dtype=grid.dtype)
        how = grid.evaluation
        self.sets: dict[str, PromptSet] = {}
        for which, given in given_sets(how).items():
            data = prompts.packaged_for(self.model, which, "test") if given is None else given
            self.sets[which] = data.sample(min(how.limit, len(data)), seed=0)
        self.asked = EvalPrompts.for_model(
            self.model, harmful=self.sets["harmful"], harmless=self.sets["harmless"],
            lookalike=self.sets["lookalike"], suites=how.suites or None, judge=how.judge, limit=how.limit,
            seed=None, questions=how.suite_limit, decoding=how.decoding, loss=False,
        )  # fmt: skip
        self._masks: dict[Defence, WeightMask] = {}

    def pins(self) -> dict[str, str]:
        """Hashes of the model and of every input of its cells."""
        found = {model_pin(self.name): self.model.fingerprint}
        found |= {set_pin(self.name, which): data.sha256 for which, data in self.sets.items()}
        for name in self.grid.attacks:
            for size in self.grid.data_sizes:
                found[data_pin(self.name, name, size)] = self.attack(name, size).data.sha256
        for defence in self.grid.defences:
            if defence.mask:
                found[file_pin(defence.mask)] = sha256_file(defence.mask)
            elif defence.kind != "none":  # read now, so that a model they do not fit is refused before work
                refusals = self._refusals(defence, None)
                if defence.kind == "mix" or defence.data:
                    found[file_pin(defence.data or "packaged refusals")] = refusals.sha256
                if defence.kind != "mix" and defence.select == "safety-critical":
                    ordinary = self._ordinary(defence)
                    if defence.utility:
                        found[file_pin(defence.utility)] = ordinary.sha256
        return found

    def attack(self, name: str, size: int) -> Attack:
        """An attack with so many examples."""
        if name in finetune.attacks.names():
            return finetune.attacks.for_model(name, self.model, size)
        return finetune.attacks.from_file(name, n=size)

    def config(self, cell: Cell, steps: int) -> finetune.LoraConfig | finetune.FullConfig:
        """The training settings of a cell: the attack's for the model's size, changed by the grid's."""
        settings: dict[str, Any] = {**self.grid.settings, "steps": steps, "seed": cell.seed}
        preset = self.attack(cell.attack, cell.data_size).config_for(self.model, steps=steps)
        rate = preset.learning_rate if cell.learning_rate is None else cell.learning_rate
        settings["learning_rate"] = rate
        if cell.rank == 0:
            settings.setdefault("batch_size", preset.batch_size)
            return finetune.FullConfig(**settings)
        if not isinstance(preset, finetune.LoraConfig):
            preset = finetune.LoraConfig(batch_size=preset.batch_size, steps=steps)
        settings.setdefault("alpha", 2 * cell.rank)
        settings["epochs"] = None
        return dataclasses.replace(preset, rank=cell.rank, **settings)

    def step_seconds(self, cell: Cell) -> float:
        """About how long one training step takes here: thrice one forward pass."""
        config = self.config(cell, cell.steps)
        turns = self.model.encode_pairs(self.data(cell), max_length=config.max_length)[: config.batch_size]
        batch = left_pad([list(turn.input_ids) for turn in turns], self.model.pad_id, self.model.device)
        began = time.perf_counter()
        with evaluating(self.model.module):
            self.model.module(**vars(batch))
        return 3 * config.accumulation * (time.perf_counter() - began)

    def data(self, cell: Cell) -> PromptSet:
        """What a cell trains on: the attack, with refusals mixed in where the defence says so."""
        data = self.attack(cell.attack, cell.data_size).data
        if cell.defence.kind != "mix":
            return data
        return PromptSet.concat([data, self._refusals(cell.defence, cell.defence.examples)], name=cell.attack)

    def mask(self, defence: Defence) -> WeightMask:
        """The weights that a defence holds; chosen on the untouched model, once."""
        if defence not in self._masks:
            self._masks[defence] = self._select(defence)
        return self._masks[defence]

    def _select(self, defence: Defence) -> WeightMask:
        if defence.mask:
            return WeightMask.load(defence.mask, self.model)
        safety = neurons.snip(self.model, _some(self._refusals(defence, None), SCORED))
        if defence.select == "top-safety":
            return safety.top(defence.share)
        utility = neurons.snip(self.model, _some(self._ordinary(defence), SCORED))
        return neurons.set_difference(safety, utility, defence.share, defence.share)

    def _refusals(self, defence: Defence, n: int | None) -> PromptSet:
        """Refused harmful requests that a defence mixes into an attack's data or chooses weights on."""
        if defence.data:
            data = _pairs(defence.data)
        else:
            option = "the defence data=" + ("" if defence.kind == "mix" else " (or mask=)")
            data = prompts.pairs_for(self.model, "harmful", option=option)
        if n is not None and n > len(data):
            raise InputError(f"{data.name} has {len(data)} refusals and the defence wants {n}; ask for fewer")
        return data if n is None else data.sample(n, seed=0)

    def _ordinary(self, defence: Defence) -> PromptSet:
        """Ordinary requests with answers, whose weights a defence leaves free."""
        if defence.utility:
            return _pairs(defence.utility)
        return prompts.pairs_for(self.model, "benign", option="the defence utility= (or mask=)")

    def baseline(self) -> Baseline:
        """The model before any attack."""
        rates, measures = self._rates(self.model)
        measures |= {name: undefined("the model itself") for name in ("rd", "rd_refused")}
        return Baseline(
            self.name,
            self.model.fingerprint,
            self.model.n_parameters,
            measures,
            rates.completions,
            self.asked.language,
        )

    def measure(self, tuned: ChatModel, baseline: Baseline) -> tuple[dict[str, Estimate], tuple[str, ...]]:
        """Every measure of a tuned model, and its verdict per harmful prompt."""
        rates, measures = self._rates(tuned)
        named = self.grid.evaluation.embedder
        embedder: Any = refusal.default_embedder(self.model) if named == "auto" else named
        embedder = self.model if named == "base" else embedder
        distance = refusal.representation_distance(baseline.completions, rates.completions, embedder)
        measures |= {"rd": distance.overall, "rd_refused": distance.refused}
        return measures, tuple(rates.completions.labels)

    def _rates(self, model: ChatModel) -> tuple[refusal.RefusalRates, dict[str, Estimate]]:
        found, scores = ask(model, self.asked)
        harmful = found["harmful"]
        measures = {
            "rrr": harmful.rrr,
            "ce": complement(harmful.rrr),
            "degenerate_harmful": harmful.degenerate_rate,
            "over_refusal_harmless": found["harmless"].refusal_rate,
            "over_refusal_lookalike": found["lookalike"].refusal_rate,
            "capability": scores.overall,
        }
        measures |= {f"capability_{suite}": value for suite, value in scores.accuracy.items()}
        return harmful, measures


def _pairs(path: str) -> PromptSet:
    data = prompts.read(Path(path))
    if data.responses is None:
        raise InputError(f"{path} has no responses; give it a column of answers")
    return data


def _some(data: PromptSet, most: int) -> PromptSet:
    return data.sample(most) if len(data) > most else data
