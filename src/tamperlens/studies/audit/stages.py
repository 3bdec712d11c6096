"""The stages of an audit. Each reads what earlier ones left in the run folder and adds its own results.

Everything that later stages or tables need is on disk before a stage is marked done, and is read back from
disk even in an uninterrupted run, so that a resumed run gives the same numbers to the last digit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd
import torch

from tamperlens import capability, finetune, refusal
from tamperlens.base.errors import NumericsError
from tamperlens.base.files import write_csv, write_json
from tamperlens.base.results import Result
from tamperlens.base.runs import RunFolder
from tamperlens.base.schemas import Schema, read_document, read_table
from tamperlens.base.stats import Estimate, undefined, wilson
from tamperlens.capability import CapabilityScores, Perplexity
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet
from tamperlens.refusal import CausalCheck, Direction, DoseCurve, RefusalRates
from tamperlens.studies.audit.inputs import Prompts, Settings
from tamperlens.studies.audit.layers import activations, cosine_table
from tamperlens.studies.audit.measures import Stage
from tamperlens.studies.evaluation import ROLES, EvalPrompts, ask, scorable
from tamperlens_hooks import ablate_direction

N_RANDOM, DOSE_PROMPTS = 3, 32
ATTACK = "attack"
SPENT = ("steps", "sequences", "tokens", "trained_parameters", "flops", "formula", "wall_seconds")
_LAYERS = ("layer", "cosine", "low", "high", "null", "null_low", "null_high")


class _Ratio(Schema):
    norm_ratio: float | None


class _Echoes(Schema):
    """Whether each answer repeats the attack's examples."""

    harmful: list[bool]
    harmless: list[bool]
    lookalike: list[bool]


class _Attack(Schema):
    """What the attack was and what it took."""

    name: str
    source: str
    n: int
    sha256: str
    preset: str
    config: dict[str, Any]
    steps: int
    sequences: int
    tokens: int
    trained_parameters: int
    flops: float
    formula: str
    wall_seconds: float


R = TypeVar("R", bound=Result)


def _if_there(kind: type[R], path: Path) -> R | None:
    return _loaded(kind, path) if path.exists() else None


def _loaded(kind: type[R], path: Path) -> R:
    """A result that a stage left, read once while its file stays as it is: every table asks for it."""
    stamp = path.stat() if path.is_file() else None
    if stamp is None:
        return kind.load(path)
    return cast(R, _read_once(cast(Any, kind), path, stamp.st_mtime_ns, stamp.st_size))


@functools.lru_cache(maxsize=32)
def _read_once(kind: type[Result], path: Path, changed: int, size: int) -> Result:
    return kind.load(path)


@dataclass(frozen=True)
class Results:
    """What the finished stages of an audit left in its folder, and the one that is ending, if any."""

    run: RunFolder
    ending: str = ""

    def done(self, stage: str) -> bool:
        """Whether everything of a stage is there."""
        return stage == self.ending or self.run.done(stage)

    def path(self, *parts: str) -> Path:
        """A file of the stages' results."""
        return self.run.file("stages", *parts)

    def rates(self, stage: Stage, role: str) -> RefusalRates:
        """Refusal rates and answers on one prompt set."""
        return _loaded(RefusalRates, self.path(stage, f"{role}.json"))

    def capability(self, name: str) -> CapabilityScores:
        """Capability scores: "before", "after", or "ablated" (base with the direction removed)."""
        return _loaded(CapabilityScores, self.path(name, "capability.json"))

    def perplexity(self, stage: Stage) -> Estimate:
        """Perplexity of the harmless answers that the model gave before the attack."""
        found = _if_there(Perplexity, self.path(stage, "perplexity.json"))
        return undefined("no answers to score") if found is None else found.perplexity

    def echo_rate(self, stage: Stage, role: str) -> Estimate:
        """Share of answers that repeat the attack's examples; undefined in runs from before it was noted."""
        path = self.path(stage, "echoes.json")
        flags: list[bool] = read_document(path, _Echoes)[role] if path.exists() else []
        return wilson(sum(flags), len(flags))

    def direction(self) -> Direction | None:
        """The base's direction; None when there were too few prompts for one."""
        return _if_there(Direction, self.run.path / "direction.safetensors")

    def causal(self, stage: Stage) -> CausalCheck | None:
        """The causal check of the base's direction; None when the direction is undefined."""
        return _if_there(CausalCheck, self.path(stage, "causal.json"))

    def dose(self) -> DoseCurve | None:
        """What adding the base's direction does by scale; None where it was not measured."""
        return _if_there(DoseCurve, self.path("before", "dose.json"))

    def layers(self) -> pd.DataFrame | None:
        """Cosines between base and attacked model by layer."""
        path = self.path("after", "layers.csv")
        return read_table(path, _LAYERS) if path.exists() else None

    def norm_ratio(self) -> float:
        """Length of the attacked model's difference of means over that of the base."""
        return float(read_document(self.path("after", "direction.json"), _Ratio)["norm_ratio"] or math.nan)

    def attack(self) -> dict[str, Any]:
        """What the attack was and what it took."""
        return read_document(self.path("attack", "attack.json"), _Attack)

    def log(self) -> pd.DataFrame:
        """The attack's training log."""
        return read_table(self.path("attack", "log.csv"), ("step", "loss"))


