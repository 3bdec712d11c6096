"""`Monitor`: the trajectory in anyone's Trainer or TRL script, as a callback."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback

from tamperlens.base.cells import each_cell, neutral
from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.base.files import (
    PathLike,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)
from tamperlens.base.schemas import read_table
from tamperlens.finetune import sharding
from tamperlens.models import ChatModel
from tamperlens.plots import Plot
from tamperlens.studies.monitor.loops import Arguments, Control, OwnLoop, State, send, trackers_beside
from tamperlens.studies.monitor.processes import ProcessGroup, before_training, own_weights_move
from tamperlens.studies.monitor.rules import Rule, rules_of
from tamperlens.studies.trajectory.observing import Observer
from tamperlens.studies.trajectory.records import COLUMNS as ROW
from tamperlens.studies.trajectory.records import Record, append, line, read
from tamperlens.studies.trajectory.result import plan_of, read_plan, trajectory_of
from tamperlens.studies.trajectory.result import read as read_trajectory
from tamperlens.studies.trajectory.schedule import Every, is_due
from tamperlens.studies.trajectory.setup import CHEAP, Setup, setup_for
from tamperlens_hooks import unwrap
from tamperlens_hooks.lowrank import rewritten
from tamperlens_hooks.state import preserve_state, preserved_randomness

SHOWN = {"refusal log-odds": "odds", "direction cosine": "cos", "refusal rate": "refused"}
COLUMNS = ("step", *ROW, "seconds")
SETUP: dict[str, Any] = {"n_train": 32, "n_val": 8, "progress": True}
"""Of the search for a direction, where none is given: training should begin soon."""


class Monitor(OwnLoop, TrainerCallback):  # type: ignore[misc]
    """Records the trajectory of a training that somebody else's script runs.

        from tamperlens import Monitor
        monitor = Monitor("runs/monitor", stop="refusal log-odds below the null band twice")
        trainer.add_callback(monitor)

    or in a loop of your own:

        monitor.step(model, 0)                   # before training: the base is the model as it is now
        for step, batch in enumerate(loader, 1):
            ...                                  # one optimiser step
            if monitor.step(model, step):        # True where a rule says stop
                break
        monitor.finish()

    Rows go to FOLDER/rows.csv as they come, the newest numbers to the progress bar, to the Trainer's trackers
    (TensorBoard, W&B, …; every record with its null bands, wherever the monitor stands among the callbacks)
    and into `state.log_history`; in a loop of your own `monitor.newest` has them. FOLDER is also a
    trajectory's, with the same records: `trajectory.order(FOLDER)` and `trajectory.read(FOLDER)` take it.

    The first step must start from the model that is the reference: its activations, answers and head scores
    at that moment are the base. Training is left bit for bit as it is without the monitor: random states
    (Python, numpy, torch), training flags, `requires_grad` and gradients are put back after every
    measurement, which runs in the training's own precision (autocast, 4-bit weights). After training
    `monitor.cost` says what it took, and FOLDER/monitor.json holds it.

    LoRA and full fine-tuning on one device, or in several processes of which the first one measures. Where
    FSDP2 shards the weights, it measures a whole copy of its own, built on `reference`. FSDP's first version
    and ZeRO-3 are refused.
    """

    @renamed_arguments(watch="setup")
    def __init__(
        self,
        folder: PathLike = "tamperlens-monitor",
        *,
        every: Every = "log",
        sampled: Every | None = None,
        measures: Sequence[str] = CHEAP,
        warn: str | Rule | Sequence[str | Rule] = (),
        stop: str | Rule | Sequence[str | Rule] = (),
        reference: ChatModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        setup: Setup | None = None,
        copy_limit: int = 2**31,
        budget: float | None = 0.3,
        **settings: object,
    ) -> None:
        """See the class.

        Args:
            folder: where rows, warnings and cost are written; a file of an earlier run is replaced, one of an
                interrupted run that the Trainer resumes is continued.
            every: "log" (0, 1, 2, 4, 8, …), n for every n-th step, or a list; the last step is recorded too.
            sampled: steps at which answers are generated, where `measures` has "rates" or "capability".
            measures: see `trajectory.record`; without "rd", which needs the base's embeddings of answers.
            warn: rules to warn of, in words or as `Rule`s.
            stop: rules to stop for; the trained weights are then put back to the last record at which no rule
                was beyond its bound, and written to FOLDER/last-good.safetensors.
            reference: the base, where training does not start from it (a resumed full fine-tuning) or where
                weights are sharded.
            tokenizer: where the Trainer was not given one.
            setup: fixed prompts and direction at hand, instead of `measures` and `settings`.
            copy_limit: bytes of weights that may be kept in memory, for drift in full fine-tuning and to go
                back to.
            budget: share of the training's own time that measuring may take: a due measurement that would
                exceed it is left out, except for the first and the last one. Which are made then depends on
                the machine; what is measured at each does not. None makes every due one. Setting up comes on
                top.
            settings: of `trajectory.setup_for`: harmful, harmless, direction (or the file of one), groups,
                limit, … A direction that is not given is found on 32 + 8 prompts a side.

        Raises:
            InputError: a rule or measure that does not exist, or a budget that is not positive.
        """
        asked = tuple(measures if setup is None else setup.measures)
        if "rd" in asked:
            raise InputError("the monitor cannot measure 'rd': it holds no second model; leave it out")
        if budget is not None and not budget > 0:
            raise InputError(f"budget={budget} must be positive: a share of the training time, such as 0.3")
        self.folder, self.every, self.sampled, self.budget = Path(folder), every, sampled, budget
        self.measures, self.settings, self.setup = asked, settings, setup
        self.rules = [*rules_of(warn, stop=False), *rules_of(stop, stop=True)]
        self.reference, self.tokenizer, self.copy_limit = reference, tokenizer, copy_limit
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.stopped_at: int | None = None
        self.good_step: int | None = None
        self.seconds = 0.0
        self.left_out: list[int] = []
        self._measurements = 0
        self._trackers: list[Any] = []
        self._observer: Observer | None = None
        self._model: ChatModel | None = None
        self._processes: ProcessGroup | None = None
        self._good: dict[str, torch.Tensor] = {}
        self._streak = [0] * len(self.rules)
        self._last: int | None = None
        self._began = 0.0
        is_due(every, 1), sampled is None or is_due(sampled, 1)  # refuses nonsense before training

    @property
    def cost(self) -> dict[str, float]:
        """Seconds of measuring (setup included), seconds of everything, and the share of measuring."""
        whole = self._whole
        if whole is None:
            whole = time.perf_counter() - self._began if self._began else 0.0
        share = self.seconds / whole if whole else 0.0
        return {
            "seconds": self.seconds,
            "of_seconds": whole,
            "share": share,
            "setup_seconds": self._setup_seconds,
        }

    _seed = 0
    _whole: float | None = None
    _setup_seconds: float = 0.0

    @property
    def newest(self) -> dict[str, float]:
        """The newest record, as trackers get it: "tamperlens/MEASURE", and its null band's two ends."""
        found: dict[str, float] = {}
        for row in self.rows:
            if row["step"] == self._last:
                name = f"tamperlens/{row['measure']}"
                ends = {f"{name} (null {end})": row.get(f"null_{end}", math.nan) for end in ("low", "high")}
                found |= {name: float(row["value"])}
                found |= {key: float(value) for key, value in ends.items() if not math.isnan(float(value))}
        return found

    def plot(self) -> Plot:
        """A `tamperlens.plots.Plot` of the measures over the steps so far, one below the other.

        Raises:
            RunFolderError: nothing was recorded yet.
            InputError: fewer than three records.
        """
        return read_trajectory(self.folder).plot()

    def to_frame(self) -> pd.DataFrame:
        """The rows, with the columns of `COLUMNS`."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def on_train_begin(self, args: Arguments, state: State, control: Control, **kwargs: object) -> None:
        """Take the model as it is as the base, and make the record of step 0."""
        module: Any = kwargs["model"]
        self._processes = ProcessGroup(args, module)
        module = self._processes.measured_module(self.reference)
        if not self._processes.first:
            return
        tokenizer = self.tokenizer if self.tokenizer is not None else kwargs.get("processing_class")
        if tokenizer is None:
            raise InputError("the Trainer has no tokenizer; pass tokenizer= to Monitor")
        self._trackers = trackers_beside(self)
        self._began = time.perf_counter()
        with preserved_randomness():
            with preserve_state(module, rng=True, grad=True), torch.no_grad():
                self._start(module, tokenizer, resumed=state.global_step > 0)
            self.seconds = self._setup_seconds = time.perf_counter() - self._began
            self._seed = int(args.seed)
            self._load(int(state.global_step))
            if state.global_step == 0:
                self._measure(0, control, sampled=True)
                send(self._trackers, args, state, control, self.newest, module)

    def on_step_end(self, args: Arguments, state: State, control: Control, **kwargs: object) -> None:
        """Measure, where it is due."""
        step = int(state.global_step)
        sampled = self.sampled is not None and is_due(self.sampled, step, state.max_steps)
        if self._processes is None or not (sampled or is_due(self.every, step, state.max_steps)):
            return
        if step != state.max_steps and not self._affordable():
            self.left_out.append(step)
            return
        self._processes.refresh()
        self._last = step
        if self._observer is not None:
            with preserved_randomness():  # writing and showing draw nothing, but what they call is not ours
                self._measure(step, control, sampled=sampled or step == state.max_steps)
                self._show(int(state.max_steps))
                send(self._trackers, args, state, control, self.newest, kwargs.get("model"))
        self.stopped_at = self._processes.agree(self.stopped_at)
        control.should_training_stop |= self.stopped_at is not None

    def on_log(
        self,
        args: Arguments,
        state: State,
        control: Control,
        logs: dict[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Add the newest numbers to what the Trainer logs, where a record is new."""
        step = int(state.global_step)
        if logs is None or self._last != step:
            return
        found = self.newest
        if not self._trackers:  # they have the record already
            logs.update(found)
        if state.log_history and state.log_history[-1].get("step") == step:  # written before this call
            state.log_history[-1].update(found)

    def on_train_end(self, args: Arguments, state: State, control: Control, **kwargs: object) -> None:
        """The last record, the bill, and the last good weights where a rule stopped the run."""
        if self._processes is None:
            return
        step = int(state.global_step)
        if self._last != step:
            self._processes.refresh()
            if self._observer is not None:
                with preserved_randomness():
                    self._measure(step, control, sampled=True)
                    send(self._trackers, args, state, control, self.newest, kwargs.get("model"))
            self.stopped_at = self._processes.agree(self.stopped_at)
        if self.stopped_at is not None:
            self._go_back()
        if self._observer is None:
            return
        self._whole = time.perf_counter() - self._began
        self._keep_trajectory(state)
        write_json(
            self.folder / "monitor.json",
            {
                "cost": self.cost, "rules": [str(rule) for rule in self.rules], "warnings": self.warnings,
                "stopped_at": self.stopped_at, "good_step": self.good_step, "measures": self.measures,
                "budget": self.budget, "left_out": self.left_out,
            },
        )  # fmt: skip

    def _start(self, module: Any, tokenizer: PreTrainedTokenizerBase, *, resumed: bool) -> None:
        model = ChatModel.from_parts(module, tokenizer, name="in training", check_anatomy=False)
        adapted = unwrap(module) is not module
        base = self.reference
        if base is None:
            if resumed and not adapted:
                raise InputError(
                    "a resumed full fine-tuning does not start from the base; pass reference= to Monitor"
                )
            how = rewritten(module) if resumed else None
            if how is not None:
                raise InputError(f"{how} has rewritten the base weights; pass reference= to Monitor")
            base = model
        setup = self.setup
        with module.disable_adapter() if resumed and adapted and base is model else nullcontext():
            if setup is None:
                print(f"tamperlens: setting up the monitor in {self.folder}", file=sys.stderr, flush=True)
                given: Any = {**SETUP, **self.settings}
                setup = setup_for(base, measures=self.measures, **given)
            origin = base
            if "drift" in setup.measures and base is model and (not adapted or own_weights_move(module)):
                size = sum(p.numel() * p.element_size() for p in module.parameters())
                if size > self.copy_limit:
                    setup = dataclasses.replace(
                        setup, measures=tuple(m for m in setup.measures if m != "drift")
                    )
                    self._warn(f"drift is left out: a copy of the base takes {size} bytes (copy_limit)")
                else:
                    origin = model.with_module(before_training(module))
            with torch.enable_grad():
                self._observer = Observer(setup, base, drift_base=origin)
        if setup.direction.passed is False:
            self._warn(
                f"the direction that is measured did not pass its tests ({setup.direction.flag}); its cosine "
                "may say nothing about refusal: pass direction= (or a file of one), or other prompts"
            )
        self._model = model
        for rule in self.rules:
            rule.check(self._observer.start)

    def _affordable(self) -> bool:
        """Whether one more usual measurement stays within the budget; the first process says."""
        if self.budget is None:
            return True
        assert self._processes is not None
        training, measuring = (
            time.perf_counter() - self._began - self.seconds,
            self.seconds - self._setup_seconds,
        )
        usual = measuring / max(self._measurements, 1)
        fits = self._measurements == 0 or measuring + usual <= self.budget * training
        return bool(self._processes.agree(int(fits)))

    def _measure(self, step: int, control: Any, *, sampled: bool) -> None:
        assert self._observer is not None
        assert self._model is not None
        began = time.perf_counter()
        with preserve_state(self._model.module, rng=True, grad=True):
            record = self._observer.observe(step, self._model, sampled=sampled)
        self._last = step
        self._judge(record, control)
        spent = time.perf_counter() - began
        self.seconds += spent
        self._measurements += step > 0
        append(self._records, record, first=step == 0)
        self._write([{"step": step, **row.row(ROW), "seconds": spent} for row in record.rows])

    def _judge(self, record: Record, control: Any) -> None:
        good = True
        for i, rule in enumerate(self.rules):
            beyond = rule.beyond(record)
            if beyond is None:
                continue
            good = good and not beyond
            self._streak[i] = self._streak[i] + 1 if beyond else 0
            if self._streak[i] == rule.times:
                row = record.row(rule.measure)
                value = math.nan if row is None else row.value
                what = f"step {record.step}: {rule} ({value:.4g})"
                if rule.stop and self.stopped_at is None:
                    self.stopped_at = record.step
                    control.should_training_stop = True
                    what += f"; stopped, last good record at step {self.good_step}"
                self._warn(what)
        if good and self.stopped_at is None and any(rule.stop for rule in self.rules):
            self._keep(record.step)

    def _keep(self, step: int) -> None:
        assert self._model is not None
        trained = sharding.trained(self._model.module)
        if sum(p.numel() * p.element_size() for p in trained.values()) > self.copy_limit:
            return
        self.good_step = step
        self._good = {name: value.clone() for name, value in trained.items()}

    def _go_back(self) -> None:
        assert self._processes is not None
        self.good_step = self._processes.agree(self.good_step if self._good else None)
        if self.good_step is None:
            self._warn("the last good weights were not kept (copy_limit); the model is as training left it")
            return
        self._processes.put(self._good)
        if self._processes.first:
            write_tensors(self.folder / "last-good.safetensors", self._good, {"step": self.good_step})

    @property
    def _records(self) -> Path:
        return self.folder / f"seed-{self._seed}" / "records.jsonl"

    def _plan(self, step: int) -> None:
        """The folder's plan, and the whole records of an interrupted run up to where it goes on."""
        assert self._observer is not None
        assert self._model is not None
        setup = self._observer.setup
        base = self._model if self.reference is None else self.reference
        name = base.name if self.reference is not None else "the model before training"
        plan = plan_of(
            setup, kind="monitor", model=name, fingerprint=base.base_fingerprint, data="", frozen=0,
            attack="the script's own training", every=self.every, sampled=self.sampled,
            config={"seed": self._seed, "rules": [str(rule) for rule in self.rules]},
        )  # fmt: skip
        write_json(self.folder / "plan.json", plan)
        before = [one for one in read(self._records) if step > 0 and one.step <= step]
        write_text(self._records, "".join(line(one) for one in before))

    def _keep_trajectory(self, state: Any) -> None:
        """The records as a `Trajectory`, beside those of other seeds."""
        assert self._observer is not None
        plan = read_plan(self.folder)
        losses = [(one["step"], one["loss"]) for one in state.log_history if "loss" in one]
        made = trajectory_of(
            read(self._records), self._seed, self._observer.setup, model=plan["model"],
            fingerprint=plan["fingerprint"], attack=plan["attack"], losses=losses,
            steps=int(state.global_step), training_seconds=self.cost["of_seconds"] - self.seconds,
            recording_seconds=self.seconds - self._setup_seconds, setup_seconds=self._setup_seconds,
            flops=float(state.total_flos or math.nan),
        )  # fmt: skip
        made.save(self.folder / f"seed-{self._seed}.safetensors")

    def _load(self, step: int) -> None:
        """Rows of an interrupted run up to where it goes on; a new file otherwise."""
        path = self.folder / "rows.csv"
        self.rows = []
        (self.folder / f"seed-{self._seed}.safetensors").unlink(missing_ok=True)
        self._plan(step)
        if step > 0 and path.is_file():
            # A kill in the middle of a write leaves a short last line, whose missing cells read as NaN.
            how: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan"]}
            found = read_table(path, ("step", "seconds"), COLUMNS, **how).dropna(subset=["seconds"])
            self.rows = [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]
            self.rows = [row for row in self.rows if row["step"] <= step]
        write_csv(path, self.to_frame())

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        text = each_cell(pd.DataFrame(rows, columns=list(COLUMNS)), neutral).to_csv(
            index=False, header=False, lineterminator="\n"
        )
        with (self.folder / "rows.csv").open("a", encoding="utf-8", newline="") as handle:
            handle.write(text)

    def _show(self, total: int) -> None:
        """Put the newest numbers behind the Trainer's bar, or behind any bar of this length."""
        from tqdm import tqdm  # type: ignore[import-untyped]

        found = self.newest
        named = {short: found.get(f"tamperlens/{name}") for name, short in SHOWN.items()}
        words = ", ".join(f"{short} {value:.2f}" for short, value in named.items() if value is not None)
        for bar in list(getattr(tqdm, "_instances", ())):
            if bar.total == total and not bar.disable:
                bar.set_postfix_str(words)

    def _warn(self, words: str) -> None:
        self.warnings.append(words)
        warnings.warn(f"tamperlens: {words}", UserWarning, stacklevel=3)
