"""The page of a comparison: verdicts on top, then every number, then the answers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tamperlens.plots import Plot
from tamperlens.report import (
    Block,
    Browser,
    Bullets,
    Facts,
    FigureBlock,
    Notice,
    Page,
    Paste,
    Section,
    Table,
    Text,
)
from tamperlens.studies.compare.readings import ALPHA, Reading, number
from tamperlens.studies.compare.result import Comparison
from tamperlens.studies.compare.tables import HEADER, latex, markdown, rows_of
from tamperlens.studies.compare.words import statements

LIMITS = (
    "One fine-tuning each: intervals cover the choice of prompts, not the run of the training. Repeat with "
    "other seeds before generalising.",
    "“No change” means: within the margin stated. A change under the margin, or on prompts unlike these, is "
    "not excluded.",
    "Verdicts on answers are those of a rule-based judge and are not corrected for its errors.",
    "The band of split halves rests on half as many prompts as the compared "
    "directions: it is on the wide side.",
    "Greedy decoding, answers cut: a refusal or a change of mind after that is not seen.",
    "Tokens that the lens names are a hint at what was trained on; look at the data before you believe them.",
)


def compose(
    manifest: Mapping[str, Any],
    items: Sequence[Comparison],
    plots: Sequence[Plot],
    steps: Sequence[tuple[Plot, str, str]] = (),
) -> Page:
    """The page of one base and its tuned models."""
    figures = {plot.name: FigureBlock.of(plot, f"figures/{plot.name}.html") for plot in plots}
    first = items[0]
    sections = [Section("Verdicts", _verdicts(items))]
    sections.append(Section("Rates", [figures["rates"]] if "rates" in figures else []))
    for plot, said, link in steps:
        sections.append(
            Section("Step by step", [Text((said,)), FigureBlock.of(plot, link)], anchor=plot.name)
        )
    for place, one in enumerate(items):
        title = "Every instrument" if len(items) == 1 else f"Every instrument: {one.tuned}"
        blocks: list[Block] = [Bullets(tuple(statements(one.readings)))]
        if f"drift-{place + 1}" in figures:
            blocks.append(figures[f"drift-{place + 1}"])
        blocks += _numbers(one)
        sections.append(Section(title, blocks, anchor=f"instruments-{place + 1}"))
    sections += [
        Section("Answers", [_browser(items)]),
        Section("Limits", [Bullets(LIMITS)]),
        Section("Provenance", [_provenance(manifest, items)]),
    ]
    named = ", ".join(one.tuned for one in items)
    return Page(
        title=f"{first.base} and {named}", headline=" ".join(one.headline for one in items),
        subtitle=f"What the fine-tuning did; {manifest.get('created', '')[:10]}", sections=sections,
    )  # fmt: skip


def _verdicts(items: Sequence[Comparison]) -> list[Block]:
    blocks: list[Block] = []
    for one in items:
        blocks += [Notice(f"{_sentence(note)}") for note in one.notes]
        caption = (
            f"{one.base} → {one.tuned}. Changed: p < {ALPHA:g} after Holm's correction over the instruments. "
            "No change: the 95 % interval lies inside the margin. Shares in percentage points; the units of "
            "the others, margins and tests are in verdicts.csv."
        )
        blocks.append(Table(caption, HEADER, tuple(rows_of(one)), words=(0, 1)))
        if one.disagreements:
            blocks += [Text(("Where instruments disagree:",)), Bullets(tuple(one.disagreements))]
    blocks.append(Paste("The table in Markdown", markdown(items)))
    blocks.append(Paste("The table in LaTeX", latex(items)))
    return blocks


def _numbers(one: Comparison) -> list[Block]:
    rows = []
    for reading in one.readings:
        for row in reading.rows:
            value = "undefined" if math.isnan(row.value) else number(row.value)
            if not math.isnan(row.low):
                value += f" [{number(row.low)}, {number(row.high)}]"
            null = row.null
            band = "–" if math.isnan(null.value) else number(null.value)
            if not math.isnan(null.low):
                band += f" [{number(null.low)}, {number(null.high)}]"
            kind = f" ({null.method})" if null.method else ""
            rows.append(
                (row.measure, row.set, row.stage, value, str(row.n), band + (kind if band != "–" else ""))
            )
    found: list[Block] = [
        Table(
            "Every number with its interval, and what nothing but chance or other prompts would give.",
            ("measure", "on", "model", "value [95 %]", "n", "null"), tuple(rows), words=(0, 1, 2),
        )
    ]  # fmt: skip
    for reading in one.readings:
        found += _tables(reading)
    return found


def _tables(reading: Reading) -> list[Block]:
    """The lens's tokens and the first heads; longer tables are in the run folder."""
    found: list[Block] = []
    tokens = reading.tables.get("lens tokens")
    if tokens is not None and len(tokens):
        listed = ", ".join(str(token) for token in tokens["token"][:20])
        found.append(Text((f"First 20 tokens that the activation difference names: {listed}.",)))
    steered = reading.tables.get("lens steering")
    if steered is not None and len(steered):
        rows = tuple(
            (str(r["prompt"]), str(r["plain"]), str(r["steered"])) for r in steered.to_dict("records")
        )
        found.append(
            Table("The base, with the activation difference added while it writes.",
                  ("prompt", "the base alone", "steered"), rows, words=(0, 1, 2))
        )  # fmt: skip
    heads = reading.tables.get("heads")
    if heads is not None and len(heads):
        rows = tuple(
            (f"{r['layer']}.{r['head']}", number(r["base"]), number(r["tuned"]))
            for r in heads[:8].to_dict("records")
        )
        found.append(
            Table("Heads whose attribution to the direction changed most.", ("head", "base", "tuned"), rows)
        )
    depth = reading.tables.get("prefill depth")
    if depth is not None and len(depth):
        depths = tuple(
            (str(r["model"]), str(r["depth"]), number(r["value"], percent=True), str(r["n"]))
            for r in depth.to_dict("records")
        )
        found.append(
            Table("Share refused, in %, behind so many tokens of a compliant answer.",
                  ("model", "tokens", "refused", "n"), depths)
        )  # fmt: skip
    return found


