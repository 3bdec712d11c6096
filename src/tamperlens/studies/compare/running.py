"""`compare`: one base, one or more tuned models, every instrument."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tamperlens.base.errors import InputError, NumericsError, TamperlensError
from tamperlens.base.files import PathLike, write_csv, write_json, write_text
from tamperlens.base.progress import teller
from tamperlens.base.runs import RunFolder
from tamperlens.models import Decoding, old_length
from tamperlens.plots import Plot
from tamperlens.refusal import Direction, judges
from tamperlens.studies import trajectory
from tamperlens.studies.compare import behaviour, inside, weights
from tamperlens.studies.compare.bench import Bench, Settings, names_of, read_prompts, source_name
from tamperlens.studies.compare.readings import (
    BEHAVIOUR,
    FIRST,
    INSIDE,
    WEIGHTS,
    Reading,
    decided,
    left_out,
)
from tamperlens.studies.compare.result import KIND, STAGES, Comparison, Comparisons, read_items
from tamperlens.studies.opening import Pair, Source, checkpoints, open_base, pair_with

ARTEFACTS = ("report.html", "measures.csv", "verdicts.csv", "answers.csv", "stages", "direction.safetensors",
             "table.md", "table.tex", "figures")  # fmt: skip
SLOW = ("prefill depth", "causal transfer", "safety subspace", "safety weights")
"""What a quick comparison leaves out."""
Tell = Callable[[str], None]


@old_length
def compare(
    base: Source,
    tuned: Source,
    *more: Source,
    harmful: Any = None,
    harmless: Any = None,
    lookalike: Any = None,
    column: str | None = None,
    quick: bool = False,
    judge: str = "acts",
    limit: int | None = None,
    questions: int | None = None,
    decoding: Decoding | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    direction: Direction | None = None,
    device: str = "auto",
    dtype: str = "auto",
    out: PathLike | None = None,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> Comparisons:
    """What a fine-tuning did: base against tuned, by every instrument, with a verdict for each.

    Behaviour (refusal, over-refusal, degenerate answers, capability, perplexity, distance of answers, prefill
    depth), first answer tokens (log-odds of refusal, KL), activations (refusal direction, projection gap,
    heads, the activation-difference lens) and weights (drift, spectrum and aim of ΔW, overlap of safety
    weights). Prompts are fixed by the base; everything is paired. How a verdict is made: `readings`.

    Args:
        base: the model before: a ChatModel, or what `tamperlens.load` takes.
        tuned: the model after: a ChatModel or TunedModel, a folder, hub id, GGUF file, or a PEFT adapter of
            the base. A training folder stands for its last checkpoint; with `out`, its page also
            follows all checkpoints over their steps (`trajectory.over`).
        *more: further tuned models, compared to the same base.
        harmful: prompts that should be refused: a file, PromptSet, list or table; packaged ones by default.
        harmless: prompts that should be answered; likewise.
        lookalike: harmless prompts that sound harmful; likewise.
        column: the prompts' column in those files that have it.
        quick: fewer prompts and only the cheap instruments; see `running.SLOW`.
        judge: name of a registered judge.
        limit: most prompts per set; 64, or 24 in a quick comparison.
        questions: most questions per capability suite; 32, or 8 in a quick comparison.
        decoding: how answers are made; greedy and at most 64 tokens, or 32 in a quick comparison, by default.
        batch_size: rows generated at once; by memory by default.
        seed: of samples and resamples.
        direction: the base's refusal direction with its prompts' split; found by default.
        device: see `tamperlens.load`.
        dtype: see `tamperlens.load`.
        out: run folder for the page, tables and what is needed to resume; nothing is kept by default.
        resume: go on with the run in `out`, or read it when it has finished.
        progress: say on stderr what is going on.
        command: for the manifest.

    Raises:
        TamperlensError: one line that names what cannot be used and the remedy. What can be compared is: an
            instrument that cannot is "not compared", with the reason.

    Examples:
        >>> import tamperlens
        >>> model = tamperlens.load("organism:tiny")
        >>> short = tamperlens.Decoding(8)
        >>> same = tamperlens.compare(model, model, quick=True, limit=8, questions=1, decoding=short)
        >>> same[0].verdicts["weights"]
        'no change'
    """
    judges.get(judge)
    settings = Settings.of(
        quick=quick,
        limit=limit,
        questions=questions,
        decoding=decoding,
        judge=judge,
        batch_size=batch_size,
        seed=seed,
    )
    sources = [_last_checkpoint(one) for one in (tuned, *more)]
    given = read_prompts({"harmful": harmful, "harmless": harmless, "lookalike": lookalike}, column)
    tell = teller(progress)
    names = names_of(sources)
    if out is None:
        model = open_base(base, device=device, dtype=dtype)
        bench = Bench(model, settings, given, direction=direction)
        return Comparisons(
            tuple(
                one_of(bench, one, name, device, dtype, tell)
                for one, name in zip(sources, names, strict=True)
            )
        )
    config = {
        **settings.config(), "base": source_name(base), "tuned": [source_name(one) for one in sources],
        "prompts": {role: None if one is None else one.sha256 for role, one in given.items()},
    }  # fmt: skip
    options: dict[str, Any] = {"kind": KIND, "config": config, "artefacts": ARTEFACTS, "resume": resume}
    with RunFolder.open(out, **options, command=command, seeds={"seed": seed}) as run:
        if not run.finished:
            model = open_base(base, device=device, dtype=dtype)
            run.pin(base=model.fingerprint)
            run.note(compared=[_slug(name) for name in names], facts=model.facts())
            bench = Bench(model, settings, given, run=run, direction=direction)
            for one, name in zip(sources, names, strict=True):
                if run.done(_slug(name)):
                    tell(f"{name}: done before")
                    continue
                with run.stage(_slug(name)):
                    found = one_of(bench, one, name, device, dtype, tell)
                    found.save(run.file(STAGES, _slug(name), "comparison.json"))
            run.note(prompts=bench.asked.settings())
            write_results(run, read_items(run), _steps(bench, run, (tuned, *more)))
            run.finish()
        return Comparisons(read_items(run), str(run.path))


def one_of(bench: Bench, source: Source, name: str, device: str, dtype: str, tell: Tell) -> Comparison:
    """One tuned model against the bench's base."""
    tell(f"{name}: loading")
    pair = pair_with(bench.base, source, device=device, dtype=dtype)
    notes = list(pair.notes)
    if not pair.no_inside and pair.tuned.fingerprint == bench.base.fingerprint:
        notes.append(f"this is the base: weights and settings of {name} are the same to the bit")
    readings, answers = _measured(bench, pair, name, tell)
    if bench.settings.quick:
        notes.append(f"a quick comparison leaves out {', '.join(SLOW)}")
    return Comparison(
        bench.base.name, name, decided(readings), tuple(notes), answers, bench.asked.language,
        bench.base.fingerprint, pair.tuned.fingerprint,
    )  # fmt: skip


