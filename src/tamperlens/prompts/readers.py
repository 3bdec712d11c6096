"""`read`: prompts from a user's file, whatever the field's habit calls their column."""

from __future__ import annotations

from pathlib import Path

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.prompts.columns import AlpacaStyle, packaged_format, to_promptset
from tamperlens.prompts.hub import is_hub_id, is_saved_folder, read_folder, read_hub
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import read_table


def read(
    path: PathLike,
    column: str | None = None,
    response_column: str | None = None,
    name: str | None = None,
    *,
    category_column: str | None = None,
    split: str | None = None,
    alpaca: AlpacaStyle = "turn",
    skip_empty: bool = False,
) -> PromptSet:
    """Read prompts from a file, a saved `datasets` folder, or a hub id.

    Files: `.csv` (comma; semicolon or tab when the header has no comma), `.tsv`, `.json` (a list of objects
    or of strings, `{"data": [...]}`, or columns), `.jsonl` (objects or strings), `.txt` (one prompt a line,
    blank lines skipped). UTF-8, with or without a byte-order mark. A `.jsonl` that begins with a `$set`
    header is in the packaged format (`PromptSet.to_jsonl`) and its fields are taken as named.

    Without `column` the first of these that exists is the prompt, in any case: prompt, goal, instruction,
    question, forbidden_prompt, behavior, query, request, user, input, text; then messages and conversations
    (one user message, at most one answer). Responses: response, output, answer, completion, target,
    assistant. Categories: category, semanticcategory, functionalcategory, type, label. An `answer` beside
    another response column becomes the expected answer.

    Rows with an empty prompt are refused, not dropped: a set that shrinks silently is not the set that a
    paper names. Empty responses are kept as they are (an empty completion is a finding), and `encode_pair`
    refuses them. `skip_empty=True` drops both kinds and says how many in `.source`.

    Args:
        path: file, folder, or "owner/name" on the hub.
        column: the prompt's column; naming "instruction" takes it alone, without Alpaca's input.
        response_column: the response's column.
        name: what reports call the set; the file's stem by default.
        category_column: the category's column.
        split: of a data set folder, a hub data set, or a file in the packaged format.
        alpaca: how `instruction` and `input` are joined: "turn" writes the instruction, a blank line and the
            input as one user turn (for chat models; this is our choice); "stanford" writes the whole prompt
            that Alpaca was trained on (PROMPT_DICT in tatsu-lab/stanford_alpaca's train.py).
        skip_empty: drop rows whose prompt or response is empty.

    Raises:
        InputError: the file is missing, a folder, empty, not UTF-8, malformed or of another type; the column
            is missing or unclear; a prompt is empty. One line that names the place and the remedy.
    """
    if alpaca not in ("turn", "stanford"):
        raise InputError(f"alpaca={alpaca!r} is not a style; use 'turn' or 'stanford'")
    where = Path(path)
    wanted = (column, response_column, category_column)
    if is_saved_folder(where):
        table = read_folder(where, split=split, wanted=wanted)
    elif not where.exists() and isinstance(path, str) and is_hub_id(path):
        table = read_hub(path, split=split, wanted=wanted)
    else:
        table = read_table(where)
        if table.header is not None and not any(wanted):
            return packaged_format(table, name=name, split=split)
        if split is not None:
            raise InputError(f"{path} has no splits; leave split= out")
    return to_promptset(
        table,
        column=column,
        response_column=response_column,
        category_column=category_column,
        name=name or (str(path) if not where.exists() else where.stem),
        alpaca=alpaca,
        skip_empty=skip_empty,
    )
