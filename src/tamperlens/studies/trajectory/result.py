"""What a trajectory holds: one record per step and seed, what changes first in it, and its page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike
from tamperlens.base.measurement import Measurement
from tamperlens.base.results import Result
from tamperlens.base.schemas import Schema, read_document
from tamperlens.plots import Plot
from tamperlens.studies.trajectory.ordering import Order, Run, order_of
from tamperlens.studies.trajectory.records import COLUMNS, Record, current
from tamperlens.studies.trajectory.records import read as read_records
from tamperlens.studies.trajectory.setup import Setup

LOSS = "training loss"


@dataclass(frozen=True)
class Trajectory(Result):
    """One record per training step and seed, joining all measures.

    Attributes:
        table: one row per seed, step and measure: seed, step, measure, set, value, low, high, n, null,
            null_low, null_high, null_kind, reason, unchanged_low, unchanged_high, changed. low and high:
            bootstrap over prompts (drift: over matrices). Two questions are answered apart. `changed`: has
            the model moved this number on the same prompts? It lies outside [unchanged_low, unchanged_high]:
            paired t test for means, exact McNemar test for rates, centred bootstrap for direction and heads;
            None for distances from the base (drift, KL, RD), which any change makes positive. null: what
            other prompts of the base would give (split halves for direction and heads, resampled prompts for
            the others); a change can be real and within that band.
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
        watch: hash of the setup: prompts, direction and settings.
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
        measure = current(measure) if measure not in self.measures else measure
        rows = self.table[self.table["measure"] == measure]
        if rows.empty:
            raise InputError(f"{measure!r} was not recorded; recorded: {', '.join(self.measures)}")
        rows = rows if seed is None else rows[rows["seed"] == seed]
        return rows.sort_values(["seed", "step"])

    def changed_from(self, measure: str) -> dict[int, int | None]:
        """Seed to the first step from which every record of a measure has `changed`; None where none has.

        Raises:
            InputError: it was not recorded.
        """
        found: dict[int, int | None] = {}
        for seed in self.seeds:
            rows = self.of(measure, seed)
            found[seed] = None
            for step, changed in zip(rows["step"], rows.get("changed", [None] * len(rows)), strict=True):
                if changed is None or pd.isna(changed) or not changed:
                    found[seed] = None
                elif found[seed] is None:
                    found[seed] = int(step)
        return found

    def curves(self, measure: str) -> list[Run]:
        """(steps, values, draws [step, resample]) of each seed, as `order_of` takes them."""
        found: list[Run] = []
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
        from tamperlens.studies.trajectory.figures import stacked

        return stacked(self, order(self) if found is None else found)


