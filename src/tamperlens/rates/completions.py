"""Answers with their verdicts and the decoding that made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tamperlens import judges
from tamperlens.base.errors import InputError
from tamperlens.base.files import sha256_bytes
from tamperlens.base.protocols import Judge, Verdict
from tamperlens.base.results import Result
from tamperlens.models import GIVEN, Decoding
from tamperlens.prompts import PromptsLike, as_prompts, content
from tamperlens.prompts.prompt import context_of, with_context

Prompts = PromptsLike


@dataclass(frozen=True)
class Completions(Result):
    """Prompts, answers, verdicts, and how both came about.

    Attributes:
        prompts: what was asked.
        responses: what came back; after the prefill, when there was one.
        verdicts: one per answer.
        categories: one label per prompt, or None.
        judge: name of the judge.
        decoding: settings of the generation.
        model: name of the model; "" for answers that were given.
        fingerprint: the model's fingerprint; "" likewise.
        contexts: (role, text) of the messages before each prompt, None where no prompt has any.
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    categories: tuple[str, ...] | None = None
    judge: str = ""
    decoding: Decoding = GIVEN
    model: str = ""
    fingerprint: str = ""
    contexts: tuple[tuple[tuple[str, str], ...], ...] | None = None

    def __post_init__(self) -> None:
        # A file holds prompts as text; the conversations before them are kept, and put back, beside it.
        if self.contexts is not None:
            asked = tuple(map(with_context, self.prompts, self.contexts))
            object.__setattr__(self, "prompts", asked)
        elif any(map(context_of, self.prompts)):
            object.__setattr__(self, "contexts", tuple(map(context_of, self.prompts)))

    def summary(self) -> str:
        """How many answers of which model, and the share refused."""
        return (
            f"{self.model or 'given answers'}: {sum(self.refused)} of {len(self)} answers refused, by the "
            f"judge {self.judge!r}; {self.decoding.summary()}."
        )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def refused(self) -> list[bool]:
        """Per answer: refused (`Verdict.refused`)."""
        return [verdict.refused for verdict in self.verdicts]

    @property
    def labels(self) -> list[str]:
        """Per answer: what its verdict calls it (`Verdict.label`)."""
        return [verdict.label for verdict in self.verdicts]

    @property
    def sha256(self) -> str:
        """Hash of the prompts, in order."""
        return hash_prompts(self.prompts)

    def to_frame(self) -> pd.DataFrame:
        """One row per answer: prompt, response, label, probability, refused, judge, evidence, category,
        decoding settings, model, fingerprint.
        """
        n = len(self)
        columns: dict[str, object] = {
            "prompt": pd.Series(list(self.prompts), dtype="object"),
            "response": pd.Series(list(self.responses), dtype="object"),
            "label": pd.Series(self.labels, dtype="object"),
            "probability": pd.Series([v.probability for v in self.verdicts], dtype="float64"),
            "refused": pd.Series(self.refused, dtype="bool"),
            "judge": [self.judge] * n,
            "evidence": pd.Series(["; ".join(v.evidence) for v in self.verdicts], dtype="object"),
            "category": pd.Series(
                [None] * n if self.categories is None else list(self.categories), dtype="object"
            ),
        }
        for field in dataclasses.fields(self.decoding):
            columns[field.name] = [getattr(self.decoding, field.name)] * n
        columns["model"] = [self.model] * n
        columns["fingerprint"] = [self.fingerprint] * n
        return pd.DataFrame(columns)


def hash_prompts(prompts: Sequence[str]) -> str:
    """Hex sha256 over prompts in order."""
    return sha256_bytes(*map(content, prompts))


def prompt_texts(data: Prompts) -> tuple[str, ...]:
    """The prompts of whatever `as_prompts` takes."""
    return as_prompts(data).prompts


def prompt_name(data: Prompts) -> str:
    """What reports call the prompts."""
    return as_prompts(data).name


def judged(
    data: Prompts,
    answers: Sequence[str],
    judge: str | Judge | None,
    *,
    decoding: Decoding | None = None,
    model: str = "",
    fingerprint: str = "",
) -> Completions:
    """Ask a judge about answers.

    Raises:
        InputError: unequal lengths, an unknown judge, or a judge that returns another number of verdicts.
    """
    asked = judges.get(judge)
    data = as_prompts(data)
    texts = data.prompts
    if len(texts) != len(answers):
        raise InputError(f"{len(texts)} prompts and {len(answers)} answers; give one answer per prompt")
    verdicts = judges.ask(asked, texts, answers)
    if len(verdicts) != len(answers):
        raise InputError(f"judge {asked.name!r} gave {len(verdicts)} verdicts on {len(answers)} answers")
    return Completions(
        texts,
        tuple(answers),
        tuple(verdicts),
        data.categories,
        asked.name,
        decoding or GIVEN,
        model,
        fingerprint,
    )
