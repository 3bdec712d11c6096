"""Trajectory: weights, directions, heads, rates and capability while a model is fine-tuned, step by step.

run = trajectory.record(model, finetune.attacks.harmful_compliance(15), seeds=3)
print(trajectory.order(run).statement())
trajectory.write_page("page.html", run)
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tamperlens import finetune
from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike, read_json, write_json
from tamperlens.base.masks import WeightMask
from tamperlens.base.results import Result
from tamperlens.finetune.arguments import steps_of
from tamperlens.finetune.fitting import settle
from tamperlens.models import ChatModel
from tamperlens.plots import Plot
from tamperlens.studies.following.observing import Observer
from tamperlens.studies.following.ordering import CANNOT_TELL, Order, order_of
from tamperlens.studies.following.recorder import TrajectoryRecorder
from tamperlens.studies.following.records import Record
from tamperlens.studies.following.schedule import Every
from tamperlens.studies.following.watch import CHEAP, MEASURES, SAMPLED, Watch, watch_for

__all__ = [
    "CANNOT_TELL",
    "CHEAP",
    "MEASURES",
    "SAMPLED",
    "Observer",
    "Order",
    "Trajectory",
    "TrajectoryRecorder",
    "Watch",
    "order",
    "order_of",
    "record",
    "watch_for",
    "write_page",
]

LOSS = "training loss"


@dataclass(frozen=True)
class Trajectory(Result):
    """One record per training step and seed, joining all measures.

    Attributes:
        table: one row per seed, step and measure: seed, step, measure, value, low, high, n, null, null_low,
            null_high, null_kind, reason. low and high: bootstrap over prompts (drift: over matrices); null:
            the base against itself (split halves for direction and heads, resampled prompts for the others).
        draws: [row, resample], the rows of `table` under each resample of the prompts; NaN where there are
            none (training loss).
        layers: seed, step, layer, cosine of the difference of means with the base's.
        heads: seed, step, layer, head, score.
        examples: seed, step, prompt, answer (cut), label.
        cost: one row per seed: seed, steps, training_seconds, recording_seconds, overhead (ratio), flops.
        model: name of the base.
        fingerprint: of it.
        attack: name of the attack or data.
        layer: of the direction.
        position: of the direction.
        frozen: number of weights that were frozen.
        setup_seconds: time for what is measured once for all seeds: the base itself.
        watch: hash of prompts, direction and settings.
    """

    table: pd.DataFrame
    draws: Tensor = field(repr=False)
    layers: pd.DataFrame
    heads: pd.DataFrame
    examples: pd.DataFrame
    cost: pd.DataFrame
    model: str
    fingerprint: str
    attack: str
    layer: int
    position: int
    frozen: int
    setup_seconds: float
    watch: str

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in order."""
        return list(dict.fromkeys(self.table["measure"]))

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return sorted(int(seed) for seed in self.table["seed"].unique())

    @property
    def overhead(self) -> float:
        """Seconds of recording over seconds of training, all seeds together."""
        return float(self.cost["recording_seconds"].sum() / self.cost["training_seconds"].sum())

    def of(self, measure: str, seed: int | None = None) -> pd.DataFrame:
        """The rows of one measure by seed and step.

        Raises:
            InputError: it was not recorded.
        """
        rows = self.table[self.table["measure"] == measure]
        if rows.empty:
            raise InputError(f"{measure!r} was not recorded; recorded: {', '.join(self.measures)}")
        rows = rows if seed is None else rows[rows["seed"] == seed]
        return rows.sort_values(["seed", "step"])

    def curves(self, measure: str) -> list[tuple[list[float], Any, Any]]:
        """(steps, values, draws [step, resample]) of each seed, as `order_of` takes them."""
        found = []
        for seed in self.seeds:
            rows = self.of(measure, seed)
            drawn = self.draws[rows.index.tolist()].double().numpy()
            known = bool((drawn == drawn).all())
            found.append(
                ([float(step) for step in rows["step"]], rows["value"].to_numpy(), drawn if known else None)
            )
        return found

    def plot(self, found: Order | None = None) -> Plot:
        """Stacked panels on one step axis, with bands and half-change marks."""
        from tamperlens.studies.following.figures import stacked

        return stacked(self, order(self) if found is None else found)


