"""Which column is the prompt, which the response: the field's usual names, in a fixed order of preference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tamperlens.base.errors import InputError
from tamperlens.prompts.conversations import (
    LONGEST,
    ROLES,
    UnusableRow,
    answer_text,
    earlier,
    is_conversation,
    messages,
    split,
    templated,
    turns,
    written_out,
)
from tamperlens.prompts.names import (
    CATEGORY_COLUMNS,
    CHAT_COLUMNS,
    CHOICE_COLUMNS,
    CONTEXT_COLUMNS,
    HISTORY_COLUMNS,
    LABEL_COLUMNS,
    PICTURE_COLUMNS,
    PROMPT_COLUMNS,
    RESPONSE_COLUMNS,
    SAFE,
    SYSTEM_COLUMNS,
    UNSAFE,
)
from tamperlens.prompts.prompt import Message, context_of, with_context
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import Table

AlpacaStyle = Literal["turn", "stanford"]
_SKIP = "skip_unusable=True"

# tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT: what the Alpaca models were trained on.
_STANFORD_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_STANFORD_PLAIN = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)


class NoColumn(InputError):
    """A column that was named and that the table does not have."""


@dataclass
class _Row:
    """What one row gives: a prompt (with what came before it) and an answer, or why it cannot be used."""

    prompt: str = ""
    response: str | None = None
    fault: str = ""


def to_promptset(
    table: Table,
    *,
    column: str | None = None,
    response_column: str | None = None,
    category_column: str | None = None,
    name: str,
    alpaca: AlpacaStyle = "turn",
    skip_empty: bool = False,
    skip_unusable: bool = False,
) -> PromptSet:
    """Choose the columns of a table and make a `PromptSet` of it; arguments as in `read`.

    Raises:
        InputError: no prompt column or several, a named column that is absent, or rows that cannot be used.
    """
    chosen = _prompt_column(table, column, response_column)
    _refuse_other_rows(table, chosen)
    marks = written_out([row.get(chosen) for row in table.rows])
    answered = _optional(table, response_column, RESPONSE_COLUMNS, exclude=(chosen,))
    counted = None
    if response_column is None and answered and _first(table, CHOICE_COLUMNS) and _counts(table, answered):
        answered, counted = None, answered
    joined = None if column is not None else _context(table, chosen, answered, alpaca)
    system = _optional(table, None, SYSTEM_COLUMNS, exclude=(chosen, answered))
    history = _first(table, HISTORY_COLUMNS)
    expected = _optional(table, None, ("answer",), exclude=(chosen, answered, counted))
    category = _optional(table, category_column, CATEGORY_COLUMNS, exclude=(chosen, answered))
    labels, marked = _labels(table)
    pictures = [name for name in table.columns if name.lower() in PICTURE_COLUMNS]

    rows = []
    for cells in table.rows:
        one = _Row()
        try:
            if any(cells.get(name) for name in pictures):
                raise UnusableRow("comes with a picture")
            one.prompt, one.response = _prompt(cells.get(chosen), chosen, marks)
            if joined is not None:
                one.prompt = _join(one.prompt, answer_text(cells.get(joined[0])), joined[1])
            if system is not None or history is not None:
                beside = [None if name is None else cells.get(name) for name in (system, history)]
                one.prompt = with_context(one.prompt, _before(one.prompt, *beside))
            if one.response and answered and cells.get(answered) and chosen.lower() not in CHAT_COLUMNS:
                raise UnusableRow(f"ends with words of the assistant, and {answered!r} goes on with them")
            if answered is not None and (one.response is None or response_column is not None):
                one.response = answer_text(cells.get(answered), one.prompt)
            _bounded(one)
        except UnusableRow as error:
            one.fault = str(error)
        rows.append(one)
    with_answers = any(one.response is not None for one in rows)

    def fault(one: _Row) -> str:
        if not one.fault and with_answers and one.response is None:
            return "has no answer, as other rows have"
        return one.fault

    faults = [fault(one) for one in rows]
    empty = [i for i, one in enumerate(rows) if not one.prompt.strip() and not faults[i]]
    hollow = [i for i, one in enumerate(rows) if one.response is not None and not one.response.strip()]
    broken = [i for i, text in enumerate(faults) if text]
    if broken and not skip_unusable:
        more = f" (and {len(broken) - 1} rows more cannot be used)" if len(broken) > 1 else ""
        raise InputError(
            f"{table.source}, {table.where[broken[0]]}: {chosen!r} {faults[broken[0]]}{more}; "
            f"mend the rows, choose another column, or leave such rows out ({_SKIP})"
        )
    if empty and not (skip_empty or skip_unusable):
        raise InputError(
            f"{table.source}: {len(empty)} of {len(rows)} prompts are empty ({_places(table, empty)}); "
            f"fill or delete them, or leave them out ({_SKIP})"
        )
    emptied = {*empty, *hollow} - set(broken) if skip_empty or skip_unusable else set()
    keep = [i for i in range(len(rows)) if i not in emptied and not faults[i]]
    note = _note(table, chosen, answered, joined, system, history, expected, category, labels)
    if not keep:
        raise InputError(f"{table.source} has no row with text ({note}); choose another with column=NAME")
    if emptied:
        note += f", {len(emptied)} rows with empty cells skipped"
    if broken:
        note += (
            f", {len(broken)} of {len(rows)} rows that cannot be used skipped (first: {faults[broken[0]]})"
        )
    turns = sum(any(role != "system" for role, _ in context_of(rows[i].prompt)) for i in keep)
    if turns:
        note += f", {turns} rows with earlier turns, kept as history"

    responses = tuple(rows[i].response or "" for i in keep) if with_answers else None
    answers = None if expected is None else _texts(table, expected)
    if answers is None and responses is not None:
        answers = _final_numbers(table, answered)
    return PromptSet(
        prompts=tuple(rows[i].prompt for i in keep),
        responses=responses,
        answers=None if answers is None else tuple(answers[i] for i in keep),
        categories=None if category is None else tuple(_texts(table, category)[i] for i in keep),
        name=name,
        licence="unknown",
        source=f"{table.source} ({note})",
        labels=None if marked is None else tuple(marked[i] for i in keep),
    )


def _prompt_column(table: Table, column: str | None, response_column: str | None) -> str:
    if column is not None:
        return _find(table, column)
    chosen, chat = _first(table, PROMPT_COLUMNS), _first(table, CHAT_COLUMNS)
    if chosen is None and chat is None and set(table.columns) == {"role", "content"}:
        raise InputError(f"{table.source} is one conversation, a list of messages; put it into a list")
    if chosen is None and chat is None:
        raise InputError(
            f"{table.source} has no column that is known to hold prompts; it has "
            f"{_listed(table)}; name one with column=NAME, or rename it to 'prompt'"
        )
    if chosen and chat and response_column is None and _first(table, RESPONSE_COLUMNS) is None:
        return chat  # UltraChat and its like repeat the first question beside the whole conversation
    return chosen or chat or ""


def _refuse_other_rows(table: Table, chosen: str) -> None:
    """A table whose rows are single messages, or texts that a chat template has written."""
    role = _first(table, ("role",))
    said = set() if role is None else {ROLES.get(word.lower()) for word in _texts(table, role)}
    if "assistant" in said and None not in said and chosen.lower() not in CHAT_COLUMNS:
        raise InputError(
            f"{table.source}: every row is one message of a conversation ({role!r} says whose); give one row "
            "per conversation, with its messages as a list"
        )
    mark = templated([row.get(chosen) for row in table.rows])
    if mark:
        raise InputError(
            f"{table.source}: every {chosen!r} is a conversation as a chat template writes it ({mark!r}); "
            "give the messages themselves, which are written for the model at hand"
        )


def _counts(table: Table, column: str) -> bool:
    """Whether a column holds places in a list of choices, not answers in words."""
    return all(word.isdigit() or len(word) == 1 for word in _texts(table, column))


def _prompt(value: Any, column: str, marks: re.Pattern[str] | None) -> tuple[str, str | None]:
    """(prompt, answer of a conversation or None) of one cell."""
    if marks is not None and isinstance(value, str):
        value = [{"role": who, "content": said} for who, said in turns(value, marks)]
    if column.lower() in CHAT_COLUMNS or is_conversation(value):
        return split(messages(value, alternating=column.lower() != "turns"))
    if value is not None and not isinstance(value, str):
        raise UnusableRow(f"is a {type(value).__name__}, not text")
    return value or "", None


def _context(table: Table, chosen: str, answered: str | None, alpaca: AlpacaStyle) -> tuple[str, str] | None:
    """(column that belongs to the prompt, how they are joined), or None."""
    if chosen.lower() == "instruction":
        extra = _first(table, ("input",)) or _first(table, ("context",))  # Alpaca, Dolly
        return None if extra is None or extra == answered else (extra, alpaca)
    for name, shape in CONTEXT_COLUMNS.items():
        found = _optional(table, None, (name,), exclude=(chosen, answered))
        if found is not None and (name == "contextstring" or chosen.lower() == "question"):
            return found, shape
    return None


def _join(prompt: str, extra: str, shape: str) -> str:
    if not prompt.strip():
        return ""
    extra = "" if extra.strip().lower() == "<noinput>" else extra  # Alpaca's word for nothing
    if shape == "stanford":
        wanted = _STANFORD_INPUT if extra.strip() else _STANFORD_PLAIN
        return wanted.format(instruction=prompt, input=extra)
    if not extra.strip():
        return prompt
    return f"{prompt}\n\n{extra}" if shape == "turn" else shape.format(context=extra, prompt=prompt)


def _before(prompt: str, system: Any, history: Any) -> list[Message]:
    """The messages before a prompt: of its own conversation, else of the columns beside it."""
    own = list(context_of(prompt))
    if not any(role != "system" for role, _ in own):
        own += [message for message in earlier(history) if message[0] != "system" or not own]
    if own and own[0][0] == "system":
        return own
    text = answer_text(system)
    return [("system", text), *own] if text.strip() else own


def _bounded(one: _Row) -> None:
    for text in (one.prompt, one.response or "", *(text for _, text in context_of(one.prompt))):
        if len(text) > LONGEST:
            raise UnusableRow(f"has a text of {len(text):,} characters; at most {LONGEST:,} are read")


def _labels(table: Table) -> tuple[str | None, list[str] | None]:
    """(column, "safe" or "unsafe" per row) where a column says so in known words, else (None, None)."""
    for name in LABEL_COLUMNS:
        found = _first(table, (name,))
        if found is None:
            continue
        words = [word.strip().lower().replace(" ", "_") for word in _texts(table, found)]
        # Elsewhere a truth value says something else: in TRL's unpaired sets, that an answer is wanted.
        asked = name.endswith(("harmful", "harm_label"))
        safe, unsafe = (SAFE | {"false", "0"}, UNSAFE | {"true", "1"}) if asked else (SAFE, UNSAFE)
        if all(word in safe or word in unsafe for word in words):
            return found, ["safe" if word in safe else "unsafe" for word in words]
    kinds = _first(table, ("type",))  # XSTest without its label: unsafe prompts are the "contrast" types
    if kinds is not None:
        words = _texts(table, kinds)
        if any(word.startswith("contrast_") for word in words):
            return kinds, ["unsafe" if word.startswith("contrast_") else "safe" for word in words]
    return None, None


def _final_numbers(table: Table, answered: str | None) -> list[str] | None:
    """What stands after the last "####" of a worked solution (GSM8K), when every row has it."""
    cells = [] if answered is None else _texts(table, answered)
    if not cells or not all("####" in cell for cell in cells):
        return None
    return [cell.rpartition("####")[2].strip().replace(",", "") for cell in cells]


def _note(
    table: Table,
    chosen: str,
    answered: str | None,
    joined: tuple[str, str] | None,
    system: str | None,
    history: str | None,
    expected: str | None,
    category: str | None,
    labels: str | None,
) -> str:
    """Which columns were read as what, and which were not read."""
    note = f"column {chosen!r}"
    if joined is not None:
        style = f" in the {joined[1]} style" if joined[1] in ("turn", "stanford") else ""
        note += f" joined with {joined[0]!r}{style}"
    for what, name in (("responses", answered), ("system messages", system), ("earlier turns", history)):
        note += "" if name is None else f", {what} from {name!r}"
    used = {chosen, joined and joined[0], answered, system, history, expected, category, labels}
    unread = [name for name in table.columns if name not in used and not name.startswith("(unnamed")]
    return note + (f"; not read: {_listed(unread)}" if unread else "")


def _listed(columns: Table | Sequence[str]) -> str:
    names = columns.columns if isinstance(columns, Table) else columns
    shown = ", ".join(" ".join(name.split())[:60] for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _find(table: Table, wanted: str) -> str:
    """A column that the caller named: as written, else whatever its case."""
    if wanted in table.columns:
        return wanted
    alike = [name for name in table.columns if name.lower() == wanted.lower()]
    if len(alike) == 1:
        return alike[0]
    raise NoColumn(f"{table.source} has no column {wanted!r}; it has {_listed(table)}; name one of these")


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
        # Lists and objects (SQuAD's answer spans, say) are no answers in words; messages are.
        if cells and all(isinstance(cell, (str, int, float)) or is_conversation(cell) for cell in cells):
            return found
    return None


def _texts(table: Table, column: str) -> list[str]:
    cells = (row.get(column) for row in table.rows)
    return ["" if cell is None else str(cell) for cell in cells]


def _places(table: Table, rows: Sequence[int]) -> str:
    shown = ", ".join(table.where[i] for i in rows[:5])
    return shown + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