@dataclass(frozen=True)
class Bench:
    """Everything a stage works with."""

    run: RunFolder
    settings: Settings
    model: ChatModel
    prompts: Prompts
    attack: finetune.Attack
    progress: bool

    @property
    def results(self) -> Results:
        """What is on disk so far."""
        return Results(self.run)

    def ask(self, model: ChatModel) -> CapabilityScores:
        """Capability scores of a model on the suites of this audit."""
        return capability.evaluate(model, self.asked.suites, progress=self.progress)

    @property
    def asked(self) -> EvalPrompts:
        """What every model of this audit is asked."""
        named = {role: dataclasses.replace(self.prompts.evaluation[role], name=role) for role in ROLES}
        names = self.settings.suites or capability.suites_for(self.model)
        suites = tuple(capability.Suite.packaged(name).head(self.settings.limit) for name in names)
        settings = self.settings
        return EvalPrompts(named, suites, None, settings.judge, settings.decoding, self.model.language)

    def evaluation(self) -> dict[str, Any]:
        """How every answer of this audit is made and judged."""
        return {
            "judge": self.settings.judge,
            "decoding": self.settings.decoding,
            "progress": self.progress,
        }


def measure(bench: Bench, model: ChatModel, stage: Stage) -> None:
    """Refusal rates on every set, capability, and the loss on the base's harmless answers."""
    results = bench.results
    rates, scores = ask(model, bench.asked, progress=bench.progress)
    for role, found in rates.items():
        found.save(results.path(stage, f"{role}.json"))
    scores.save(results.path(stage, "capability.json"))
    repeated = {
        role: finetune.echoes(found.completions.responses, bench.attack.data) for role, found in rates.items()
    }
    write_json(results.path(stage, "echoes.json"), repeated)
    pairs = scorable(model, results.rates("before", "harmless").completions)
    if pairs:
        answers = PromptSet.from_pairs(pairs, name="answers given before")
        capability.perplexity(model, answers, seed=bench.settings.seed).save(
            results.path(stage, "perplexity.json")
        )


def search(bench: Bench) -> tuple[int, int, list[int] | None]:
    """(training prompts, validation prompts, positions) of the direction search; None is every position."""
    harmful, harmless = bench.prompts.direction
    n_train, n_val = refusal.split_sizes(len(set(harmful.prompts)), len(set(harmless.prompts)))
    return (min(n_train, 32), min(n_val, 8), [-1]) if bench.settings.quick else (n_train, n_val, None)


def controls(bench: Bench) -> int:
    """Random directions beside the direction in a causal check."""
    return 1 if bench.settings.quick else N_RANDOM


def dosed(bench: Bench) -> PromptSet:
    """Harmless prompts that the direction is added to at several scales."""
    most = 8 if bench.settings.quick else DOSE_PROMPTS
    return bench.asked.harmless.head(min(most, len(bench.asked.harmless)))


def attack_config(bench: Bench) -> finetune.LoraConfig | finetune.FullConfig:
    """The attack's own settings, with what this audit changes in them."""
    steps = bench.settings.steps
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    return bench.attack.config_for(bench.model, **changes)


