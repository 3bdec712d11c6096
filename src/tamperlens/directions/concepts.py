"""Any other concept (sycophancy, deception, …) from a file of contrastive pairs, by the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.results import Result
from tamperlens.directions.candidates import check_disjoint, split_sizes
from tamperlens.directions.direction import Direction
from tamperlens.directions.finding import find_direction
from tamperlens.directions.tokens import RefusalTokens, contrast_tokens
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, read

POSITIVE = ("positive", "with", "concept")
NEGATIVE = ("negative", "without", "neutral")


@dataclass(frozen=True)
class Concept(Result):
    """A concept as two sets of prompts: those that bring it about and their counterparts.

    Attributes:
        name: what the concept is called, e.g. "sycophancy".
        positive: prompts that bring the concept about; they take the place of harmful prompts.
        negative: their counterparts, row by row; they take the place of harmless prompts.
    """

    name: str
    positive: PromptSet
    negative: PromptSet

    def summary(self) -> str:
        """Name and number of pairs."""
        return f"{self.name}: {len(self)} pairs of prompts with and without it."

    def __len__(self) -> int:
        return len(self.positive)


def read_concept(
    path: PathLike,
    *,
    positive: str | None = None,
    negative: str | None = None,
    name: str | None = None,
) -> Concept:
    """Read contrastive pairs from a file: one pair a row, one column a side.

    Args:
        path: csv, tsv, json or jsonl, as `prompts.read` takes them.
        positive: column of the prompts with the concept; "positive", "with" or "concept" by default.
        negative: column of their counterparts; "negative", "without" or "neutral" by default.
        name: of the concept; the file's stem by default.

    Raises:
        InputError: a column is missing, a prompt is empty, or a prompt is on both sides.
    """
    named = name or Path(path).stem
    sides = [
        _column(path, columns if column is None else (column,), f"{named}, {kind}")
        for kind, column, columns in (("positive", positive, POSITIVE), ("negative", negative, NEGATIVE))
    ]
    check_disjoint(sides[0], sides[1])
    return Concept(named, sides[0], sides[1])


def find_concept_direction(
    model: ModelLike,
    concept: Concept,
    *,
    target_tokens: Sequence[int] | RefusalTokens | None = None,
    n_train: int | None = None,
    n_val: int | None = None,
    **settings: object,
) -> Direction:
    """The direction of a concept, chosen by what it does: `find_direction` with the pairs as the two sets.

    The metric is the log-odds of the tokens by which answers to the positive prompts begin and those to the
    negative ones do not, found from the model (`contrast_tokens`): for refusal these are refusal tokens. No
    judge is asked.

    Args:
        model: any chat model.
        concept: the pairs.
        target_tokens: token ids that open answers with the concept, instead of those found.
        n_train: pairs behind the means; four fifths by default, at most 128.
        n_val: pairs behind the scores; a fifth by default, at most 32.
        settings: further arguments of `find_direction`.

    Raises:
        InputError: too few pairs, or whatever `find_direction` refuses.
    """
    model = as_chat_model(model)
    fits = split_sizes(len(set(concept.positive.prompts)), len(set(concept.negative.prompts)))
    if target_tokens is None:
        target_tokens = contrast_tokens(model, concept.positive.prompts, concept.negative.prompts)
    return find_direction(
        model,
        concept.positive,
        concept.negative,
        n_train=fits[0] if n_train is None else n_train,
        n_val=fits[1] if n_val is None else n_val,
        refusal_tokens=target_tokens,
        **settings,  # type: ignore[arg-type]
    )


def _column(path: PathLike, columns: Sequence[str], name: str) -> PromptSet:
    problem = ""
    for column in columns:
        try:
            return read(path, column, name=name)
        except InputError as error:
            problem = str(error)
            if len(columns) == 1 or not Path(path).is_file():
                raise
    raise InputError(
        f"{path} has none of the columns {', '.join(columns)}; name it with positive= and negative= "
        f"({problem})"
    )
