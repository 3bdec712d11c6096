"""`PromptSet`: prompts with their answers, categories and provenance, as one frozen value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, sha256_bytes, write_text
from tamperlens.base.lazy import pd
from tamperlens.base.nouns import clip
from tamperlens.base.results import Result
from tamperlens.prompts.prompt import Message, Prompt, content, context_of, with_context


@dataclass(frozen=True)
class Example:
    """One row of a `PromptSet`.

    Attributes:
        prompt: what the user says.
        response: an answer to train or score on, or None.
        category: a label of the row, or None.
        answer: the expected short answer of a capability item, or None.
        label: "safe", "unsafe" or None.
    """

    prompt: str
    response: str | None = None
    category: str | None = None
    answer: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class PromptSet(Result):
    """Prompts in a fixed order, with what is known about each and where they come from.

    Attributes:
        prompts: what the user says, one per row.
        responses: full answers to train or score on, one per row; None when the set has none.
        answers: expected short answers of capability items, one per row; None when the set has none.
        categories: one label per row; None when the set has none.
        name: what reports call the set.
        licence: licence of the text, "unknown" for a user's file.
        source: where the rows come from, with anything that was left out.
        contexts: the messages before each prompt, (role, text), a system message first; None when no prompt
            has any. `prompts` are then `Prompt`s, which carry the same.
        labels: "safe" or "unsafe" per row, where the data says so (XSTest, WildGuard); None otherwise.

    Raises:
        InputError: a column has another length than `prompts`.
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    name: str = "unnamed"
    licence: str = "unknown"
    source: str = ""
    contexts: tuple[tuple[Message, ...], ...] | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.contexts is None:
            found = tuple(context_of(prompt) for prompt in self.prompts)
            object.__setattr__(self, "contexts", found if any(found) else None)
        for label, column in self._columns():
            if column is not None and len(column) != len(self.prompts):
                raise InputError(
                    f"prompt set {self.name!r} has {len(self.prompts)} prompts and {len(column)} {label}; "
                    "give one per prompt"
                )
        if self.contexts is not None:  # one truth: a set that was loaded has plain texts beside its contexts
            joined = tuple(map(with_context, self.prompts, self.contexts))
            object.__setattr__(self, "prompts", joined)
            object.__setattr__(
                self, "contexts", tuple(map(context_of, joined)) if any(self.contexts) else None
            )

    # ---- making one -------------------------------------------------------------------------------------

    @classmethod
    def from_prompts(
        cls,
        prompts: Iterable[str],
        *,
        categories: Iterable[str] | None = None,
        name: str = "unnamed",
        licence: str = "unknown",
        source: str = "",
    ) -> PromptSet:
        """A set of prompts alone.

        Raises:
            InputError: a prompt is empty or not text, or categories has another length.

        Examples:
            >>> from tamperlens import PromptSet
            >>> len(PromptSet.from_prompts(['Name a tree.', 'Add 2 and 3.'], name='mine'))
            2
        """
        ready = _texts(prompts, "prompt", name)
        labels = None if categories is None else tuple(categories)
        return cls(ready, None, None, labels, name, licence, source)

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[Sequence[str]],
        *,
        categories: Iterable[str] | None = None,
        name: str = "unnamed",
        licence: str = "unknown",
        source: str = "",
    ) -> PromptSet:
        """A set of (prompt, response) pairs.

        Raises:
            InputError: a row is not a pair, its prompt is empty, or one of the two is not text.

        Examples:
            >>> from tamperlens import PromptSet
            >>> PromptSet.from_pairs([('Add 2 and 3.', '5')], name='mine').responses
            ('5',)
        """
        rows = list(pairs)
        for row, pair in enumerate(rows):
            if isinstance(pair, str) or len(pair) != 2:
                raise InputError(f"row {row} of {name!r} is not a (prompt, response) pair: {pair!r:.80}")
        prompts = _texts([pair[0] for pair in rows], "prompt", name)
        responses = _texts([pair[1] for pair in rows], "response", name, empty=True)
        labels = None if categories is None else tuple(categories)
        return cls(prompts, responses, None, labels, name, licence, source)

    @classmethod
    def concat(cls, sets: Sequence[PromptSet], *, name: str | None = None) -> PromptSet:
        """The rows of several sets, one after the other; a column survives if every set has it."""
        if not sets:
            raise InputError("concat needs at least one prompt set")

        def joined(columns: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
            present = [column for column in columns if column is not None]
            if len(present) < len(columns):
                return None
            return tuple(text for column in present for text in column)

        return cls(
            tuple(prompt for one in sets for prompt in one.prompts),
            joined([one.responses for one in sets]),
            joined([one.answers for one in sets]),
            joined([one.categories for one in sets]),
            name or "+".join(one.name for one in sets),
            "; ".join(dict.fromkeys(one.licence for one in sets)),
            "; ".join(dict.fromkeys(one.source for one in sets if one.source)),
            labels=joined([one.labels for one in sets]),
        )

    # ---- looking at it ----------------------------------------------------------------------------------

    @property
    def sha256(self) -> str:
        """Hash of the content (every column, in order); names and provenance do not count."""
        chunks: list[bytes] = []
        for label, column in (("prompts", self.prompts), *self._columns()):
            if column is not None:
                chunks += [label.encode(), str(len(column)).encode()]
                chunks += [content(text) for text in column]
        return sha256_bytes(*chunks)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, row: int) -> Example:
        return Example(
            self.prompts[row],
            None if self.responses is None else self.responses[row],
            None if self.categories is None else self.categories[row],
            None if self.answers is None else self.answers[row],
            None if self.labels is None else self.labels[row],
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        columns = "".join(f", {label}" for label, column in self._columns() if column is not None)
        if self.contexts is not None:
            systems = {one.system for one in self.prompts if isinstance(one, Prompt) and one.system}
            shown = f"{min(systems):.60}" if len(systems) == 1 else f"{len(systems)} different"
            columns += f", system {shown!r}" if systems else ""
            turns = sum(bool(one.history) for one in self.prompts if isinstance(one, Prompt))
            columns += f", {turns} with earlier turns" if turns else ""
        return clip(f"PromptSet({self.name!r}, {len(self)} prompts{columns}, sha256 {self.sha256[:12]})")

    def pairs(self) -> list[tuple[str, str]]:
        """All (prompt, response) pairs.

        Raises:
            InputError: the set has no responses.
        """
        if self.responses is None:
            raise InputError(
                f"prompt set {self.name!r} has no responses; read it with response_column=, "
                "or make it with PromptSet.from_pairs"
            )
        return list(zip(self.prompts, self.responses, strict=True))

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt, with the columns that the set has: prompt, response, answer, category, label,
        system, history (a list of messages).
        """
        frame = pd.DataFrame({"prompt": [str(prompt) for prompt in self.prompts]}, dtype="object")
        names = {"responses": "response", "answers": "answer", "categories": "category", "labels": "label"}
        for label, column in self._columns():
            if column is not None:
                frame[names[label]] = pd.Series(list(column), dtype="object")
        if self.contexts is not None:
            known = [prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in self.prompts]
            frame["system"] = pd.Series([one.system for one in known], dtype="object")
            histories = [[{"role": r, "content": t} for r, t in one.history] for one in known]
            if any(histories):
                frame["history"] = pd.Series(histories, dtype="object")
        return frame

    def to_jsonl(self, path: PathLike) -> Path:
        """Write the set as JSON Lines in the packaged format; `prompts.read` reads it back whole."""
        header = {"name": self.name, "licence": self.licence, "source": self.source}
        lines = [json.dumps({"$set": header}, ensure_ascii=False)]
        for example in self:
            row = {
                key: value
                for key in ("prompt", "response", "answer", "category", "label")
                if (value := getattr(example, key)) is not None
            }
            if context_of(example.prompt):
                row["context"] = context_of(example.prompt)
            lines.append(json.dumps(row, ensure_ascii=False))
        return write_text(path, "\n".join(lines) + "\n")

    # ---- taking a part of it ----------------------------------------------------------------------------

    def subset(self, indices: Iterable[int], *, name: str | None = None) -> PromptSet:
        """The rows with these indices, in the order given.

        Raises:
            InputError: an index lies outside the set.
        """
        rows = [int(index) for index in indices]
        for row in rows:
            if not 0 <= row < len(self):
                raise InputError(f"row {row} is outside prompt set {self.name!r}, which has {len(self)} rows")

        def pick(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if column is None else tuple(column[row] for row in rows)

        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            responses=pick(self.responses),
            answers=pick(self.answers),
            categories=pick(self.categories),
            contexts=None,  # the prompts carry them
            labels=pick(self.labels),
            name=name or self.name,
        )

    def only(self, *categories: str) -> PromptSet:
        """The rows of these categories, in their order.

        Raises:
            InputError: the set has no categories, or none of that name.
        """
        known = sorted(set(self.categories or ()))
        for category in categories:
            if category not in known:
                raise InputError(
                    f"prompt set {self.name!r} has no category {category!r}; "
                    f"it has {', '.join(known) or 'none'}"
                )
        return self.subset(row for row, label in enumerate(self.categories or ()) if label in categories)

    def labelled(self, label: Literal["safe", "unsafe"]) -> PromptSet:
        """The rows that the data calls safe or unsafe; all of them when it does not say.

        Raises:
            InputError: no row has that label.
        """
        if self.labels is None:
            return self
        rows = [row for row, given in enumerate(self.labels) if given == label]
        if not rows:
            raise InputError(
                f"no row of {self.name!r} is labelled {label}; all {len(self)} are the other kind"
            )
        some = "" if len(rows) == len(self) else f"; the {len(rows)} of {len(self)} rows labelled {label}"
        return replace(self.subset(rows), source=self.source + some)

    def head(self, n: int) -> PromptSet:
        """The first n rows, or all when there are fewer."""
        return self.subset(range(min(_count(n), len(self))))

    def sample(self, n: int, seed: int = 0) -> PromptSet:
        """n different rows in a seeded random order; the same on every machine and version.

        Raises:
            InputError: the set has fewer than n rows.

        Examples:
            >>> from tamperlens import prompts
            >>> len(prompts.packaged('benign').sample(10, seed=1))
            10
        """
        if _count(n) > len(self):
            raise InputError(f"prompt set {self.name!r} has {len(self)} rows, {n} were asked for")
        return self.subset(self._shuffled(seed)[:n])

    def split(self, parts: Sequence[int | float], seed: int = 0) -> tuple[PromptSet, ...]:
        """Disjoint seeded random parts; rows that no part takes are left out.

        Args:
            parts: sizes as whole numbers, or as fractions in (0, 1] that sum to at most 1. When
                fractions sum to 1 every row is in some part.
            seed: of the order; the same on every machine and version.

        Raises:
            InputError: the parts ask for more rows than there are, mix the two kinds, or are negative.

        Examples:
            >>> from tamperlens import prompts
            >>> [len(part) for part in prompts.packaged('benign').split((0.8, 0.2))]
            [400, 100]
        """
        rows = self._shuffled(seed)
        taken: list[PromptSet] = []
        start = 0
        for size in self._sizes(parts):
            taken.append(self.subset(rows[start : start + size]))
            start += size
        return tuple(taken)

    def _sizes(self, parts: Sequence[int | float]) -> list[int]:
        total = len(self)
        if all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
            sizes = [_count(int(part)) for part in parts]
            if sum(sizes) > total:
                raise InputError(f"prompt set {self.name!r} has {total} rows, parts ask for {sum(sizes)}")
            return sizes
        if not all(isinstance(part, float) and 0 < part <= 1 for part in parts) or sum(parts) > 1 + 1e-9:
            raise InputError(f"parts {list(parts)} must be all counts, or fractions that sum to at most 1")
        # Rounding the running sum keeps every part within one row of its share and loses none at the end.
        edges = [0]
        running = 0.0
        for part in parts:
            running += part
            edges.append(round(running * total))
        return [after - before for before, after in pairwise(edges)]

    def _shuffled(self, seed: int) -> list[int]:
        # Sorting by a hash, not by a generator: no library may ever change this order.
        def key(row: int) -> bytes:
            return hashlib.sha256(f"{seed}:{row}".encode()).digest()

        return sorted(range(len(self)), key=key)

    def _columns(self) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
        return (
            ("responses", self.responses),
            ("answers", self.answers),
            ("categories", self.categories),
            ("labels", self.labels),
        )


def _count(n: int) -> int:
    if n < 0:
        raise InputError(f"a number of rows cannot be negative, got {n}")
    return n


def _texts(values: Iterable[object], kind: str, name: str, empty: bool = False) -> tuple[str, ...]:
    if isinstance(values, str):
        raise InputError(f"one string was given where {name!r} needs a list of them; write [text]")
    if isinstance(values, Mapping) or hasattr(values, "columns") or hasattr(values, "column_names"):
        raise InputError(f"a table was given where {name!r} needs a list of texts; use prompts.read(table)")
    texts: list[str] = []
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(f"{kind} {row} of {name!r} is {type(value).__name__}, not text")
        if not empty and not value.strip():
            raise InputError(f"{kind} {row} of {name!r} is empty; drop the row")
        texts.append(value)
    return tuple(texts)
