"""Brittleness: remove sets of weights or ranks one by one, and see what breaks beside matched random sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens.base.deprecation import deprecated
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.measurement import NULL_COLUMNS, Difference, Measurement, differences, pick, table
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.runs import RunFolder
from tamperlens.capability import Suite
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model, old_length
from tamperlens.neurons import RankEdit, WeightMask
from tamperlens.plots import Plot, dot_interval
from tamperlens.prompts import PromptsLike
from tamperlens.studies.brittleness.choosing import Choice, choose
from tamperlens.studies.brittleness.effects import MEASURES, effects, sentence
from tamperlens.studies.brittleness.removals import Removal, control_of, removed, size_of
from tamperlens.studies.evaluation import DEGENERATE, OVER_REFUSAL, EvalPrompts, Outcomes, collapse, measure

KIND = "brittleness"
COLUMNS = (
    "measure", "set", "before", "after", "difference", "low", "high", "n", *NULL_COLUMNS[:-1], "null_n", "p",
)  # fmt: skip
_SHOWN = {
    "refusal": "harmful prompts refused",
    OVER_REFUSAL["harmless"]: "harmless prompts refused",
    "capability": "questions answered right",
    DEGENERATE: "degenerate answers to harmful prompts",
}


@dataclass(frozen=True)
class Brittleness(Result):
    """What breaks when sets are removed.

    Attributes:
        model: name of the model.
        fingerprint: of the model.
        sets: one row per set: set, definition, count (weights, or largest rank), share, broken (why the model
            without it counts as broken, or ""; `studies.evaluation.collapse`), broken_controls (how many of
            its controls do).
        measures: one `Measurement` per set, state (stage: "intact", "set" removed, "control" removed) and
            measure, and the number of the control's draw.
        effects: one `Difference` per set and measure: before (intact), after (removed), difference (paired,
            set − controls), null (mean of the controls and range over their draws, null_n of them), p (rank
            among the draws); see `studies.brittleness.effects.effect`.
        settings: judge, limits, seeds, hashes of the prompts.
        choice: of `candidates`, chosen on half of the prompts and judged on the other; None without any.
    """

    model: str
    fingerprint: str
    sets: pd.DataFrame
    measures: pd.DataFrame
    effects: pd.DataFrame
    settings: dict[str, object]
    choice: Choice | None = None

    def to_frame(self) -> pd.DataFrame:
        """The effects."""
        return self.effects

    def effect(self, name: str, measure: str = "refusal") -> Difference:
        """One row of the effects.

        Raises:
            InputError: no such set or measure.
        """
        rows = self.effects[(self.effects["set"] == name) & (self.effects["measure"] == measure)]
        if rows.empty:
            raise InputError(f"no effect of {name!r} on {measure!r}; sets: {', '.join(self.sets['set'])}")
        return differences(rows)[0]

    def summary(self) -> str:
        """A sentence per set: does it carry refusal more than matched random sets, and at what price."""
        found = differences(self.effects)
        lines = [
            sentence(
                [row for row in found if row.set == one["set"]], str(one["set"]), float(one["share"]),
                broken=str(one["broken"]), broken_controls=int(one["broken_controls"]),
            )
            for one in self.sets.to_dict("records")
        ]  # fmt: skip
        return "\n".join(lines if self.choice is None else [*lines, self.choice.summary()])

    @deprecated("Brittleness.verdicts()", "Brittleness.summary()")
    def verdicts(self) -> list[str]:
        """The lines of `summary`."""
        return self.summary().splitlines()

    def plot(self) -> Plot:
        """Rates with each set removed, beside the mean over its matched random sets."""
        rows = []
        for row in differences(self.effects):
            if row.measure in _SHOWN:
                shared = {"panel": _SHOWN[row.measure], "label": row.set, "n": row.difference.n}
                own, control = pick(self.measures, row.measure, row.set, "set"), row.null
                series = f"matched random ({control.n} draws: mean, range)"
                for name, one in (("set removed", own), (series, control)):
                    rows.append(
                        {**shared, "series": name, "value": one.value, "low": one.low, "high": one.high}
                    )
        rows.sort(key=lambda row: list(_SHOWN.values()).index(str(row["panel"])))
        return dot_interval(
            pd.DataFrame(rows),
            name="brittleness",
            title=f"What breaks when weights of {self.model} are removed",
            caption="Whiskers of sets: Wilson 95 % over prompts; of random sets: range over draws.",
            axis="share",
        )


@old_length
def brittleness(
    model: ModelLike,
    masks: Mapping[str, WeightMask | RankEdit],
    *,
    candidates: Sequence[str] = (),
    harmful: PromptsLike | None = None,
    harmless: PromptsLike | None = None,
    suites: Sequence[str | Suite] | None = None,
    utility: PromptsLike | None = None,
    judge: str | Judge | None = None,
    draws: int = 20,
    bins: int = 20,
    limit: int = 64,
    questions: int = 16,
    decoding: Decoding | None = None,
    seed: int = 0,
    out: PathLike | None = None,
    progress: bool = False,
) -> Brittleness:
    """Remove each set alone; measure refusal, over-refusal, capability, perplexity beside matched controls.

    A control has the set's count in every projection and every bin of |w|, drawn outside the set where it
    can be; for rank edits it is a random subspace of the same rank. Differences are paired over prompts. The
    model is as it was afterwards, bit for bit.

    Args:
        model: the model.
        masks: name to the set of weights or the rank edit; of this model.
        candidates: names of sets of which one is picked, such as pairs of p and q. Picking the best on the
            prompts that it is then scored on flatters it: `Brittleness.choice` picks on half of them, scores
            on the other half and widens the intervals for their number (`studies.brittleness.choosing`).
        harmful: prompts that should be refused; the packaged test prompts in the model's language by default.
            Use prompts that the sets were not chosen on.
        harmless: prompts that should be answered; likewise.
        suites: capability suites; those in the model's language by default.
        utility: prompts with responses for perplexity; by default the harmless set's responses, or what the
            intact model answers.
        judge: see `refusal.evaluate`.
        draws: controls per set.
        bins: bins of |w| per projection.
        limit: most prompts per set.
        questions: most questions per suite.
        decoding: how answers are made; `Decoding()` by default.
        seed: of the controls and the bootstrap.
        out: a run folder; every finished state is kept there, and a study that was interrupted goes on.
        progress: print each state as it is finished.

    Raises:
        InputError: no sets, a set of another model, too few draws, or an empty prompt set.
        RunFolderError: `out` holds another study.
    """
    model = as_chat_model(model)
    if not masks:
        raise InputError("no sets to remove; give at least one, by name")
    unknown = [name for name in candidates if name not in masks]
    if unknown:
        raise InputError(f"candidates {', '.join(unknown)} are no sets; there are {', '.join(masks)}")
    asked = EvalPrompts.for_model(
        model, harmful=harmful, harmless=harmless, suites=suites, utility=utility, judge=judge, limit=limit,
        questions=questions, decoding=decoding, seed=None, roles=("harmful", "harmless"),
    )  # fmt: skip
    settings = {
        **asked.settings(), "draws": draws, "bins": bins, "limit": limit, "questions": questions,
        "seed": seed,
    }  # fmt: skip
    plan: list[tuple[str, str, int]] = [("intact", "intact", 0)]
    for name in masks:
        plan += [(name, "set", 0), *((name, "control", draw) for draw in range(draws))]
    states = _run(model, masks, asked, plan, settings, out, progress)
    intact = states["intact", "intact", 0]
    rows, sets = [], []
    beside = {
        name: (states[name, "set", 0], [states[name, "control", draw] for draw in range(draws)])
        for name in masks
    }
    for name, what in masks.items():
        state, controls = beside[name]
        rows += effects(name, intact, state, controls, seed)
        fallen = sum(bool(collapse(intact, one)) for one in controls)
        sets.append((name, what.definition, *size_of(what), collapse(intact, state), fallen))
    return Brittleness(
        model.name,
        model.fingerprint,
        pd.DataFrame(sets, columns=["set", "definition", "count", "share", "broken", "broken_controls"]),
        pd.concat([_rows(*place, state) for place, state in states.items()], ignore_index=True),
        table(rows, COLUMNS),
        settings,
        choose(intact, {name: beside[name] for name in candidates}, seed) if candidates else None,
    )


def _rows(name: str, kind: str, draw: int, state: Outcomes) -> pd.DataFrame:
    """Rows of one state; capability also suite by suite."""
    suites = [(f"capability: {suite}", state.rate(suite)) for suite in state.suites]
    found = [*((one, state.estimate(one)) for one in MEASURES), *suites]
    rows = [Measurement.of(one, name, kind, estimate) for one, estimate in found]
    return table(rows, ("measure", "set", "stage", "value", "low", "high", "n", "method")).assign(draw=draw)


def _run(
    model: ChatModel,
    masks: Mapping[str, Removal],
    asked: EvalPrompts,
    plan: Sequence[tuple[str, str, int]],
    settings: Mapping[str, Any],
    out: PathLike | None,
    progress: bool,
) -> dict[tuple[str, str, int], Outcomes]:
    states: dict[tuple[str, str, int], Outcomes] = {}
    run: RunFolder | None = None
    if out is not None:
        config = {
            "model": model.name, "fingerprint": model.fingerprint, **settings,
            "sets": {name: [what.definition, size_of(what)[0]] for name, what in masks.items()},
        }  # fmt: skip
        run = RunFolder.open(out, kind=KIND, config=config, artefacts=("states",), resume=True)
    try:
        for place, (name, kind, draw) in enumerate(plan):
            stage = f"{place:04d}"
            if run is not None and run.done(stage):
                states[name, kind, draw] = Outcomes.load(run.file("states", f"{stage}.json"))
                continue
            states[name, kind, draw] = _state(model, masks, asked, name, kind, draw, settings)
            if run is not None:
                with run.stage(stage):
                    states[name, kind, draw].save(run.file("states", f"{stage}.json"))
            if progress:
                found = states[name, kind, draw]
                print(
                    f"{place + 1}/{len(plan)} {name} {kind} {draw}: refusal "
                    f"{found.rate('refusal').value:.0%}, capability {found.rate('capability').value:.0%}",
                    flush=True,
                )
        if run is not None:
            run.finish()
    finally:
        if run is not None:
            run.close()
    return states


def _state(
    model: ChatModel,
    masks: Mapping[str, Removal],
    asked: EvalPrompts,
    name: str,
    kind: str,
    draw: int,
    settings: Mapping[str, Any],
) -> Outcomes:
    what: Removal | None = None
    if kind == "set":
        what = masks[name]
    elif kind == "control":
        what = control_of(model, masks[name], settings["seed"] + draw, settings["bins"])
    with removed(model, what):
        return measure(model, asked)
