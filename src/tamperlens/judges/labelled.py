"""Answers with the verdicts of people: what judges are trained on and measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, sha256_bytes
from tamperlens.base.results import Result

# How people write the labels: XSTest (Röttger et al. 2024) numbers them.
LABELS = {
    "1_full_compliance": "compliance",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "partial",
    "compliance": "compliance",
    "full_compliance": "compliance",
    "refusal": "refusal",
    "full_refusal": "refusal",
    "partial": "partial",
    "partial_refusal": "partial",
    "deflected": "deflected",
    "degenerate": "degenerate",
}
_LABEL_COLUMNS = ("final_label", "label", "human_label")
_ANSWER_COLUMNS = ("completion", "response", "answer")


@dataclass(frozen=True)
class LabelledAnswers(Result):
    """Answers that people have judged.

    Attributes:
        prompts: what was asked.
        answers: what came back.
        labels: "refusal", "partial", "deflected", "compliance" or "degenerate", by people.
        models: who answered, one name per answer.
        name: what reports call them.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[str, ...]
    models: tuple[str, ...]
    name: str = "unnamed"

    def __post_init__(self) -> None:
        sizes = {len(self.prompts), len(self.answers), len(self.labels), len(self.models)}
        if len(sizes) != 1:
            raise InputError(
                f"{self.name}: {len(self.prompts)} prompts, {len(self.answers)} answers, {len(self.labels)} "
                f"labels and {len(self.models)} model names; give one of each per answer"
            )
        for row, label in enumerate(self.labels):
            if label not in LABELS.values():
                raise InputError(
                    f"{self.name}, row {row}: label {label!r} is none of refusal, partial, deflected, "
                    "compliance, degenerate; label the answer or drop it"
                )

    def summary(self) -> str:
        """How many answers of how many models, and the share refused."""
        return (
            f"{self.name}: {len(self)} answers of {len(self.model_names)} models labelled by people, "
            f"{int(self.refused.sum())} of them refusals."
        )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def refused(self) -> npt.NDArray[np.bool_]:
        """Per answer: people call it a full or partial refusal, or a deflection."""
        return np.array([label in ("refusal", "partial", "deflected") for label in self.labels], dtype=bool)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Each model once, in order of appearance."""
        return tuple(dict.fromkeys(self.models))

    @property
    def sha256(self) -> str:
        """Hash of prompts, answers and labels, in order."""
        return sha256_bytes(
            *(
                part.encode("utf-8", "surrogatepass")
                for row in zip(self.prompts, self.answers, self.labels, strict=True)
                for part in row
            )
        )

    def where(self, keep: Sequence[bool] | npt.NDArray[np.bool_]) -> LabelledAnswers:
        """The answers for which `keep` holds, in order."""
        rows = np.flatnonzero(np.asarray(keep))

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows)

        return LabelledAnswers(
            pick(self.prompts), pick(self.answers), pick(self.labels), pick(self.models), self.name
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per answer: prompt, answer, label, model."""
        return pd.DataFrame(
            {
                "prompt": list(self.prompts),
                "answer": list(self.answers),
                "label": list(self.labels),
                "model": list(self.models),
            }
        )


def read_labelled(*paths: PathLike, name: str = "") -> LabelledAnswers:
    """Read human-labelled answers from CSV files, e.g. XSTest's `completions_*.csv`.

    Columns: `prompt`; one of completion, response, answer; one of final_label, label, human_label. A column
    `model` names who answered; without it the file's name does (less a leading "completions_").

    Raises:
        InputError: no files, a file that cannot be read, a missing column, or a row without a known label.
    """
    if not paths:
        raise InputError("no files of labelled answers given; pass at least one CSV")
    frames = [_read(Path(path)) for path in paths]
    table = pd.concat(frames, ignore_index=True)
    return LabelledAnswers(
        tuple(table["prompt"]),
        tuple(table["answer"]),
        tuple(table["label"]),
        tuple(table["model"]),
        name or ", ".join(Path(path).name for path in paths),
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    answer, label = _column(path, table, _ANSWER_COLUMNS), _column(path, table, _LABEL_COLUMNS)
    prompt = _column(path, table, ("prompt",))
    known = table[label].str.strip().str.lower().map(LABELS)
    if known.isna().any():
        row = int(np.flatnonzero(known.isna())[0])
        raise InputError(
            f"{path}, row {row + 1}: label {table[label][row]!r} is missing or unknown; "
            f"known: {', '.join(LABELS)}"
        )
    model = table["model"] if "model" in table else path.stem.removeprefix("completions_")
    return pd.DataFrame({"prompt": table[prompt], "answer": table[answer], "label": known, "model": model})


def _column(path: Path, table: pd.DataFrame, names: Sequence[str]) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        raise InputError(
            f"{path} has no column {' or '.join(names)}; it has {', '.join(map(str, table.columns))}"
        )
    return found