def _browser(items: Sequence[Comparison]) -> Browser:
    rows = [
        {"model": one.tuned, "set": str(row["set"]), "index": int(row["index"]), "prompt": row["prompt"],
         "base": row["base"], "tuned": row["tuned"],
         "base_label": str(row["base_label"]), "tuned_label": str(row["tuned_label"])}
        for one in items
        for row in one.answers.to_dict("records")
    ]  # fmt: skip
    return Browser.of(rows, "answers.csv")


def _provenance(manifest: Mapping[str, Any], items: Sequence[Comparison]) -> Facts:
    config = manifest.get("config", {})
    stages = {name: f"{one['wall_seconds']:.0f} s" for name, one in manifest.get("stages", {}).items()}
    peak = manifest.get("peak_rss_bytes", 0)
    rows = [
        ("command", str(manifest.get("command") or "(from Python)")),
        ("started", str(manifest.get("created", ""))),
        ("base", f"{items[0].base}, {items[0].base_fingerprint}"),
        *((f"tuned: {one.tuned}", one.tuned_fingerprint) for one in items),
        (
            "settings",
            ", ".join(f"{key} {value}" for key, value in config.items() if key not in ("prompts", "tuned")),
        ),
        *((f"asked: {key}", str(value)) for key, value in manifest.get("prompts", {}).items()),
        ("time", ", ".join(f"{name} {spent}" for name, spent in stages.items())),
        ("peak resident memory", f"{peak / 2**20:,.0f} MiB"),
        ("versions", ", ".join(f"{key} {value}" for key, value in manifest.get("versions", {}).items())),
    ]
    return Facts(tuple(rows))


def _sentence(note: str) -> str:
    text = note[:1].upper() + note[1:]
    return text if text.endswith(".") else f"{text}."