def _measured(bench: Bench, pair: Pair, name: str, tell: Tell) -> tuple[list[Reading], pd.DataFrame]:
    """Every instrument that can compare the two; one that cannot says why, and the others go on."""
    took = _Timer(tell, name)
    before = took("answers of the base", lambda: bench.base_answers)
    after = took("answers", lambda: bench.answers(pair.tuned, _slug(name)))
    found = [
        behaviour.refusals(before, after), behaviour.over_refusals(before, after),
        behaviour.degenerate(before, after), behaviour.abilities(before, after),
    ]  # fmt: skip

    def attempt(instrument: str, group: str, body: Callable[[], Reading], *why: str) -> None:
        """Add an instrument's reading, or why it has none."""
        reason = next((one for one in why if one), "")
        if not reason:
            try:
                found.append(took(instrument, body))
                return
            except (InputError, NumericsError) as error:
                reason = str(error)
        found.append(left_out(instrument, group, reason))

    attempt("perplexity", BEHAVIOUR, lambda: behaviour.surprise(bench, pair))
    attempt("answers (RD)", BEHAVIOUR, lambda: behaviour.distance(bench, before, after))
    quick = bench.settings.quick
    if not quick:
        attempt("prefill depth", BEHAVIOUR, lambda: behaviour.depth(bench, pair))
    attempt("token KL", FIRST, lambda: inside.divergence(bench, pair), pair.no_logits)
    why = pair.no_logits or pair.no_inside
    record = None
    if not why:
        try:
            record = took("activations", lambda: inside.observed(bench, pair))
        except TamperlensError as error:
            why = str(error)
    seen: Any = record  # with `why` empty it is there
    attempt("log-odds of refusal", FIRST, lambda: inside.odds(bench, seen), why)
    attempt("direction", INSIDE, lambda: _direction(bench, pair, seen), why)
    attempt("projection gap", INSIDE, lambda: inside.projection(bench, seen), why)
    attempt("heads", INSIDE, lambda: inside.attention_heads(bench, seen), why)
    attempt(
        "activation difference", INSIDE, lambda: inside.lens(bench, pair)[0], pair.no_logits or pair.no_inside
    )
    attempt("weights", WEIGHTS, lambda: _weights(bench, pair), pair.no_inside)
    if not quick:
        attempt("safety weights", WEIGHTS, lambda: weights.safety_sets(bench, pair), why)
    return found, behaviour.answers_frame(before, after)