def record(
    model: ChatModel,
    attack: Any = None,
    config: Any = None,
    *,
    measures: Sequence[str] | None = None,
    every: Every = "log",
    sampled: Every | None = None,
    freeze: WeightMask | None = None,
    seeds: int | Sequence[int] = 3,
    out: PathLike | None = None,
    watch: Watch | None = None,
    progress: bool = False,
    **settings: Any,
) -> Trajectory:
    """Fine-tune once per seed and record everything on the way.

    Prompts, direction, answers of the base and resamples are fixed before the first step and are the same for
    all seeds. The base is measured once, before training; that time is `setup_seconds` and no part of the
    overhead, which at default settings on the organism (500 benign examples, 63 steps) is a quarter of the
    training time. A record costs about as much as two steps whatever the run's length, so that short runs
    bear more: of 20 steps, as much as the training itself.

    Args:
        model: the base; it is left as it was.
        attack: a `finetune.attacks` attack, or prompts with responses; `attacks.benign()` by default.
        config: settings of the fine-tuning; an attack brings its own.
        measures: some of `MEASURES`: "drift", "direction" (cosine, angle, projection gap), "log-odds"
            (refusal and over-refusal), "kl" (per token), "nats" (of the base's own harmless answers), "heads"
            are measured at every record; "rates" (refusal, over-refusal on look-alikes, broken text), "rd"
            and "capability" need generated answers and are measured at `sampled` steps.
        every: "log" (0, 1, 2, 4, 8, 16, …), n for every n-th step, or a list of steps; step 0 and
            the last step are always recorded.
        sampled: the same for generated answers; by default 0, 64, 256, 1024, … and the last step.
        freeze: weights that must not move (`finetune.run`).
        seeds: how many runs (seeds 0, 1, …), or which.
        out: folder; a run that was killed goes on from there, and finished seeds are read.
        watch: fixed prompts and direction at hand, instead of `measures` and `settings`.
        progress: show a bar.
        settings: of `watch_for`: harmful, harmless, lookalike, direction, groups, judge, n, questions, …

    Raises:
        InputError: an unknown measure or schedule, too few prompts, or settings that do not fit.
        RunFolderError: `out` holds another trajectory.
    """
    attack = finetune.attacks.benign() if attack is None else attack
    prompts, settled = settle(model, attack, config, None)
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"seeds={seeds!r} must be a number of at least 1, or different seeds")
    asked = watch_for(model, measures=measures, **settings) if watch is None else watch
    last = steps_of(settled, len(prompts))
    name = getattr(attack, "name", prompts.name)
    shared = {"model": model.name, "fingerprint": model.fingerprint, "attack": str(name)}
    plan = {
        **shared, "data": prompts.sha256, "config": settled.describe(), "watch": asked.sha256,
        "every": every, "sampled": sampled, "frozen": 0 if freeze is None else freeze.count,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tamperlens-") as spare:
        root = Path(spare) if out is None else _claim(Path(out), plan)
        runner = _Runner(model, asked, prompts, settled, freeze, root, out is not None, progress)
        parts = [runner.run(seed, every, sampled, last) for seed in numbers]
    return joined(parts, str(name))


def order(
    found: Trajectory,
    measures: Sequence[str] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Order:
    """Which measure changes first: steps of 10, 50 and 90 % of the final change, with intervals.

    See `Order` and `ordering.RULE`. Measures with fewer than three records (answers generated at the ends
    only), and the training loss, which has no step 0, are left out. With few seeds the bootstrap over seeds
    is too narrow; three are the least that says anything.

    Args:
        found: what `record` gave.
        measures: names as in `found.measures`; all by default.
        draws: bootstrap draws.
        seed: of them.

    Raises:
        InputError: a measure that was not recorded, or nothing to order.
    """
    names = [name for name in found.measures if name != LOSS] if measures is None else list(measures)
    for name in names:
        found.of(name)  # names what was recorded where one is unknown
    curves = {name: found.curves(name) for name in names}
    if measures is None:
        curves = {name: runs for name, runs in curves.items() if len(runs[0][0]) >= 3}
        curves.pop("direction angle", None)  # the cosine in another unit
    return order_of(curves, draws=draws, seed=seed)


def write_page(path: PathLike, found: Trajectory, result: Order | None = None) -> Path:
    """One self-contained page with a step slider: measures, heads, layers and answers at that step.

    Raises:
        RunFolderError: it cannot be written.
    """
    from tamperlens.studies.following.page import write

    return write(path, found, order(found) if result is None else result)


def _claim(folder: Path, plan: dict[str, Any]) -> Path:
    """The folder, refused when another trajectory lies in it."""
    note = folder / "plan.json"
    if note.is_file():
        before, now = read_json(note), {**plan}
        write_json(folder / ".plan.json", now)
        now = read_json(folder / ".plan.json")
        (folder / ".plan.json").unlink()
        differing = [key for key in now if before.get(key) != now[key]]
        if differing:
            raise RunFolderError(
                f"{folder} holds another trajectory (other {', '.join(differing)}); choose another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunFolderError(f"{folder} holds something else; choose an empty folder")
    else:
        write_json(note, plan)
    return folder


@dataclass
class _Runner:
    """One run per seed; the base is observed when the first of them needs it."""

    model: ChatModel
    watch: Watch
    prompts: Any
    config: Any
    freeze: WeightMask | None
    root: Path
    keep: bool
    progress: bool
    setup_seconds: float = 0.0
    observer: Observer | None = None

    def run(self, seed: int, every: Every, sampled: Every | None, last: int) -> Trajectory:
        """The trajectory of one seed, read where it is finished."""
        done = self.root / f"seed-{seed}.safetensors"
        if done.is_file():
            return Trajectory.load(done)
        work = self.root / f"seed-{seed}"
        if (work / "run" / "tuned").is_dir():
            shutil.rmtree(work)  # killed between its last step and its record: what it saw last is lost
        spent = self.setup_seconds
        if self.observer is None:
            self.observer = self._observer()
        recorder = TrajectoryRecorder(
            self.observer, every=every, sampled=sampled, last=last,
            path=work / "records.jsonl" if self.keep else None,
        )  # fmt: skip
        tuned = finetune.run(
            self.model, self.prompts, dataclasses.replace(self.config, seed=seed), freeze=self.freeze,
            recorders=[recorder], out=work / "run" if self.keep else None, progress=self.progress,
        )  # fmt: skip
        found = _of_records(recorder.records, seed, tuned, self.watch, self.setup_seconds - spent)
        if self.keep:
            found.save(done)
        return found

    def _observer(self) -> Observer:
        import time

        began = time.perf_counter()
        made = Observer(self.watch, self.model)
        self.setup_seconds += time.perf_counter() - began
        return made


def _of_records(
    records: Sequence[Record], seed: int, tuned: Any, watch: Watch, setup_seconds: float
) -> Trajectory:
    rows, draws, layers, heads, examples = [], [], [], [], []
    nothing = [float("nan")] * watch.draws
    for one in records:
        key = {"seed": seed, "step": one.step}
        for row in one.rows:
            rows.append({**key, **row})
            draws.append(one.draws.get(row["measure"], nothing))
        layers += [{**key, **row} for row in one.layers]
        heads += [
            {**key, "layer": layer, "head": head, "score": score}
            for layer, scores in enumerate(one.heads)
            for head, score in enumerate(scores)
        ]
        examples += [{**key, **row} for row in one.examples]
    for step, loss in zip(tuned.log["step"], tuned.log["loss"], strict=True):
        empty = dict.fromkeys(("low", "high", "null", "null_low", "null_high"), float("nan"))
        rows.append(
            {"seed": seed, "step": int(step), "measure": LOSS, "value": float(loss), "n": 1, **empty,
             "null_kind": "", "reason": ""}
        )  # fmt: skip
        draws.append(nothing)
    bill = tuned.accounting
    cost = {
        "seed": seed, "steps": bill.steps, "training_seconds": bill.wall_seconds,
        "recording_seconds": bill.recorder_seconds,
        "overhead": bill.recorder_seconds / max(bill.wall_seconds, 1e-9), "flops": float(bill.flops),
    }  # fmt: skip
    return Trajectory(
        table=pd.DataFrame(rows), draws=torch.tensor(draws, dtype=torch.float32),
        layers=pd.DataFrame(layers, columns=["seed", "step", "layer", "cosine"]),
        heads=pd.DataFrame(heads, columns=["seed", "step", "layer", "head", "score"]),
        examples=pd.DataFrame(examples, columns=["seed", "step", "prompt", "answer", "label"]),
        cost=pd.DataFrame([cost]), model=tuned.base.name, fingerprint=tuned.base.fingerprint,
        attack=tuned.data, layer=watch.direction.layer, position=watch.direction.position,
        frozen=0 if tuned.frozen is None else tuned.frozen.count, setup_seconds=setup_seconds,
        watch=watch.sha256,
    )  # fmt: skip


def joined(parts: Sequence[Trajectory], attack: str) -> Trajectory:
    """Trajectories of single seeds as one.

    Args:
        parts: of the same base, watch and settings.
        attack: what to call the attack.
    """
    names = ("table", "layers", "heads", "examples", "cost")
    frames: dict[str, Any] = {
        name: pd.concat([getattr(part, name) for part in parts], ignore_index=True) for name in names
    }
    return dataclasses.replace(
        parts[0],
        **frames,
        draws=torch.cat([part.draws for part in parts]),
        attack=attack,
        setup_seconds=sum(part.setup_seconds for part in parts),
    )
