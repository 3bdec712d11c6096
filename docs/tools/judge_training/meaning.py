"""The recipe of `acts+minilm`:

    PYTHONPATH=docs/tools python -m judge_training.meaning FILE... --embedder FOLDER

FILEs as for `judge_training.acts`. Logistic regression with an L2 penalty over MiniLM's embeddings of
labelled answers and of our own sentences; penalty and the equal weight of both parts were chosen by kappa on
models left out of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from judge_training.acts import XSTEST
from judge_training.fit import Bench, kappa_of
from judge_training.sentences import own_sentences
from tamperlens.judges.acts import ActsJudge
from tamperlens.judges.embedders import MINILM, get_embedder
from tamperlens.judges.labelled import read_labelled
from tamperlens.judges.meaning import MeaningJudge, MeaningWeights, pictured

PENALTY = 3.0
OWN_WEIGHT = 0.4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on models left out, train on all, write the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="CSVs of human-labelled answers")
    parser.add_argument("--embedder", default=MINILM, help="MiniLM's name or folder")
    parser.add_argument("--out", default="meaning.json")
    options = parser.parse_args(arguments)
    embedder = get_embedder(options.embedder)
    labelled, own = read_labelled(*options.files), own_sentences()
    rows = np.concatenate(
        [pictured(embedder, [text or "." for text in data.answers]) for data in (labelled, own)]
    )
    refused = np.array([_refused(label) for data in (labelled, own) for label in data.labels])
    weight = np.repeat([1.0, OWN_WEIGHT], [len(labelled), len(own)])
    source = np.array([*labelled.models, *own.models])
    bench = Bench(labelled, own)
    held_out: dict[str, float] = {}
    for model in labelled.model_names:
        data = labelled.where([name == model for name in labelled.models])
        judge = MeaningJudge(embedder, _fit(rows, refused, weight, source != model))
        judge._acts = ActsJudge(bench.train(leave_out=model))
        held_out[model] = round(kappa_of(data, judge(data.prompts, data.answers)), 4)
    held_out["mean"] = round(sum(held_out.values()) / len(held_out), 4)
    print("\n".join(f"{name}: {value:.3f}" for name, value in held_out.items()))
    print(_fit(rows, refused, weight, np.ones(len(rows), bool), held_out).save(options.out))


def _fit(
    rows: np.ndarray,
    refused: np.ndarray,
    weight: np.ndarray,
    used: np.ndarray,
    held_out: dict[str, float] | None = None,
) -> MeaningWeights:
    fitted = LogisticRegression(C=PENALTY, max_iter=3000).fit(rows[used], refused[used], weight[used])
    weights = tuple(round(float(value), 4) for value in fitted.coef_[0])
    return MeaningWeights(weights, round(float(fitted.intercept_[0]), 4), MINILM, XSTEST, held_out or {})


def _refused(label: str) -> bool:
    return label in ("refusal", "partial", "deflected")


if __name__ == "__main__":
    main()
