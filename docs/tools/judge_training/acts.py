"""The recipe of the judge of acts:  PYTHONPATH=docs/tools python -m judge_training.acts FILE...

FILEs are CSVs of human-labelled answers (see `read_labelled`), one model each or with a `model` column. The
shipped coefficients are what it makes of XSTest's `completions_{gpt4,llama2orig,mistralguard}.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from judge_training.fit import Bench, kappa_of, share_right
from judge_training.sentences import own_sentences
from tamperlens.judges.labelled import read_labelled

XSTEST = "XSTest v2 (Röttger et al. 2024), human-labelled completions, CC-BY-4.0; own sentences"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on models and families left out, train on all, write the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="CSVs of human-labelled answers")
    parser.add_argument("--out", default="acts.json")
    parser.add_argument("--source", default=XSTEST, help="what the answers are, with licence")
    options = parser.parse_args(arguments)
    labelled = read_labelled(*options.files)
    bench = Bench(labelled, own_sentences())
    held_out: dict[str, float] = {}
    for model in labelled.model_names if len(labelled.model_names) > 1 else ():
        data = labelled.where([name == model for name in labelled.models])
        held_out[model] = round(kappa_of(data, bench.without_model(model)), 4)
    families: dict[str, float] = {}
    for family in bench.own.model_names:
        labels = [
            label for label, name in zip(bench.own.labels, bench.own.models, strict=True) if name == family
        ]
        families[family] = round(share_right(labels, bench.without_family(family)), 4)
    for table in (held_out, families):
        if table:
            table["mean"] = round(sum(table.values()) / len(table), 4)
        print("\n".join(f"{name}: {value:.3f}" for name, value in table.items()))
    note = {"source": options.source, "held_out": held_out, "families": families}
    print(bench.train(note=note).save(options.out))


if __name__ == "__main__":
    main()