def order(
    found: Trajectory | PathLike,
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
        found: what `record` gave, or the folder of `record` or of a `Monitor`.
        measures: names as in `found.measures`; all by default.
        draws: bootstrap draws.
        seed: of them.

    Raises:
        InputError: a measure that was not recorded, or nothing to order.
    """
    found = found if isinstance(found, Trajectory) else read(found)
    names = [name for name in found.measures if name != LOSS] if measures is None else list(measures)
    for name in names:
        found.of(name)  # names what was recorded where one is unknown
    curves = {name: found.curves(name) for name in names}
    if measures is None:
        curves = {name: runs for name, runs in curves.items() if len(runs[0][0]) >= 3}
        curves.pop("direction angle", None)  # the cosine in another unit
    return order_of(curves, draws=draws, seed=seed, unchanged=_unchanged(found, list(curves)))


def _unchanged(found: Trajectory, names: Sequence[str]) -> list[str]:
    """Measures that are told not to have changed at the last record, on the same prompts, in any seed."""
    quiet = []
    for name in names:
        rows = found.of(name)
        last = rows[rows["step"] == rows["step"].max()]
        known = [bool(one) for one in last.get("changed", []) if one is not None and not pd.isna(one)]
        if known and not any(known):
            quiet.append(name)
    return quiet


def write_page(path: PathLike, found: Trajectory, result: Order | None = None) -> Path:
    """One self-contained page with a step slider: measures, heads, layers and answers at that step.

    Raises:
        RunFolderError: it cannot be written.
    """
    from tamperlens.studies.trajectory.page import write

    return write(path, found, order(found) if result is None else result)


def plan_of(setup: Setup, **more: Any) -> dict[str, Any]:
    """What `plan.json` of a run folder holds: what is measured, on what; the same for a `Monitor`'s."""
    direction = setup.direction
    return {
        **more, "watch": setup.sha256, "language": setup.asked.language, "layer": direction.layer,
        "position": direction.position, "prompts": setup.asked.settings(),
    }  # fmt: skip


class _Plan(Schema):
    """What plan.json holds."""

    watch: str
    layer: int
    position: int
    model: str
    fingerprint: str
    attack: str
    data: str
    frozen: int
    config: dict[str, Any]
    kind: str = "trajectory"


def read_plan(root: Path) -> dict[str, Any]:
    """The plan of a folder, checked.

    Raises:
        RunFolderError: it is damaged.
    """
    return read_document(root / "plan.json", _Plan, remedy="choose another folder", error=RunFolderError)


def read(folder: PathLike) -> Trajectory:
    """The trajectory in a folder of `record` or of a `Monitor`: finished seeds; where none is, what there is.

    Raises:
        RunFolderError: no such folder.
    """
    root = Path(folder)
    if not (root / "plan.json").is_file():
        raise RunFolderError(f"{root} holds no trajectory; name the folder of trajectory.record or a Monitor")
    plan = read_plan(root)
    parts = [Trajectory.load(one) for one in sorted(root.glob("seed-*.safetensors"))]
    named = {name: plan[name] for name in ("model", "fingerprint", "attack", "frozen")}
    for place in [] if parts else sorted(root.glob("seed-*/records.jsonl")):
        seed = int(place.parent.name.removeprefix("seed-"))
        parts.append(trajectory_of(read_records(place), seed, plan, **named))
    if not parts:
        raise RunFolderError(f"{root} holds no records yet; come back when the first step is recorded")
    return joined(parts, plan["attack"])


def trajectory_of(
    records: Sequence[Record],
    seed: int,
    setup: Setup | Mapping[str, Any],
    *,
    model: str,
    fingerprint: str,
    attack: str,
    losses: Sequence[tuple[int, float]] = (),
    steps: int = 0,
    training_seconds: float = math.nan,
    recording_seconds: float = math.nan,
    flops: float = math.nan,
    frozen: int = 0,
    setup_seconds: float = 0.0,
) -> Trajectory:
    """One seed's records as a trajectory.

    Args:
        records: of one run, in order.
        seed: of the run.
        setup: what was measured, or the plan of the run folder.
        model: name of the base.
        fingerprint: of it.
        attack: name of the attack or data.
        losses: (step, training loss).
        steps: optimizer steps made.
        training_seconds: of training alone.
        recording_seconds: of recording alone.
        flops: of training.
        frozen: number of weights that were frozen.
        setup_seconds: of what is measured once for all seeds.
    """
    plan = plan_of(setup) if isinstance(setup, Setup) else setup
    count = max((len(drawn) for one in records for drawn in one.draws.values()), default=0)
    rows, draws, layers, heads, examples = [], [], [], [], []
    nothing = [math.nan] * count
    for one in records:
        key = {"seed": seed, "step": one.step}
        for row in one.rows:
            rows.append({**key, **row.row(COLUMNS)})
            draws.append(one.draws.get(row.measure, nothing))
        layers += [{**key, **row} for row in one.layers]
        heads += [
            {**key, "layer": layer, "head": head, "score": score}
            for layer, scores in enumerate(one.heads)
            for head, score in enumerate(scores)
        ]
        examples += [{**key, **row} for row in one.examples]
    for step, loss in losses:
        said = Measurement(LOSS, "training data", "", float(loss), n=1)
        rows.append({"seed": seed, "step": int(step), **said.row(COLUMNS)})
        draws.append(nothing)
    cost = {
        "seed": seed, "steps": steps, "training_seconds": training_seconds,
        "recording_seconds": recording_seconds,
        "overhead": recording_seconds / max(training_seconds, 1e-9), "flops": flops,
    }  # fmt: skip
    return Trajectory(
        table=pd.DataFrame(rows), draws=torch.tensor(draws, dtype=torch.float32),
        layers=pd.DataFrame(layers, columns=["seed", "step", "layer", "cosine"]),
        heads=pd.DataFrame(heads, columns=["seed", "step", "layer", "head", "score"]),
        examples=pd.DataFrame(examples, columns=["seed", "step", "prompt", "answer", "label"]),
        cost=pd.DataFrame([cost]), model=model, fingerprint=fingerprint, attack=attack,
        layer=plan["layer"], position=plan["position"], frozen=frozen, setup_seconds=setup_seconds,
        watch=plan["watch"],
    )  # fmt: skip


def joined(parts: Sequence[Trajectory], attack: str) -> Trajectory:
    """Trajectories of single seeds as one.

    Args:
        parts: of the same base, setup and settings.
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
