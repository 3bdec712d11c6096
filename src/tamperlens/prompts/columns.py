"""Which column is the prompt, which the response: the field's usual names, in a fixed order of preference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tamperlens.base.errors import InputError
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import Table

# The first name that the file has is taken, whatever its case. In brackets: who calls it that.
PROMPT_COLUMNS = (
    "prompt",  # XSTest, HEx-PHI, OR-Bench, most files
    "goal",  # AdvBench, JailbreakBench (whose "Behavior" is a short label)
    "instruction",  # Alpaca, Arditi et al.'s splits
    "question",  # GSM8K, TruthfulQA, BeaverTails-like sets
    "forbidden_prompt",  # StrongREJECT
    "behavior",  # HarmBench
    "query",
    "request",
    "user",
    "input",
    "text",
)
RESPONSE_COLUMNS = ("response", "output", "answer", "completion", "target", "assistant")
CATEGORY_COLUMNS = ("category", "semanticcategory", "functionalcategory", "type", "label")
CHAT_COLUMNS = ("messages", "conversations")
KNOWN_COLUMNS = frozenset((*PROMPT_COLUMNS, *RESPONSE_COLUMNS, *CATEGORY_COLUMNS, *CHAT_COLUMNS, "split"))

AlpacaStyle = Literal["turn", "stanford"]

# tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT: what the Alpaca models were trained on.
_STANFORD_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_STANFORD_PLAIN = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def to_promptset(
    table: Table,
    *,
    column: str | None,
    response_column: str | None,
    category_column: str | None,
    name: str,
    alpaca: AlpacaStyle,
    skip_empty: bool,
) -> PromptSet:
    """Choose the columns of a table and make a `PromptSet` of it; arguments as in `read`.

    Raises:
        InputError: no prompt column or several, a named column that is absent, or empty prompts.
    """
    chosen = _prompt_column(table, column)
    prompts, responses, note = _prompts(table, chosen, alpaca if column is None else None)
    answered = _optional(table, response_column, RESPONSE_COLUMNS, exclude=(chosen,))
    if answered is not None and (responses is None or response_column is not None):
        responses = _texts(table, answered)
        note += f", responses from {answered!r}"
    expected = _optional(table, None, ("answer",), exclude=(chosen, answered))
    answers = None if expected is None else _texts(table, expected)
    label = _optional(table, category_column, CATEGORY_COLUMNS, exclude=(chosen, answered))
    categories = None if label is None else _texts(table, label)

    empty = [i for i, prompt in enumerate(prompts) if not prompt.strip()]
    hollow = [i for i, text in enumerate(responses or []) if not text.strip()]
    if empty and not skip_empty:
        raise InputError(
            f"{table.source}: {len(empty)} of {len(prompts)} prompts are empty ({_places(table, empty)}); "
            "fill or delete them, or pass skip_empty=True"
        )
    dropped = sorted({*empty, *hollow}) if skip_empty else []
    keep = [i for i in range(len(prompts)) if i not in set(dropped)]
    if not keep:
        raise InputError(f"{table.source} has no row with text ({note}); choose another column with column=")
    if dropped:
        note += f", {len(dropped)} rows with empty cells skipped"

    def kept(values: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(values[i] for i in keep)

    return PromptSet(
        prompts=tuple(prompts[i] for i in keep),
        responses=kept(responses),
        answers=kept(answers),
        categories=kept(categories),
        name=name,
        licence="unknown",
        source=f"{table.source} ({note})",
    )


def packaged_format(table: Table, *, name: str | None, split: str | None) -> PromptSet:
    """A table with a `$set` header: its columns are named by the format, nothing is guessed.

    Raises:
        InputError: no such split, a row without a prompt, or a column that only some rows have.
    """
    header = table.header or {}
    title = name or str(header.get("name", "unnamed"))
    rows, where = table.rows, table.where
    if split is not None:
        known = sorted({str(row["split"]) for row in rows if "split" in row})
        if split not in known:
            raise InputError(
                f"prompt set {title!r} has no split {split!r}; it has {', '.join(known) or 'no splits'}"
            )
        chosen = [i for i, row in enumerate(rows) if row.get("split") == split]
        rows, where = [rows[i] for i in chosen], [where[i] for i in chosen]
        title = f"{title}/{split}"

    def column(key: str) -> tuple[str, ...] | None:
        # An empty response or answer is data; an empty prompt is a mistake.
        present = [isinstance(row.get(key), str) and (row[key] != "" or key != "prompt") for row in rows]
        if not any(present) and key != "prompt":
            return None
        if not all(present):
            raise InputError(
                f"{table.source}, {where[present.index(False)]} has no {key!r}; every row needs one"
            )
        return tuple(row[key] for row in rows)

    return PromptSet(
        prompts=column("prompt") or (),
        responses=column("response"),
        answers=column("answer"),
        categories=column("category"),
        name=title,
        licence=str(header.get("licence", "unknown")),
        source=str(header.get("source", table.source)),
    )


def _prompt_column(table: Table, column: str | None) -> str:
    if column is not None:
        return _find(table, column)
    chosen = _first(table, PROMPT_COLUMNS) or _first(table, CHAT_COLUMNS)
    if chosen is None:
        raise InputError(
            f"{table.source} has no column that is known to hold prompts; it has "
            f"{', '.join(table.columns)}; name one with column=, or rename it to 'prompt'"
        )
    return chosen


def _prompts(
    table: Table, chosen: str, alpaca: AlpacaStyle | None
) -> tuple[list[str], list[str] | None, str]:
    """(prompts, responses of chat rows or None, a note that names the column)."""
    note = f"column {chosen!r}"
    if chosen.lower() in CHAT_COLUMNS:
        turns = [_turn(table, i, row.get(chosen)) for i, row in enumerate(table.rows)]
        answered = [answer for _, answer in turns if answer is not None]
        if answered and len(answered) < len(turns):
            raise InputError(f"{table.source}: only some rows of {chosen!r} have an answer; keep one kind")
        return [prompt for prompt, _ in turns], answered or None, note
    prompts = []
    for i, row in enumerate(table.rows):
        value = row.get(chosen)
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{table.source}, {table.where[i]}: {chosen!r} is a {type(value).__name__}, not text; "
                "choose another column with column="
            )
        prompts.append(value or "")
    extra = _first(table, ("input",)) if chosen.lower() == "instruction" else None
    if extra is not None and alpaca is not None:
        prompts = [_alpaca(p, x, alpaca) for p, x in zip(prompts, _texts(table, extra), strict=True)]
        note += f" joined with {extra!r} in the {alpaca} style"
    return prompts, None, note


def _alpaca(instruction: str, given: str, style: AlpacaStyle) -> str:
    if not instruction.strip():
        return ""
    if style == "stanford":
        shape = _STANFORD_INPUT if given.strip() else _STANFORD_PLAIN
        return shape.format(instruction=instruction, input=given)
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def _turn(table: Table, row: int, value: Any) -> tuple[str, str | None]:
    """One user message and at most one answer, in OpenAI's or ShareGPT's keys."""
    roles = {"human": "user", "gpt": "assistant"}
    turns = []
    for one in value if isinstance(value, (list, tuple)) else ():
        if isinstance(one, dict):
            role = str(one.get("role", one.get("from", "")))
            turns.append((roles.get(role, role), one.get("content", one.get("value"))))
    shape = [role for role, _ in turns]
    if shape not in (["user"], ["user", "assistant"]) or not all(isinstance(text, str) for _, text in turns):
        raise InputError(
            f"{table.source}, {table.where[row]} is not one user message and at most one answer (roles: "
            f"{', '.join(shape) or 'none'}); keep single turns, and pass system prompts as system="
        )
    return str(turns[0][1]), str(turns[1][1]) if len(turns) == 2 else None


def _find(table: Table, wanted: str) -> str:
    """A column that the caller named: as written, else whatever its case."""
    if wanted in table.columns:
        return wanted
    alike = [name for name in table.columns if name.lower() == wanted.lower()]
    if len(alike) == 1:
        return alike[0]
    raise InputError(
        f"{table.source} has no column {wanted!r}; it has {', '.join(table.columns)}; name one of these"
    )


def _first(table: Table, names: Sequence[str]) -> str | None:
    for name in names:
        alike = [column for column in table.columns if column.lower() == name]
        if len(alike) > 1:
            raise InputError(
                f"{table.source} has the columns {' and '.join(map(repr, alike))}, which differ in case "
                "only; say which with column= (or response_column=, category_column=)"
            )
        if alike:
            return alike[0]
    return None


def _optional(
    table: Table, wanted: str | None, names: Sequence[str], *, exclude: Sequence[str | None]
) -> str | None:
    """The column that was asked for, else the first known one whose cells are words or numbers."""
    if wanted is not None:
        return _find(table, wanted)
    for name in names:
        found = _first(table, (name,))
        if found is None or found in exclude:
            continue
        cells = [row[found] for row in table.rows if row.get(found) is not None]
        # Lists and objects (SQuAD's answer spans, say) are no answers in words.
        if cells and all(isinstance(cell, (str, int, float)) for cell in cells):
            return found
    return None


def _texts(table: Table, column: str) -> list[str]:
    cells = (row.get(column) for row in table.rows)
    return ["" if cell is None else str(cell) for cell in cells]


def _places(table: Table, rows: Sequence[int]) -> str:
    shown = ", ".join(table.where[i] for i in rows[:5])
    return shown + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
