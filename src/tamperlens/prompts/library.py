"""The prompt sets that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tamperlens.base.errors import InputError
from tamperlens.prompts.columns import packaged_format
from tamperlens.prompts.promptset import PromptSet
from tamperlens.prompts.tables import read_table


def packaged_names() -> list[str]:
    """Names that `packaged` knows, sorted."""
    return sorted(one.name.removesuffix(".jsonl") for one in _folder().iterdir() if one.suffix == ".jsonl")


def packaged(name: str, split: str | None = None) -> PromptSet:
    """A packaged prompt set.

    `english-harmful`, `english-harmless` and `english-lookalike` are plain English for real models; the
    others are in the embedded organism's language.

    Args:
        name: one of `packaged_names()`.
        split: "train", "validation" or "test" where the set has splits; every row when left out.

    Raises:
        InputError: no such set or split; the message lists those that exist.

    Examples:
        >>> from tamperlens import prompts
        >>> len(prompts.packaged('harmful', split='test'))
        201
    """
    path = _folder() / f"{name}.jsonl"
    if name not in packaged_names():
        raise InputError(f"no packaged prompt set named {name!r}; there are {', '.join(packaged_names())}")
    return packaged_format(read_table(path), name=name, split=split)


def packaged_splits(name: str) -> list[str]:
    """Names of a packaged set's splits, in order of appearance; empty when it has none."""
    packaged(name)
    rows = read_table(_folder() / f"{name}.jsonl").rows
    return list(dict.fromkeys(str(row["split"]) for row in rows if "split" in row))


def _folder() -> Path:
    # Wheels are installed as files, so the resource is a real path; a zipped import is not supported.
    return Path(str(resources.files("tamperlens.prompts").joinpath("data")))