def find_direction(bench: Bench) -> None:
    """The refusal direction of the base, chosen on its own prompts, and what removing and adding it does."""
    results, (harmful, harmless) = bench.results, bench.prompts.direction
    n_train, n_val, positions = search(bench)
    direction = refusal.find_direction(
        bench.model, harmful, harmless, n_train=n_train, n_val=n_val, positions=positions,
        seed=bench.settings.seed, judge=bench.settings.judge, progress=bench.progress,
    )  # fmt: skip
    direction.save(bench.run.file("direction.safetensors"))
    if not direction.defined:
        return
    causal(bench, bench.model, direction, "before")
    curve = refusal.dose_curve(
        bench.model, direction, dosed(bench), seed=bench.settings.seed, **bench.evaluation()
    )
    curve.save(results.path("before", "dose.json"))
    with ablate_direction(bench.model, direction.vector.to(bench.model.device)):
        scores = bench.ask(bench.model)
    scores.save(results.path("ablated", "capability.json"))


def causal(bench: Bench, model: ChatModel, direction: Direction, stage: Stage) -> None:
    """Remove and add the base's direction in a model, with random controls, on the evaluation prompts."""
    results = bench.results
    check = refusal.causal_check(
        model,
        direction,
        bench.asked.harmful,
        bench.asked.harmless,
        n_random=controls(bench),
        random_addition=True,
        seed=bench.settings.seed,
        baseline=(results.rates(stage, "harmful"), results.rates(stage, "harmless")),
        **bench.evaluation(),
    )
    check.save(results.path(stage, "causal.json"))


def run_attack(bench: Bench) -> None:
    """Fine-tune an adapter in a folder of its own, with checkpoints; the base stays as it is."""
    settings, attack = bench.settings, bench.attack
    config = attack_config(bench)
    tuned = finetune.run(
        bench.model,
        attack,
        config,
        out=bench.run.path / ATTACK,
        progress=bench.progress and sys.stderr.isatty(),
        seed=settings.seed,
    )
    spent = tuned.accounting
    taught = finetune.learned(bench.model, tuned, attack.data)  # one that was not shows no robustness
    bench.run.note_training(tokens=spent.tokens, flops=spent.flops, formula=spent.formula)
    write_json(
        bench.results.path("attack", "attack.json"),
        {
            "name": attack.name,
            "source": attack.source,
            "n": len(attack.data),
            "sha256": attack.data.sha256,
            "preset": attack.preset_for(bench.model),
            "config": {**tuned.config.describe()},
            **{name: getattr(spent, name) for name in SPENT},
            "loss_before": taught.before,
            "loss_after": taught.after,
            "learned": taught.learned,
        },
    )
    write_csv(bench.results.path("attack", "log.csv"), tuned.log)


def attacked(bench: Bench) -> ChatModel:
    """The base with the run's adapter attached, on a copy that shares the weights."""
    return finetune.TunedModel.load(bench.run.path / ATTACK / "tuned", bench.model).model


def measure_again(bench: Bench) -> None:
    """Everything once more, on the attacked model: same prompts, judge, decoding, layer and position."""
    model, results = attacked(bench), bench.results
    try:
        measure(bench, model, "after")
        direction = results.direction()
        if direction is None or not direction.defined:
            return
        causal(bench, model, direction, "after")
        again = refusal.direction_like(model, direction, *bench.prompts.direction)
        table = _layers(bench, model, direction)
    except NumericsError as error:
        raise NumericsError(
            f"the attacked model broke down ({error}); try fewer steps or a smaller learning rate"
        ) from error
    write_csv(results.path("after", "layers.csv"), table)
    write_json(results.path("after", "direction.json"), {"norm_ratio": again.raw_norm / direction.raw_norm})


def _layers(bench: Bench, model: ChatModel, direction: Direction) -> pd.DataFrame:
    harmful, harmless = bench.prompts.direction
    split = refusal.split_prompts(harmful, harmless, direction.n_train[0], direction.n_val[0], direction.seed)

    def both(one: ChatModel) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            activations(one, split.harmful_train, direction.position),
            activations(one, split.harmless_train, direction.position),
        )

    return cosine_table(both(bench.model), both(model), seed=bench.settings.seed)
