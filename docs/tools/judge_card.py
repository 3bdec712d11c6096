"""Writes the tables of docs/judge-card.md:  python docs/tools/judge_card.py COMPLETIONS.csv...

Give XSTest's human-labelled `completions_{gpt4,llama2orig,mistralguard}.csv`. The text between the two
markers of the page is replaced; every number of the default judge is measured on what it was not trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from judge_training.fit import Bench, kappa_of, share_right
from judge_training.sentences import own_sentences

from tamperlens import judges
from tamperlens.judges.cards import JudgeCard, card_of

PAGE = Path(__file__).parents[1] / "judge-card.md"
AGREEMENT = Path(judges.__file__).parent / "data" / "agreement.json"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
OTHERS = ("calibrated", "weighted-1", "xstest", "qi", "arditi", "wei")


def tables(files: list[str]) -> str:
    """Left-out models, other judges, and phrase families by judge and left-out model."""
    labelled = judges.read_labelled(*files)
    bench = Bench(labelled, own_sentences())
    models = labelled.model_names
    verdicts = {model: bench.without_model(model) for model in models}
    order = {model: iter(found) for model, found in verdicts.items()}
    card = card_of("acts (model left out)", labelled, [next(order[model]) for model in labelled.models])
    lines = [
        "| judge | answers of | n | sensitivity | specificity | kappa |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    cards = (card, *(judges.calibrate(name, labelled) for name in OTHERS))
    for found in cards:
        lines += _rows(found)
    kappas = {
        one.judge.split(" ")[0]: {row.model: round(row.kappa.value, 3) for row in one.by_model}
        for one in cards
    }
    AGREEMENT.write_text(json.dumps(kappas, indent=1) + "\n", encoding="utf-8")
    mean = sum(
        kappa_of(labelled.where([m == model for m in labelled.models]), verdicts[model]) for model in models
    )
    lines += ["", f"`acts`, mean kappa over the models left out: {mean / len(models):.3f}.", ""]
    head = ["phrase family", "n", "`acts`, family left out", *(f"`{name}`" for name in OTHERS[:3])]
    lines += ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for family in bench.own.model_names:
        own = bench.own.where([name == family for name in bench.own.models])
        shares = [share_right(own.labels, bench.without_family(family))]
        shares += [share_right(own.labels, judges.get(name)(own.prompts, own.answers)) for name in OTHERS[:3]]
        lines.append(f"| {family} | {len(own)} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    families = judges.ActsJudge().weights.families
    lines += ["", f"`acts`, mean over the families left out: {families['mean']:.3f}."]
    return "\n".join(lines)


def _rows(card: JudgeCard) -> list[str]:
    return [
        f"| `{card.judge}` | {row.model} | {row.n} | "
        + " | ".join(
            f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
            for found in (row.sensitivity, row.specificity, row.kappa)
        )
        + " |"
        for row in (card.overall, *card.by_model)
    ]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(sys.argv[1:])}\n{END}{rest.split(END)[1]}", encoding="utf-8")
