"""The audit: how much a model refuses, where that sits, and what a little fine-tuning does to it."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tamperlens import finetune, report
from tamperlens.base.cells import file_name
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, write_csv, write_json
from tamperlens.base.progress import teller
from tamperlens.base.runs import RunFolder
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model, load, old_length
from tamperlens.prompts import ORGANISM, PromptSet, PromptsLike
from tamperlens.refusal import judges
from tamperlens.studies.audit import stages, tables
from tamperlens.studies.audit.cost import expected_costs
from tamperlens.studies.audit.figures import draw
from tamperlens.studies.audit.inputs import (
    ATTACK,
    Prompts,
    Settings,
    Source,
    fitting,
    gather,
    read_given,
)
from tamperlens.studies.audit.page import compose
from tamperlens.studies.audit.result import KIND, AuditResult
from tamperlens.studies.audit.stages import Bench, Results
from tamperlens.studies.evaluation import ROLES
from tamperlens_hooks import unwrap

MEASURED = ("before", "direction", "attack", "after")
"""Stages that need the model."""
ARTEFACTS = (
    "measures.csv", "changes.csv", "completions.csv", "direction.safetensors", "report.html", "figures",
    "attack", "stages",
)  # fmt: skip
DERIVED = {
    "measures.csv": "figures", "changes.csv": "figures", "completions.csv": "figures", "figures": "figures",
    "report.html": "report",
}  # fmt: skip
UNKNOWN_SHARE = 0.1
"""Share of unknown words above which the report warns that the numbers say nothing about the prompts."""


def default_folder(model: str, attack: str, seed: int) -> Path:
    """Where an audit goes that names no folder: runs/audit-MODEL-ATTACK-seedN."""
    return Path("runs") / f"audit-{file_name(model)}-{file_name(Path(attack).stem)}-seed{seed}"


@old_length
def audit(
    model: ModelLike | str = "organism",
    *,
    out: PathLike | None = None,
    harmful: Source = None,
    harmless: Source = None,
    lookalike: Source = None,
    search_harmful: Source = None,
    search_harmless: Source = None,
    column: str | None = None,
    attack: str | finetune.Attack | PromptsLike = ATTACK,
    steps: int | None = None,
    seed: int = 0,
    judge: str = "acts",
    limit: int = 200,
    skip_unusable: bool = False,
    decoding: Decoding | None = None,
    suites: Sequence[str] | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    keep_adapter: bool | None = None,
    quick: bool = False,
    resume: bool = False,
    progress: bool = True,
    command: str = "",
) -> AuditResult:
    """Measure a model, find its refusal direction, attack it, measure again, and write a report.

    Rates, capability and the direction are measured before and after with the same prompts, judge and
    decoding; the evaluation set is fixed before the attack and never filtered by what the attacked model
    does. The direction is found on prompts that are not among those evaluated, and after the attack it is
    read at the layer and position chosen before.

    The run folder holds `measures.csv`, `changes.csv`, `completions.csv`, `direction.safetensors`,
    `manifest.json`, `figures/`, `attack/` (the tuned adapter, see `keep_adapter`) and `report.html`.

    Args:
        model: a ChatModel (left as it is), or what `tamperlens.load` takes.
        out: the run folder, made if absent; `default_folder` by default, runs/audit-MODEL-ATTACK-seedN.
        harmful: prompts to evaluate on: a file, or a PromptSet, list or table; the packaged ones by default.
            Of a file that says which rows are safe (XSTest) each role takes its own kind.
        harmless: likewise.
        lookalike: likewise, harmless prompts that sound harmful.
        search_harmful: harmful prompts to look for the direction on, likewise; packaged ones by default,
            never those that are evaluated.
        search_harmless: likewise, harmless ones.
        column: the prompts' column in those of the files that have it.
        attack: name of a packaged attack, a file (or set or table) of prompts and responses, or an Attack.
            Prompts that it shares with a set that it would use up are divided between the two.
        steps: optimiser steps; the attack's own by default.
        seed: of training, splits and resampling.
        judge: name of a registered judge.
        limit: most prompts per set and most questions per suite.
        skip_unusable: leave out and count rows of the files that cannot be used; see `prompts.read`.
        decoding: how answers are made; `Decoding()` by default.
        suites: capability suites; those in the model's language by default.
        adapter: a PEFT adapter to attach before anything is measured.
        revision: of a hub model.
        device: see `tamperlens.load`.
        dtype: see `tamperlens.load`.
        keep_adapter: keep the attacked model's adapter in `attack/` when everything has been measured. By
            default only an organism's is kept; of other models it is discarded (resuming does without).
        quick: a first look: 16 prompts a set, 24 tokens an answer, one position and 8 validation prompts for
            the direction, one random control.
        resume: go on with the run in `out`, or read it when it has finished.
        progress: say on stderr what is going on.
        command: for the manifest.

    Raises:
        TamperlensError: one line that names what cannot be used (model, file, column, folder) and the remedy.
            Finished stages stay in the folder.
    """
    if not isinstance(model, str):
        model = as_chat_model(model)
    settings = Settings(
        model=model.name if isinstance(model, ChatModel) else str(model),
        adapter=adapter,
        revision=revision,
        harmful=_label(harmful),
        harmless=_label(harmless),
        lookalike=_label(lookalike),
        search_harmful=_label(search_harmful),
        search_harmless=_label(search_harmless),
        column=column,
        attack=attack.name if isinstance(attack, finetune.Attack) else _label(attack) or "",
        steps=steps,
        seed=seed,
        judge=judge,
        limit=limit,
        skip_unusable=skip_unusable,
        decoding=Decoding.of(decoding, {}),
        suites=None if suites is None else tuple(suites),
        device=device,
        dtype=dtype,
    )
    if quick:
        settings = settings.hurried()
    if out is None:
        out = default_folder(settings.model, settings.attack, seed)
    # Cheap checks first: nobody should wait for a model to hear of a misspelt file.
    options: dict[str, Any] = {
        "kind": KIND, "config": settings.config(), "artefacts": ARTEFACTS, "derived": DERIVED,
        "resume": resume,
    }  # fmt: skip
    RunFolder.check(out, **options)
    judges.get(judge)
    sources = {"harmful": harmful, "harmless": harmless, "lookalike": lookalike,
               "search_harmful": search_harmful, "search_harmless": search_harmless}  # fmt: skip
    given, chosen = read_given(sources, attack, column=column, skip_unusable=skip_unusable)
    tell = teller(progress)
    if (Path(out) / "manifest.json").is_file() and RunFolder.read(out).finished:
        with RunFolder.open(out, **options) as run:
            if run.finished:
                return AuditResult.of(run)
            if all(map(run.done, MEASURED)):  # no model is needed for what is lost
                _work(run, None, tell)
                run.finish()
                return AuditResult.of(run)
    if isinstance(model, ChatModel):
        ready = model
    else:
        tell(f"loading {model}")
        ready = load(model, adapter=adapter, device=device, dtype=dtype, revision=revision)
    ready = _without_adapter(ready, ours=not isinstance(model, ChatModel))
    chosen = fitting(ready, chosen, skip_unusable=skip_unusable)
    found = gather(given, model=ready, attack_prompts=chosen.data.prompts, limit=settings.limit)
    with RunFolder.open(out, **options, command=command, seeds={"seed": seed}) as run:
        run.pin(model=ready.fingerprint, **_hashes(found, chosen))
        run.note(facts=_facts(ready, found))
        if run.manifest.get("attack_adapter") and not run.done("after"):
            run.undo("attack")
        _work(run, Bench(run, settings, ready, found, chosen, progress), tell)
        if not (ready.language == ORGANISM if keep_adapter is None else keep_adapter):
            _discard_adapter(run)
        run.finish()
        return AuditResult.of(run)


def _work(run: RunFolder, bench: Bench | None, tell: Callable[[str], None]) -> None:
    """The stages that are not done; without a bench only those that need no model."""
    plan: list[tuple[str, str, Callable[[], None]]] = []
    if bench is not None:
        what = f"LoRA attack: {bench.settings.attack}"
        plan = [
            ("before", "rates and capability", lambda: stages.measure(bench, bench.model, "before")),
            ("direction", "refusal direction and its causal check", lambda: stages.find_direction(bench)),
            ("attack", what, lambda: stages.run_attack(bench)),
            ("after", "everything again on the attacked model", lambda: stages.measure_again(bench)),
        ]
    plan += [("figures", "figures", lambda: _draw(run)), ("report", "report", lambda: _write_report(run))]
    costs = {} if bench is None or run.done("after") else expected_costs(bench)
    run.note(expected_costs={name: dataclasses.asdict(cost) for name, cost in costs.items()})
    for place, (name, what, body) in enumerate(plan, start=1):
        if run.done(name):
            tell(f"[{place}/{len(plan)}] {what}: done before")
            continue
        tell(f"[{place}/{len(plan)}] {what}")
        if name in costs:
            tell(f"      {costs[name].summary()}")
        began = time.perf_counter()
        with run.stage(name):
            body()
            # In the stage, so that a kill leaves no finished stage with tables of an earlier one.
            _write_tables(run, name)
        tell(f"      {time.perf_counter() - began:.1f} s")


def _discard_adapter(run: RunFolder) -> None:
    """Remove what the attack made of the model; its log, its bill and what was measured stay."""
    names = ("tuned", "checkpoints", "last-good")
    run.note(attack_adapter="discarded after it was measured")
    run.forget(*(f"{stages.ATTACK}/{name}" for name in names))
    for name in names:
        shutil.rmtree(run.path / stages.ATTACK / name, ignore_errors=True)


def _write_tables(run: RunFolder, ending: str) -> None:
    """What is known when this stage ends, so that an interrupted run is of use."""
    results = Results(run, ending)
    write_csv(run.file("measures.csv"), tables.measures(results))
    write_csv(run.file("completions.csv"), tables.completions(results))
    changes = tables.changes(results)
    if not changes.empty:
        write_csv(run.file("changes.csv"), changes)


def _without_adapter(model: ChatModel, *, ours: bool) -> ChatModel:
    """The attack trains an adapter of its own, so one that is there already is merged into the weights."""
    if unwrap(model.module) is model.module:
        return model
    if not ours:  # merging writes to weights, and those of a model that was handed in are not ours
        raise InputError(f"{model.name} carries an adapter; merge it first, or pass its base and adapter=")
    wrapped: Any = model.module
    merged = model.with_module(wrapped.merge_and_unload())
    return dataclasses.replace(merged, notes=(*model.notes, "the adapter was merged into the weights"))


def _draw(run: RunFolder) -> None:
    plots = draw(run, tables.measures(Results(run)))
    for plot in plots:
        plot.save(run.file("figures", "x").parent)
    words = [{"name": p.name, "title": p.title, "caption": p.caption, "alt": p.alt} for p in plots]
    write_json(run.file("stages", "figures.json"), words)


def _write_report(run: RunFolder) -> None:
    page = compose(run, tables.measures(Results(run)), tables.changes(Results(run)))
    report.write(run.file("report.html"), page)


def _label(source: Source) -> str | None:
    """What the manifest calls a source of prompts."""
    if source is None:
        return None
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    return f"{source.name if isinstance(source, PromptSet) else 'unnamed'} (given in Python)"


def _hashes(found: Prompts, attack: finetune.Attack) -> dict[str, str]:
    searched = zip(("direction_harmful", "direction_harmless"), found.direction, strict=True)
    named = {f"prompts_{role}": one.sha256 for role, one in (*found.evaluation.items(), *searched)}
    return {**named, "attack_data": attack.data.sha256}


def _facts(model: ChatModel, found: Prompts) -> dict[str, object]:
    """What the report says of the model and the prompts."""
    from tamperlens.models import organism

    notices, notes = [], [*found.notes, *(f"Model: {note}." for note in model.notes)]
    coverage: dict[str, float] = {}
    for role in ROLES if model.language == ORGANISM else ():  # whose words are known
        known = organism.coverage(list(found.evaluation[role].prompts))
        if math.isnan(known):
            continue
        coverage[role] = known
        if 1 - known > UNKNOWN_SHARE:
            notices.append(
                f"{100 * (1 - known):.0f} % of the words of the {role} prompts lie outside the language that "
                f"{model.name} was trained on. What it answers to them says nothing about the prompts, and "
                "little about its refusal; read the rates on this set as a test that the audit runs."
            )
    return {
        **model.facts(),
        "prompts": {
            role: f"{one.name}, n = {len(one)}{', given' if role in found.given else ''}"
            for role, one in found.evaluation.items()
        },
        "direction_prompts": [one.name for one in found.direction],
        "language_coverage": coverage,
        "notices": notices,
        "notes": notes,
    }