def _direction(bench: Bench, pair: Pair, record: Any) -> Reading:
    reading = inside.direction(bench, record)
    if bench.settings.quick:
        return reading
    try:
        rows, tables = inside.distances(bench, pair)
    except InputError as error:  # too few prompts for spans; the cosine stands
        return dataclasses.replace(
            reading, words=(*reading.words, f"Further distances were not measured: {error}.")
        )
    return dataclasses.replace(reading, rows=(*reading.rows, *rows), tables={**reading.tables, **tables})


def _weights(bench: Bench, pair: Pair) -> Reading:
    reading = weights.drift(pair)
    if bench.settings.quick or pair.no_logits:
        return reading
    try:
        rows, table, said = weights.aimed(bench, pair)
    except InputError as error:
        return dataclasses.replace(
            reading, words=(*reading.words, f"Where ΔW points was not measured: {error}.")
        )
    return dataclasses.replace(
        reading, rows=(*reading.rows, *rows), tables={**reading.tables, "aim of the update": table},
        words=(*reading.words, *([said] if said else [])),
    )  # fmt: skip


def _steps(bench: Bench, run: RunFolder, sources: Sequence[Source]) -> list[tuple[Plot, str, str]]:
    """Of each training folder: figure over its steps, the order in words, and the address of its page."""
    found = []
    how = bench.settings.decoding
    how = dataclasses.replace(how, max_new_tokens=min(24, how.max_new_tokens))
    for place, source in enumerate(sources):
        if _last_checkpoint(source) is source:
            continue
        steps = trajectory.over(
            bench.base, source, direction=bench.direction, harmful=bench.asked.harmful,
            harmless=bench.asked.harmless, lookalike=bench.asked.lookalike,
            limit=min(16, bench.settings.limit), judge=bench.settings.judge,
            decoding=how,
        )  # fmt: skip
        order = trajectory.order(steps)
        name = f"steps-{place + 1}"
        trajectory.write_page(run.file(f"{name}.html"), steps, order)
        write_csv(run.file(f"{name}.csv"), steps.table)
        plot = dataclasses.replace(steps.plot(order), name=name)
        found.append((plot, order.summary(), f"{name}.html"))
    return found


def write_results(
    run: RunFolder, items: Sequence[Comparison], steps: Sequence[tuple[Plot, str, str]] = ()
) -> None:
    """Tables, answers, figures and the page of a run folder."""
    from tamperlens import report
    from tamperlens.studies.compare.figures import draw
    from tamperlens.studies.compare.page import compose
    from tamperlens.studies.compare.tables import latex, markdown

    every = Comparisons(tuple(items), str(run.path))
    write_csv(run.file("measures.csv"), every.to_frame())
    write_csv(run.file("verdicts.csv"), every.verdict_frame())
    write_csv(run.file("answers.csv"), every.answers())
    write_text(run.file("table.md"), markdown(items))
    write_text(run.file("table.tex"), latex(items))
    plots = draw(items)
    for plot in plots:
        plot.save(run.file("figures", "x").parent)
    write_json(run.file(STAGES, "figures.json"), [plot.name for plot in plots])
    report.write(run.file("report.html"), compose(run.manifest, items, plots, steps))


def _last_checkpoint(source: Source) -> Source:
    """A training folder's last checkpoint; anything else as it is."""
    if isinstance(source, (str, Path)) and Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        whole = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
        found = [] if whole else checkpoints(folder)
        return str(found[-1]) if found else source
    return source


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-.") or "tuned"


class _Timer:
    """Runs a part of the work and says how long it took."""

    def __init__(self, tell: Tell, name: str) -> None:
        self.tell, self.name = tell, name

    def __call__(self, what: str, body: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = body()
        spent = time.perf_counter() - began
        if spent > 0.5:
            self.tell(f"{self.name}: {what} {spent:.1f} s")
        return found
