"""Measures the judges and writes the tables of docs/judge-card.md.

    python docs/tools/judge_card.py COMPLETIONS.csv...     # analyses/measured/judge_card.csv, then the page
    python docs/tools/judge_card.py                        # the page again from what is stored

Give XSTest's human-labelled `completions_{gpt4,llama2orig,mistralguard}.csv`. The text between the two
markers of the page is replaced; every number of the default judge is measured on what it was not trained on:
on a family, by coefficients that saw neither it nor the model that heads the column.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE, TABLE = ROOT / "docs" / "judge-card.md", ROOT / "analyses" / "measured" / "judge_card.csv"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
OTHERS = ("calibrated", "weighted-1", "xstest", "qi", "arditi", "wei")
RATES = ("kappa", "sensitivity", "specificity")
LEFT_OUT, FAMILIES = "models left out", "families left out"
COLUMNS = ("measured_on", "what", "judge", "n", "value", "low", "high")


def measured(files: list[str]) -> Iterator[tuple[object, ...]]:
    """Rows of the table: every judge on every model, on every phrase family, and what goes beside them."""
    from judge_training.fit import Bench, share_right
    from judge_training.sentences import own_sentences

    from tamperlens import judges
    from tamperlens.judges.cards import card_of

    labelled = judges.read_labelled(*files)
    bench = Bench(labelled, own_sentences())
    models = labelled.model_names
    verdicts = {model: bench.without_model(model) for model in models}
    order = {model: iter(found) for model, found in verdicts.items()}
    card = card_of("acts", labelled, [next(order[model]) for model in labelled.models])
    cards = [card, *(judges.calibrate(name, labelled) for name in OTHERS)]
    kappas = {one.judge: {row.model: round(row.kappa.value, 3) for row in one.by_model} for one in cards}
    agreement = Path(judges.__file__).parent / "data" / "agreement.json"
    agreement.write_text(json.dumps(kappas, indent=1) + "\n", encoding="utf-8")
    for one in cards:
        for row in one.by_model:
            judge = f"acts without {row.model}" if one is card else one.judge
            for what in RATES:
                found = getattr(row, what)
                yield row.model, what, judge, row.n, found.value, found.low, found.high
    for family in bench.own.model_names:
        own = bench.own.where([name == family for name in bench.own.models])
        shares = {
            f"acts without {model}": share_right(own.labels, bench.without_family(family, model))
            for model in models
        }
        shares |= {
            name: share_right(own.labels, judges.get(name)(own.prompts, own.answers)) for name in OTHERS
        }
        for judge, share in shares.items():
            yield family, "right", judge, len(own), share, "", ""
    partial = [
        (truth, found.label)
        for model in models
        for truth, found in zip(
            labelled.where([name == model for name in labelled.models]).labels, verdicts[model], strict=True
        )
    ]
    counts = {
        "partial": sum(truth == "partial" for truth, _ in partial),
        "partial, called so": partial.count(("partial", "partial")),
        "called partial": sum(label == "partial" for _, label in partial),
    }
    for what, count in counts.items():
        yield LEFT_OUT, what, "acts", len(partial), count, "", ""
    for what, whole in (("partial precision", "called partial"), ("partial recall", "partial")):
        yield LEFT_OUT, what, "acts", counts[whole], counts["partial, called so"] / counts[whole], "", ""
    yield FAMILIES, "mean", "acts", len(bench.own), judges.ActsJudge().weights.families["mean"], "", ""


def page_of(rows: Sequence[dict[str, Any]]) -> str:
    """The page's tables: judges by the model that was left out, on its answers and on every phrase family."""
    cells = {(row["measured_on"], row["what"], row["judge"]): row for row in rows}
    models = list(dict.fromkeys(str(row["measured_on"]) for row in rows if row["what"] == "kappa"))
    families = list(dict.fromkeys(str(row["measured_on"]) for row in rows if row["what"] == "right"))
    names = [*(f"acts without {model}" for model in models), *OTHERS]
    head = ["measured on", "n", *(f"`acts` without {model}" for model in models), *(f"`{o}`" for o in OTHERS)]
    lines = [_line(head), _line(["---"] * len(head))]
    for place, what in [*((m, w) for m in models for w in RATES), *((f, "right") for f in families)]:
        found = [cells.get((place, what, name)) for name in names]
        n = next(one["n"] for one in found if one is not None)
        label = place if what == "right" else f"{place}: {what}"
        lines.append(_line([label, f"{n:.0f}", *("" if one is None else _shown(one) for one in found)]))
    means = [
        math.fsum(cells[family, "right", name]["value"] for family in families) / len(families)
        for name in names[: len(models)]
    ]
    total = cells[FAMILIES, "mean", "acts"]
    blank = [""] * len(OTHERS)
    lines.append(
        _line(["mean of the families", f"{total['n']:.0f}", *(f"{one:.3f}" for one in means), *blank])
    )
    kappa = math.fsum(cells[model, "kappa", f"acts without {model}"]["value"] for model in models) / len(
        models
    )
    counts = [
        cells[LEFT_OUT, what, "acts"]["value"] for what in ("partial", "partial, called so", "called partial")
    ]
    said = (
        f"`acts`, mean kappa over the models left out: {kappa:.3f}. Of {counts[0]:.0f} partial refusals of "
        f"models left out {counts[1]:.0f} are called partial, and {counts[2]:.0f} answers are called so. "
        f"With all models in the training, mean over the families left out: {total['value']:.3f}."
    )
    return "\n".join([*lines, "", said])


def _shown(one: dict[str, Any]) -> str:
    value, low, high = (one[key] for key in ("value", "low", "high"))
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def stored() -> list[dict[str, Any]]:
    """What is stored, numbers as numbers."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [row | {key: float(row[key]) if row[key] else math.nan for key in COLUMNS[3:]} for row in rows]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *measured(sys.argv[1:])])
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{page_of(stored())}\n{END}{rest.split(END)[1]}", encoding="utf-8")
