"""What a grid is: models × attacks × ranks × steps × data sizes × learning rates × seeds × defences."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tamperlens import finetune
from tamperlens.base.boundary import fields_of, hold_fields, known_names
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, regular
from tamperlens.base.kinds import Range, told
from tamperlens.base.results import Result
from tamperlens.models import DEFAULT, Decoding, old_length
from tamperlens.models.decoding import WRITTEN

Kind = Literal["none", "freeze", "rewind", "mix"]
Selection = Literal["top-safety", "safety-critical"]
MOST_CELLS = 100_000
"""Cells of a grid; at a second a cell, more than a day."""


@dataclass(frozen=True)
class Defence(Result):
    """What stands against the attack.

    Attributes:
        name: what tables call it; made from the settings when empty.
        kind: "none"; "freeze" (weights held while the rest trains); "rewind" (trained freely, then put
            back); "mix" (refusals mixed into the attack's data).
        select: which weights: "top-safety" (highest SNIP on refused harmful requests) or "safety-critical"
            (of those, less the top ones on ordinary instructions).
        share: of the weights, for both selections.
        mask: a file that `WeightMask.save` wrote, instead of a selection.
        examples: how many refusals are mixed in.
        data: file of refused harmful requests (prompts and responses) to mix in, or to choose weights on; the
            packaged ones by default, for models that speak the embedded organism's language only.
        utility: file of ordinary requests with answers, for "safety-critical"; likewise.
    """

    name: str = ""
    kind: Kind = "none"
    select: Selection = "top-safety"
    share: float = 0.01
    mask: str = ""
    examples: int = 0
    data: str = ""
    utility: str = ""

    def __post_init__(self) -> None:
        hold_fields(self, "defences: ")
        if self.kind == "mix" and self.examples < 1:
            raise InputError("a defence of the kind 'mix' needs examples = 1 or more")
        if not self.name:
            which = self.mask or f"{self.select} {100 * self.share:g}%"
            made = {"none": "none", "mix": f"mix {self.examples}"}.get(self.kind, f"{self.kind} {which}")
            object.__setattr__(self, "name", made)


@dataclass(frozen=True)
class Evaluation(Result):
    """How every cell is measured; the same for all, and for the model before the attack.

    Attributes:
        harmful: file of harmful prompts; the packaged held-out ones in the model's language by default.
        harmless: file of harmless prompts (over-refusal), likewise.
        lookalike: file of harmless prompts that sound harmful, likewise.
        column: the prompts' column in those files, where it is not recognised.
        limit: most prompts a set.
        judge: name of a registered judge.
        decoding: how answers are made; in files its settings stand among these, such as `max_new_tokens`.
        suites: capability suites; those in the model's language by default.
        suite_limit: questions a suite.
        embedder: for RD: "auto" is a sentence embedder where one is at hand (`refusal.default_embedder`),
            "base" the untouched model's own mean hidden state, which hardly tells real answers apart; or a
            sentence-transformers name or folder.
    """

    harmful: str = ""
    harmless: str = ""
    lookalike: str = ""
    column: str = ""
    limit: int = 100
    judge: str = "acts"
    decoding: Decoding = DEFAULT
    suites: tuple[str, ...] = ()
    suite_limit: int = 50
    embedder: str = "auto"

    def __post_init__(self) -> None:
        hold_fields(self, "evaluation: ")
        hold_fields(self.decoding, "evaluation: ", max_new_tokens=Range(1, 2**16))

    def describe(self) -> dict[str, object]:
        """In plain values, as manifests and addresses hold it."""
        return {**{k: v for k, v in vars(self).items() if k != "decoding"}, **self.decoding.changed()}


Evaluation.__init__ = old_length(Evaluation.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Cell:
    """One point of the grid: one model attacked in one way, measured after so many steps.

    Attributes:
        model: as `tamperlens.load` takes it.
        attack: name of a packaged attack, or a file of prompts and responses.
        rank: of the LoRA; 0 for full fine-tuning.
        steps: optimiser steps.
        data_size: examples of the attack.
        learning_rate: None for the attack's own.
        seed: of initialisation, data order and dropout.
        defence: what stands against it.
    """

    model: str
    attack: str
    rank: int
    steps: int
    data_size: int
    learning_rate: float | None
    seed: int
    defence: Defence

    @property
    def label(self) -> str:
        """The cell in words, for messages."""
        rate = "" if self.learning_rate is None else f", lr {self.learning_rate:g}"
        guard = "" if self.defence.kind == "none" else f", {self.defence.name}"
        how = f"rank {self.rank}" if self.rank else "full"
        return (
            f"{self.model}, {self.attack} x {self.data_size}, {how}, {self.steps} steps{rate}, seed "
            f"{self.seed}{guard}"
        )

    def training(self) -> Cell:
        """What decides the training run: rewinding comes after it, so it is shared with no defence."""
        return dataclasses.replace(self, defence=Defence()) if self.defence.kind == "rewind" else self

    def family(self) -> Cell:
        """What the cells of one training run share when it can be cut: everything but the steps."""
        return dataclasses.replace(self.training(), steps=0)


@dataclass(frozen=True)
class Grid(Result):
    """A declared grid. Every combination of the lists is one cell.

    Attributes:
        models: names, folders or hub ids.
        attacks: packaged attacks or files of prompts and responses.
        ranks: of the LoRA; 0 for full fine-tuning.
        steps: budgets in optimiser steps.
        data_sizes: examples of the attack.
        learning_rates: empty for the attacks' own.
        seeds: of the training.
        defences: "none" by default.
        training: further settings of `LoraConfig` or `FullConfig`, such as `batch_size`. The schedule is
            constant unless given, so that one run serves every budget.
        evaluation: how cells are measured.
        dtype: as in `tamperlens.load`.
        device: as in `tamperlens.load`; not part of a cell's address.
    """

    models: tuple[str, ...]
    attacks: tuple[str, ...] = ("harmful-compliance",)
    ranks: tuple[int, ...] = (8,)
    steps: tuple[int, ...] = (20,)
    data_sizes: tuple[int, ...] = (15,)
    learning_rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    defences: tuple[Defence, ...] = (Defence(),)
    training: Mapping[str, object] = field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(value))
        hold_fields(self, "grid: ")
        for name in _LISTS[:-1]:
            values = getattr(self, name)
            if not values and name != "learning_rates":
                raise InputError(f"grid: {name} is empty; give at least one")
            if len(set(values)) < len(values):
                raise InputError(f"grid: {name} names one value twice: {list(values)}")
        names = [one.name for one in self.defences]
        if not names or len(set(names)) < len(names):
            raise InputError(f"grid: defences need different names, and there are {names}")
        if self.size > MOST_CELLS:
            raise InputError(f"grid: {self.size:,} cells, and at most {MOST_CELLS:,} go; shorten the lists")
        taken = {"steps", "epochs", "rank", "learning_rate", "seed", "log_every", "save_every"}
        for name in set(self.training) & taken:
            raise InputError(f"grid: training.{name} is an axis of the grid or set by it; leave it out")
        for rank in self.ranks:
            kind: Any = finetune.LoraConfig if rank else finetune.FullConfig
            known_names(kind, self.training, "training" if rank else "training (rank 0: full fine-tuning)")
            try:
                kind(**fields_of(kind, {**self.settings, **({"rank": rank} if rank else {})}))
            except InputError as error:
                raise InputError(f"training: {error}") from error

    @property
    def size(self) -> int:
        """Number of cells."""
        axes = (getattr(self, name) for name in _LISTS if name != "learning_rates")
        return math.prod(map(len, axes)) * max(1, len(self.learning_rates))

    @property
    def settings(self) -> dict[str, object]:
        """Training settings with the schedule that holds when none is given."""
        return {"schedule": "constant", **self.training}

    @property
    def cuttable(self) -> bool:
        """Whether a longer run passes through the weights of a shorter one: nothing depends on its end."""
        warmup: Any = self.settings.get("warmup", 0)
        return bool(self.settings["schedule"] == "constant" and (warmup == 0 or warmup >= 1))

    def cells(self) -> list[Cell]:
        """Every cell, models outermost."""
        axes = (self.models, self.attacks, self.ranks, self.steps, self.data_sizes,
                self.learning_rates or (None,), self.seeds, self.defences)  # fmt: skip
        return [Cell(*values) for values in itertools.product(*axes)]

    def groups(self, cells: list[Cell] | None = None) -> list[list[Cell]]:
        """Cells by training run, shortest first in each: one run where it can be cut, else one a budget."""
        found: dict[Cell, list[Cell]] = {}
        for cell in self.cells() if cells is None else cells:
            found.setdefault(cell.family() if self.cuttable else cell.training(), []).append(cell)
        return [sorted(group, key=lambda cell: cell.steps) for group in found.values()]

    def describe(self) -> dict[str, object]:
        """In JSON terms, as manifests store it."""
        body = dataclasses.asdict(self)
        body |= {"training": dict(self.training), "evaluation": self.evaluation.describe()}
        return body

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Grid:
        """From what `describe` gave, or a TOML file holds.

        Raises:
            InputError: an unknown or missing key, or a value that is none; the message names it.
        """
        given: dict[str, Any] = dict(values)
        known_names(cls, given, "grid")
        if "models" not in given:
            raise InputError("grid: models is missing; name at least one")
        for name in _LISTS:
            if name in given and not isinstance(given[name], (list, tuple)):
                raise InputError(f"grid: {name} must be a list: {name} = [{told(given[name])}]")
        if "defences" in given:
            given["defences"] = tuple(_made(Defence, one, "defences") for one in given["defences"])
        if "evaluation" in given:
            given["evaluation"] = _evaluation(given["evaluation"])
        fitted = fields_of(cls, given, "grid: ")
        settings: dict[str, Any] = {k: tuple(v) if k in _LISTS else v for k, v in fitted.items()}
        return cls(**settings)

    @classmethod
    def from_toml(cls, path: PathLike) -> Grid:
        """Read a declaration.

        Raises:
            InputError: the file is missing, is no TOML, or declares what is not known.
        """
        where = regular(path)
        try:
            text = where.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        try:
            return cls.from_dict(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


_LISTS = ("models", "attacks", "ranks", "steps", "data_sizes", "learning_rates", "seeds", "defences")


def _evaluation(given: Any) -> Any:
    if isinstance(given, Mapping) and "decoding" not in given:
        rest = {name: value for name, value in given.items() if name not in WRITTEN.values()}
        given = {**rest, "decoding": Decoding.among(given)}
    return _made(Evaluation, given, "evaluation")


def _made(kind: Any, given: Any, where: str) -> Any:
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: {told(given)} is not a table of settings")
    known_names(kind, given, where)
    fitted = fields_of(kind, given, f"{where}: ")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fitted.items()})
