"""Writes the tables of docs/judge-card.md:  python docs/tools/judge_card.py COMPLETIONS.csv...

Give XSTest's human-labelled `completions_{gpt4,llama2orig,mistralguard}.csv`. The text between the two
markers of the page is replaced; every number of the default judge is measured on what it was not trained on:
on a family, by coefficients that saw neither it nor the model that heads the column.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from judge_training.fit import Bench, share_right
from judge_training.sentences import own_sentences

from tamperlens import judges
from tamperlens.base.stats import Estimate
from tamperlens.judges.cards import card_of

PAGE = Path(__file__).parents[1] / "judge-card.md"
AGREEMENT = Path(judges.__file__).parent / "data" / "agreement.json"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
OTHERS = ("calibrated", "weighted-1", "xstest", "qi", "arditi", "wei")


def tables(files: list[str]) -> str:
    """One table: judges by the model that was left out, on its answers and on every phrase family."""
    labelled = judges.read_labelled(*files)
    bench = Bench(labelled, own_sentences())
    models = labelled.model_names
    verdicts = {model: bench.without_model(model) for model in models}
    order = {model: iter(found) for model, found in verdicts.items()}
    card = card_of("acts (model left out)", labelled, [next(order[model]) for model in labelled.models])
    cards = [card, *(judges.calibrate(name, labelled) for name in OTHERS)]
    kappas = {
        one.judge.split(" ")[0]: {row.model: round(row.kappa.value, 3) for row in one.by_model}
        for one in cards
    }
    AGREEMENT.write_text(json.dumps(kappas, indent=1) + "\n", encoding="utf-8")
    head = ["measured on", "n", *(f"`acts` without {model}" for model in models), *(f"`{o}`" for o in OTHERS)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row, model in enumerate(models, 1):
        for what in ("kappa", "sensitivity", "specificity"):
            ours = [_shown(getattr(card.by_model[row - 1], what)) if one == model else "" for one in models]
            theirs = [_shown(getattr(one.by_model[row - 1], what)) for one in cards[1:]]
            lines.append(_row(f"{model}: {what}", card.by_model[row - 1].n, [*ours, *theirs]))
    sums = dict.fromkeys(models, 0.0)
    for family in bench.own.model_names:
        own = bench.own.where([name == family for name in bench.own.models])
        ours = {model: share_right(own.labels, bench.without_family(family, model)) for model in models}
        sums = {model: sums[model] + share for model, share in ours.items()}
        shares = [*ours.values(), *(share_right(own.labels, _asked(name, own)) for name in OTHERS)]
        lines.append(_row(family, len(own), [f"{share:.2f}" for share in shares]))
    means = [f"{total / len(bench.own.model_names):.3f}" for total in sums.values()]
    lines.append(_row("mean of the families", len(bench.own), [*means, *("" for _ in OTHERS)]))
    mean = sum(row.kappa.value for row in card.by_model) / len(models)
    partial = [
        (truth, found.label)
        for model in models
        for truth, found in zip(
            labelled.where([name == model for name in labelled.models]).labels, verdicts[model], strict=True
        )
    ]
    hits, called = partial.count(("partial", "partial")), sum(label == "partial" for _, label in partial)
    labels = sum(truth == "partial" for truth, _ in partial)
    lines += [
        "",
        f"`acts`, mean kappa over the models left out: {mean:.3f}. Of {labels} partial refusals of models "
        f"left out {hits} are called partial, and {called} answers are called so. With all models in the "
        f"training, mean over the families left out: {judges.ActsJudge().weights.families['mean']:.3f}.",
    ]
    return "\n".join(lines)


def _asked(name: str, own: judges.LabelledAnswers) -> list[judges.Verdict]:
    return judges.get(name)(own.prompts, own.answers)


def _shown(found: Estimate) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _row(name: str, n: int, cells: list[str]) -> str:
    return f"| {name} | {n} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(sys.argv[1:])}\n{END}{rest.split(END)[1]}", encoding="utf-8")
