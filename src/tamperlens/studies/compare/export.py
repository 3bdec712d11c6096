"""A comparison in other tools' formats: inspect_ai logs, Parquet, a block for a model card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, sha256_bytes, write_json, write_text
from tamperlens.base.provenance import versions
from tamperlens.base.stats import rate
from tamperlens.studies.compare.readings import AFTER, LEFT_OUT, SHARE
from tamperlens.studies.compare.result import Comparison, Comparisons
from tamperlens.studies.compare.tables import markdown

INSPECT_VERSION = 2
SIDES = ("base", "tuned")


def write_exports(
    found: Comparisons, folder: PathLike, *, card: bool = False, inspect: bool = False, parquet: bool = False
) -> list[Path]:
    """Write what was asked for into a folder and return the paths.

    Raises:
        InputError: Parquet was asked for and pyarrow is not installed.
        RunFolderError: the folder cannot be written.
    """
    root, written = Path(folder), []
    if card:
        written.append(write_text(root / "card.md", model_card(found.items)))
    if inspect:
        for place, one in enumerate(found.items):
            for side in SIDES if place == 0 else SIDES[1:]:
                name = "base" if side == "base" else f"tuned-{place + 1}"
                written.append(write_json(root / "inspect" / f"{name}.json", inspect_log(one, side)))
    if parquet:
        for name, frame in (
            ("measures", found.to_frame()), ("verdicts", found.verdict_frame()), ("answers", found.answers()),
        ):  # fmt: skip
            written.append(write_parquet(root / f"{name}.parquet", frame))
    return written


def write_parquet(path: PathLike, frame: pd.DataFrame) -> Path:
    """Write a frame as Parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        frame.to_parquet(path, index=False)
    except ImportError as error:
        raise InputError("Parquet needs pyarrow; pip install pyarrow, or read the CSV files") from error
    return Path(path)


def inspect_log(one: Comparison, side: str = "tuned") -> dict[str, Any]:
    """One model's answers as an evaluation log of inspect_ai (format 2), which `inspect view` opens.

    Samples are prompts and questions; the score "verdict" is the judge's label (of questions: right or
    wrong), "refused" and "correct" are 1 or 0 where they apply. Field names
    are those of `inspect_ai.log.EvalLog`.

    Args:
        one: a comparison.
        side: "base" or "tuned".

    Raises:
        InputError: another side.
    """
    if side not in SIDES:
        raise InputError(f"side is {side!r}; it is one of {', '.join(SIDES)}")
    model = f"tamperlens/{getattr(one, side)}"
    fingerprint = getattr(one, f"{side}_fingerprint")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    samples = [_sample(row, side, model) for row in one.answers.to_dict("records")]
    ids = [sample["id"] for sample in samples]
    key = sha256_bytes(fingerprint.encode(), *(str(name).encode() for name in ids))[:22]
    return {
        "version": INSPECT_VERSION,
        "status": "success",
        "eval": {
            "eval_id": key, "run_id": key, "created": created, "task": "tamperlens compare", "task_id": key,
            "task_version": 0, "task_attribs": {}, "task_args": {},
            "dataset": {"name": "prompts", "samples": len(samples), "sample_ids": ids, "shuffled": False},
            "model": model, "model_args": {}, "config": {}, "packages": versions(),
            "metadata": {"fingerprint": fingerprint, "side": side},
        },
        "plan": {
            "name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {"temperature": 0.0}
        },
        "results": {
            "total_samples": len(samples), "completed_samples": len(samples),
            "scores": _scores(one.answers, side),
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": samples,
    }  # fmt: skip


def _sample(row: dict[Any, Any], side: str, model: str) -> dict[str, Any]:
    prompt, answer, label = (str(row[key]) for key in ("prompt", side, f"{side}_label"))
    scores: dict[str, Any] = {"verdict": {"value": label, "answer": answer}}
    if label in ("right", "wrong"):
        scores["correct"] = {"value": float(label == "right"), "answer": answer}
    else:
        scores["refused"] = {"value": float(bool(row[f"{side}_refused"])), "answer": answer}
    said = {"role": "assistant", "content": answer, "source": "generate"}
    return {
        "id": f"{row['set']}-{row['index']}", "epoch": 1, "input": prompt, "target": "",
        "messages": [
            {"role": "user", "content": prompt, "source": "input"},
            said,
        ],
        "output": {
            "model": model,
            "choices": [{"message": said, "stop_reason": "stop"}],
        },
        "scores": scores, "metadata": {"set": str(row["set"])},
    }  # fmt: skip


def _scores(answers: pd.DataFrame, side: str) -> list[dict[str, Any]]:
    """Share refused by set, and share right over the questions."""
    labels = answers[f"{side}_label"]
    questions = labels.isin(["right", "wrong"])
    found = []
    for which in dict.fromkeys(answers.loc[~questions, "set"]):
        flags = answers.loc[answers["set"] == which, f"{side}_refused"].astype(bool).tolist()
        found.append(_score(f"refused ({which})", "refused", flags))
    if questions.any():
        found.append(_score("correct", "correct", (labels[questions] == "right").tolist()))
    return found


def _score(name: str, scorer: str, flags: Sequence[bool]) -> dict[str, Any]:
    e = rate(list(flags))
    values = {"mean": e.value, "low": e.low, "high": e.high}
    metrics = {key: {"name": key, "value": value, "params": {}} for key, value in values.items()}
    return {"name": name, "scorer": scorer, "scored_samples": e.n, "params": {}, "metrics": metrics}


def model_card(items: Sequence[Comparison]) -> str:
    """Front matter with a `model-index`, as the hub reads it, and the table of verdicts.

    Put it at the head of the tuned model's README.md. The metadata are made and checked by huggingface_hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    parts = []
    for one in items:
        results = [
            EvalResult(
                task_type="text-generation", dataset_type="tamperlens",
                dataset_name=f"{row.set} (n = {row.n})",
                metric_type=row.measure.replace(" ", "_").lower(), metric_value=round(row.value, 4),
                metric_name=f"{row.measure}, 95 % [{row.low:.3f}, {row.high:.3f}]",
            )
            for reading in one.readings
            if reading.verdict != LEFT_OUT
            for row in reading.rows
            if row.stage == AFTER and row.unit == SHARE and not math.isnan(row.value)
        ]  # fmt: skip
        data = ModelCardData(model_name=one.tuned, eval_results=results, tags=["tamperlens"])
        body = (
            f"## What the fine-tuning did\n\n{one.headline}\n\nMeasured with tamperlens against {one.base} "
            f"(fingerprint `{one.base_fingerprint[:16]}`), on the same prompts before and after.\n\n"
        )
        parts.append(f"---\n{data.to_yaml()}\n---\n\n{body}{markdown([one])}")
    return "\n".join(parts)
