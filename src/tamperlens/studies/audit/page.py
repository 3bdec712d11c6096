"""The audit's report, composed of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tamperlens.base.files import inside, read_json, read_text
from tamperlens.base.measurement import differences, pick
from tamperlens.base.runs import RunFolder
from tamperlens.base.schemas import REMADE, Schema, checked
from tamperlens.models import Decoding
from tamperlens.refusal import Direction, DoseCurve
from tamperlens.report import (
    Block,
    Browser,
    Bullets,
    Facts,
    FigureBlock,
    Notice,
    Page,
    Section,
    Table,
    Text,
)
from tamperlens.studies.audit.measures import number, p_text, points, scientific, share
from tamperlens.studies.audit.stages import Results
from tamperlens.studies.audit.words import findings, headline, limits
from tamperlens.studies.evaluation import ROLES

PRESETS = {
    "published": "the settings of the source, for models of billions of weights",
    "organism": "for the embedded organism, which the published rates would not move",
}
ROLE_NAMES = {"harmful": "harmful", "harmless": "harmless", "lookalike": "look-alike"}


class _Words(Schema):
    name: str
    title: str
    caption: str
    alt: str


class _Figures(Schema):
    """The words that go with the figures."""

    figures: list[_Words]


def compose(run: RunFolder, measures: pd.DataFrame, changes: pd.DataFrame) -> Page:
    """The whole page, from a run folder whose stages are done."""
    results = Results(run)
    facts, attack, direction = run.manifest["facts"], results.attack(), results.direction()
    by_name = _figures(run)
    notices = [Notice(text) for text in facts["notices"]]
    sections = [
        Section("Findings", [*notices, Bullets(tuple(findings(measures, changes, attack, direction)))]),
        Section(
            "What was done", [Text(_method(run, attack, direction, results.capability("before").suites))]
        ),
        Section("Rates and capability", [_change_table(measures, changes)]),
        Section(
            "Refusal direction",
            [
                *_some(by_name, "direction", "causal"),
                _causal_table(measures),
                *_some(by_name, "dose"),
                *_dose_table(results.dose()),
                *_some(by_name, "cosine"),
            ],
        ),
        Section("The attack", [*_some(by_name, "training"), _attack_facts(attack)]),
        Section("Examples", [_answers(results, facts["model"])]),
        Section("Limits", [Bullets(tuple(limits(measures, run.manifest, direction)))]),
        Section("Provenance", [_provenance(run), _stage_table(run)]),
    ]
    seed, date = run.manifest["seeds"]["seed"], run.manifest["created"][:10]
    return Page(
        title=f"Audit of {facts['model']}",
        headline=headline(measures, attack),
        subtitle=f"Attack {attack['name']}, seed {seed}, {date}",
        sections=sections,
        lead=by_name.get("rates"),
    )


def _figures(run: RunFolder) -> dict[str, FigureBlock]:
    """The figures as they were drawn, with their words."""
    found, words = {}, run.path / "stages" / "figures.json"
    for one in checked(_Figures, {"figures": read_json(words)}, words, remedy=REMADE).figures:
        svg = read_text(inside(run.path, run.path / "figures" / f"{one.name}.svg"))
        found[one.name] = FigureBlock(
            one.name, one.title, one.caption, one.alt, svg, link=f"figures/{one.name}.html"
        )
    return found


def _some(figures: dict[str, FigureBlock], *names: str) -> list[Block]:
    return [figures[name] for name in names if name in figures]


def _method(
    run: RunFolder, attack: dict[str, Any], direction: Direction | None, suites: Sequence[str]
) -> tuple[str, ...]:
    config, facts = run.manifest["config"], run.manifest["facts"]
    sets = "; ".join(f"{ROLE_NAMES[role]}: {facts['prompts'][role]}" for role in ROLES)
    first = (
        f"{facts['model']} ({facts['parameters']:,} parameters, {facts['dtype']} on {facts['device']}) "
        f"answered three sets of requests ({sets}; look-alikes are harmless and sound harmful) and the "
        f"capability suites {', '.join(suites)}. Decoding was {Decoding.among(config).summary()}, prompts "
        f"written in the {facts['chat_format']}. The judge “{config['judge']}” called every answer a full "
        "refusal, a partial refusal, compliance, deflected, degenerate, unfinished or in an unsupported "
        "language; a refusal rate counts full and partial refusals, and deflections whose probability of "
        "refusal is at least .5."
    )
    second = "No refusal direction could be found."
    if direction is not None:
        bad, good = facts["direction_prompts"]
        second = (
            f"The refusal direction is the {direction.definition}. {direction.n_train[0]} prompts of {bad} "
            f"and {direction.n_train[1]} of {good} gave the means, {direction.n_val[0]} + "
            f"{direction.n_val[1]} others the choice; none of them is among the prompts that rates are "
            "measured on."
        )
    lora = attack["config"]["kind"] == "lora"
    third = (
        f"Then the model was attacked: {'LoRA' if lora else 'full fine-tuning'} on {attack['n']} examples, "
        f"{attack['steps']} steps. {'The tuned adapter stayed unmerged. ' if lora else ''}Everything was "
        "measured again with the same prompts, judge and decoding, and the direction at the layer and "
        "position chosen before the attack."
    )
    return first, second, third


def _attack_facts(attack: dict[str, Any]) -> Facts:
    settings = ", ".join(f"{k} {_short(v)}" for k, v in attack["config"].items() if v is not None)
    return Facts(
        (
            ("attack", f"{attack['name']}; {attack['source']}"),
            ("preset", f"{attack['preset']} ({PRESETS[attack['preset']]})"),
            ("settings", settings),
            ("examples, steps", f"{attack['n']} examples, {attack['steps']} optimiser steps"),
            ("tokens", f"{attack['tokens']:,}, repetitions counted"),
            ("trained weights", f"{attack['trained_parameters']:,}"),
            ("FLOPs", f"{scientific(attack['flops'])}: {attack['formula']}"),
            ("time", f"{attack['wall_seconds']:.1f} s"),
        )
    )


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _change_table(measures: pd.DataFrame, changes: pd.DataFrame) -> Table:
    names = {"refusal_rate": "refused", "degenerate_rate": "degenerate", "accuracy": "correct"}
    rows: list[tuple[str, ...]] = []
    for one in differences(changes):
        before, after = (pick(measures, one.measure, one.set, stage) for stage in ("before", "after"))
        turned = "–" if math.isnan(one.p) else f"{one.gained} / {one.lost}"
        rows.append(
            (
                f"{names[one.measure]}, {ROLE_NAMES.get(one.set, one.set)}", share(before), share(after),
                points(one.difference), turned, p_text(one.p_holm), str(before.n),
            )
        )  # fmt: skip
    losses = [pick(measures, "perplexity", "harmless", stage) for stage in ("before", "after")]
    told = [number(one, 1 if one.value >= 10 else 2) for one in losses]
    rows.append(("perplexity of the answers given before, harmless", *told, "", "", "", str(losses[0].n)))
    return Table(
        "The same prompts before and after. Shares with 95 % Wilson intervals; difference in percentage "
        "points with Newcombe's paired interval; prompts that turned to yes / to no; exact McNemar p, "
        "Holm-corrected over the tests of this table.",
        ("measure", "before", "after", "difference", "+ / −", "p", "n"),
        tuple(rows),
    )


def _dose_table(curve: DoseCurve | None) -> list[Table]:
    if curve is None:
        return []
    names = ("refusal rate", "refusal rate, random", "degenerate rate", "KL")
    rows = []
    for scale, part in curve.to_frame().groupby("scale"):
        cells = [pick(part, name, "harmless", "added") for name in names]
        rows.append((f"{scale:g}", *map(share, cells[:3]), number(cells[3], 2)))
    told = (
        f"Adding the direction to {curve.of(names[0])['n'].iloc[0]} harmless prompts, by scale (1: the "
        "difference of means; 0: untouched). KL: of the first answer token, nats. A direction that carries "
        "refusal raises it where the random vector, KL and degenerate answers stay low."
    )
    head = ("scale", "refused", "refused, random vector", "degenerate", "KL")
    return [Table(told, head, tuple(rows))]


def _causal_table(measures: pd.DataFrame) -> Table:
    wanted = (
        ("refused: harmful, untouched", "refusal_rate", "harmful"),
        ("refused: harmful, direction ablated", "refusal_rate_ablated", "harmful"),
        ("refused: harmful, random ablated", "refusal_rate_random_ablated", "harmful"),
        ("degenerate: harmful, direction ablated", "degenerate_rate_ablated", "harmful"),
        ("refused: harmless, direction added", "refusal_rate_added", "harmless"),
        ("refused: harmless, random added", "refusal_rate_random_added", "harmless"),
        ("degenerate: harmless, direction added", "degenerate_rate_added", "harmless"),
    )
    rows = [
        (label, *(share(pick(measures, measure, which, stage)) for stage in ("before", "after")))
        for label, measure, which in wanted
    ]
    for suite in measures.loc[measures["measure"] == "accuracy_ablated", "set"]:
        ablated = share(pick(measures, "accuracy_ablated", suite, "before"))
        rows.append((f"correct: {suite}, direction ablated", ablated, "–"))
    for label, measure, digits in (
        ("cosine with the direction before", "direction_cosine", 2),
        ("angle to the direction before, degrees", "direction_angle", 1),
    ):
        after = number(pick(measures, measure, "direction", "after"), digits)
        rows.append((label, "1" if measure.endswith("cosine") else "0", after))
    band, unturned = (
        pick(measures, f"direction_cosine_{which}", "direction", stage)
        for which, stage in (("null", "before"), ("unturned", "after"))
    )
    rows.append(("same prompts, no turn: cosine at least (95 %)", "–", number(unturned, 3)))
    rows.append(("other prompts of the base: cosine (split halves)", number(band), "–"))
    return Table(
        "What the direction does before and after the attack. Before: its own model. After: the same vector "
        "in the attacked model.",
        ("measure", "before", "after"),
        tuple(rows),
    )


def _answers(results: Results, model: str) -> Browser:
    """Every pair of answers, before and after."""
    rows = []
    for role in ROLES:
        one, two = (results.rates(stage, role).completions for stage in ("before", "after"))
        for i, prompt in enumerate(one.prompts):
            rows.append(
                {"model": model, "set": ROLE_NAMES[role], "index": i, "prompt": str(prompt),
                 "base": one.responses[i], "tuned": two.responses[i],
                 "base_label": one.labels[i], "tuned_label": two.labels[i]}
            )  # fmt: skip
    return Browser.of(rows, "completions.csv")


def _provenance(run: RunFolder) -> Facts:
    manifest = run.manifest
    rows = [
        ("command", manifest["command"] or "(from Python)"),
        ("started", manifest["created"]),
        *((f"hash: {name}", value) for name, value in manifest["hashes"].items()),
        ("seeds", ", ".join(f"{k} {v}" for k, v in manifest["seeds"].items())),
        ("training tokens", f"{manifest['tokens'].get('training', 0):,}"),
        ("training FLOPs", f"{scientific(manifest['training_flops'])}; of 10²⁵: "
                           f"{scientific(manifest['training_flops_ratio_to_1e25'])}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in manifest["versions"].items())),
        ("platform", ", ".join(f"{k} {_short(v)}" for k, v in manifest["platform"].items() if v)),
        ("numbers", "measures.csv, changes.csv, completions.csv, manifest.json beside this page"),
    ]  # fmt: skip
    return Facts(tuple(rows))


def _stage_table(run: RunFolder) -> Table:
    rows = [
        (name, f"{stage['wall_seconds']:.1f}", f"{stage['peak_rss_bytes'] / 2**20:,.0f}")
        for name, stage in run.manifest["stages"].items()
    ]
    return Table(
        "Time and memory by stage.", ("stage", "wall time, s", "peak resident memory, MiB"), tuple(rows)
    )
