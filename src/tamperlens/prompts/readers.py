"""`read`: prompts from a user's file, whatever the field's habit calls their column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tamperlens.base.boundary import rule
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.lazy import pd
from tamperlens.prompts.columns import AlpacaStyle, NoColumn, to_promptset
from tamperlens.prompts.conversations import LONGEST
from tamperlens.prompts.frames import PromptsLike, is_table, items_of, table_in_memory
from tamperlens.prompts.hub import is_hub_id, is_saved_folder, read_folder, read_hub
from tamperlens.prompts.library import packaged_format
from tamperlens.prompts.prompt import content
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import Table, read_table


def read(
    path: PathLike | PromptsLike,
    column: str | None = None,
    response_column: str | None = None,
    name: str | None = None,
    *,
    category_column: str | None = None,
    split: str | None = None,
    alpaca: AlpacaStyle = "turn",
    skip_empty: bool = False,
    skip_unusable: bool = False,
    what: str = "the table given",
) -> PromptSet:
    """Read prompts from a file, a saved `datasets` folder, a hub id, or a table in memory.

    Files: `.csv` (comma; semicolon, tab or bar when the header has no comma; Excel's `sep=` line), `.tsv`,
    `.json` (a list of objects or of strings, `{"data": [...]}`, or columns), `.jsonl` (objects or strings),
    `.parquet` (with pyarrow), `.txt` (one prompt a line, blank lines skipped). UTF-8, with or without a
    byte-order mark; UTF-16 with one. A `.jsonl` that begins with a `$set` header is in the packaged format
    (`PromptSet.to_jsonl`) and its fields are taken as named. In memory: a pandas frame, a dict of columns, a
    `datasets.Dataset`, a list of rows, pairs or texts.

    Without `column` the first of these that exists is the prompt, in any case: prompt, goal, instruction,
    question, forbidden_prompt, behavior, query, request, user, input, text; then messages, conversations,
    conversation, turns, dialogue, chat, chosen. Responses: response, output, answer, completion, target,
    assistant, chosen; never a number beside `choices`.
    Categories: category, semanticcategory, functionalcategory, type, label. An `answer` beside another
    response column becomes the expected answer, and so does what stands after GSM8K's last "####". Text that
    belongs to the prompt is joined with it: Alpaca's `input`, Dolly's `context`, HarmBench's `ContextString`.
    A column that says safe or unsafe (XSTest's `label`) becomes `.labels`.

    Conversations (`role`/`content`, ShareGPT's `from`/`value`, content as text parts, TRL's prompt and
    completion as message lists, HH-RLHF's and Guanaco's texts): the last user message is the prompt, the
    messages before it are kept and written for the model (see `Prompt`), the last answer is the response,
    with the thought that stands beside it. A `system` column is read likewise.

    Rows with an empty prompt and rows that are no conversation are refused, not dropped: a set that shrinks
    silently is not the set that a paper names. Empty responses are kept as they are (an empty completion is a
    finding), and `encode_pair` refuses them. `skip_empty=True` drops empty ones, `skip_unusable=True` those
    and every row that cannot be used; `.source` says how many, and which columns were read.

    Args:
        path: file, folder, "owner/name" on the hub, or a table in memory.
        column: the prompt's column; naming "instruction" takes it alone, without Alpaca's input.
        response_column: the response's column.
        name: what reports call the set; the file's stem by default.
        category_column: the category's column.
        split: of a data set folder, a hub data set, or a file in the packaged format.
        alpaca: how `instruction` and `input` are joined: "turn" writes the instruction, a blank line and the
            input as one user turn (for chat models; this is our choice); "stanford" writes the whole prompt
            that Alpaca was trained on (PROMPT_DICT in tatsu-lab/stanford_alpaca's train.py).
        skip_empty: drop rows whose prompt or response is empty.
        skip_unusable: drop those, and rows that are no conversation, hold a picture, or are too long.
        what: what an error calls a table in memory.

    Raises:
        InputError: the file is missing, a folder, empty, not UTF-8, malformed or of another type; the column
            is missing or unclear; a prompt is empty. One line that names the place and the remedy.

    Examples:
        >>> import pandas as pd
        >>> from tamperlens import prompts
        >>> prompts.read(pd.DataFrame({'goal': ['Name a tree.']})).prompts
        ('Name a tree.',)
    """
    if alpaca not in ("turn", "stanford"):
        raise InputError(f"alpaca={alpaca!r} is not a style; use 'turn' or 'stanford'")
    wanted = (column, response_column, category_column)
    if not isinstance(path, (str, os.PathLike)):
        table, stem = table_in_memory(path, what, split=split, wanted=wanted), "unnamed"
    else:
        where = Path(path)
        stem = where.stem if _exists(where) else str(path)
        if is_saved_folder(where):
            table = read_folder(where, split=split, wanted=wanted)
        elif stem != where.stem and isinstance(path, str) and is_hub_id(path):
            table = read_hub(path, split=split, wanted=wanted)
        else:
            table = _file(where)
            if table.header is not None and not any(wanted):
                return packaged_format(table, name=name, split=split)
            if split is not None:
                raise InputError(f"{path} has no splits; leave split= out")
    return to_promptset(
        table,
        column=column,
        response_column=response_column,
        category_column=category_column,
        name=name or stem,
        alpaca=alpaca,
        skip_empty=skip_empty,
        skip_unusable=skip_unusable,
    )


def read_each(
    sources: Mapping[str, PathLike | PromptsLike | None],
    column: str | None = None,
    *,
    skip_empty: bool = False,
    skip_unusable: bool = False,
) -> dict[str, PromptSet | None]:
    """Several sources with one `column`, which holds for those that have it; the others are recognised.

    Args:
        sources: name to what `read` or `as_prompts` takes, or None.
        column: the prompts' column in at least one of them.
        skip_empty: as in `read`.
        skip_unusable: as in `read`.

    Raises:
        InputError: a source cannot be read, or none has the column.
    """
    found: dict[str, PromptSet | None] = {}
    missing: list[str] = []
    for role, source in sources.items():
        found[role] = source if isinstance(source, PromptSet) else None
        if column is None or source is None or isinstance(source, PromptSet):
            continue
        try:
            found[role] = read(source, column, what=role, skip_empty=skip_empty, skip_unusable=skip_unusable)
        except NoColumn as error:
            missing.append(str(error))
    files = [
        source for source in sources.values() if source is not None and not isinstance(source, PromptSet)
    ]
    if column is not None and len(missing) == len(files):
        raise InputError(
            missing[0]
            if missing
            else f"column={column!r} was given and no file to read it from; leave it out"
        )
    for role, source in sources.items():
        if source is not None and found[role] is None:
            found[role] = read(source, what=role, skip_empty=skip_empty, skip_unusable=skip_unusable)
    return found


def _file(path: Path) -> Table:
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return read_table(path)
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(f"reading {path} needs pyarrow: pip install 'tamperlens[datasets]'") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise InputError(f"{path} is not a readable Parquet file ({error!s:.120}); write it again") from error
    return table_in_memory(frame, str(path), split=None, wanted=())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have: far too long, or with a zero byte
        return False


def as_prompts(data: PromptsLike, *, what: str = "prompts") -> PromptSet:
    """What a function was given as prompts, as a `PromptSet`: the one place where that is decided.

    A PromptSet is returned as it is. Texts (a list, tuple, generator, NumPy array, pandas Series) keep their
    order, empty ones too; pairs become prompts and responses; tables (a pandas frame, a dict of columns, a
    `datasets.Dataset`, a list of rows) and `Path`s are read as `prompts.read` reads a file.

        >>> as_prompts({"goal": ["Name a bird."], "target": ["Sure: a wren."]}).prompts
        ('Name a bird.',)

    Args:
        data: the prompts.
        what: what an error calls them.

    Raises:
        InputError: one string, None, a number, a model, or rows of several kinds: one line that says what to
            give.
    """
    if isinstance(data, PromptSet):
        return data
    if isinstance(data, (str, bytes)):
        raise InputError(
            f"{what}: expected a list of prompts, got one string; write [prompt] for a prompt, "
            "prompts.read(FILE) for a file"
        )
    if not is_table(data) and not isinstance(data, Path):
        data = items_of(what, data)
        if all(isinstance(one, str) for one in data):
            for row, text in enumerate(data, 1):
                if len(text) > LONGEST:
                    raise InputError(
                        f"{what}, row {row} has {len(text):,} characters; at most {LONGEST:,} are read"
                    )
            return PromptSet(tuple(data), name="unnamed")
    return read(data, name=None if isinstance(data, Path) else "unnamed", what=what)


@rule
def _harmful_is_not_harmless(function: str, arguments: Mapping[str, Any]) -> None:
    """A prompt that is asked as harmful and as harmless tells nothing, whatever is measured."""
    sets = {}
    for name in ("harmful", "harmless", "lookalike"):
        given = arguments.get(name)
        if isinstance(given, Iterable) and not isinstance(given, (str, Iterator, Mapping)):
            sets[name] = as_prompts(given, what=name)
            for row, one in enumerate(map(content, sets[name].prompts), 1):
                if not str(one).strip():
                    raise InputError(f"{function}: {name}, row {row} is empty; leave it out")
    try:
        disjoint(**sets)
    except InputError as error:
        raise InputError(f"{function}: {error}") from None


def disjoint(**sets: PromptSet) -> None:
    """Refuse prompts that are in the harmful set and in a harmless one.

    Raises:
        InputError: there are such prompts.
    """
    bad = set(map(content, sets["harmful"].prompts)) if "harmful" in sets else set()
    for name in ("harmless", "lookalike"):
        both = bad & set(map(content, sets[name].prompts)) if name in sets else set()
        if both:
            raise InputError(
                f"{len(both)} prompts are in both the harmful and the {name} set; remove them from one"
            )
