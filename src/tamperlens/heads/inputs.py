"""Prompts and pairs of prompts, aligned by token and batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tamperlens.base.errors import InputError
from tamperlens.heads.targets import Inputs
from tamperlens.models import ChatModel, ModelLike, as_chat_model, left_pad
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts

Prompts = PromptsLike


@dataclass(frozen=True)
class Rows:
    """Token ids of prompts, with the ids of the corrupt partner of each where there are pairs."""

    clean: list[list[int]]
    corrupt: list[list[int]] | None
    names: dict[str, str]

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True)
class Batch:
    """Some rows, left-padded; clean and corrupt tokens stand at the same places."""

    rows: list[int]
    clean: Inputs
    corrupt: Inputs | None


def make_rows(model: ChatModel, prompts: Prompts, corrupt: Prompts | None) -> Rows:
    """Render and tokenize, and check that pairs align.

    Raises:
        InputError: no prompts, or pairs that differ in number or length.
    """
    prompts = as_prompts(prompts)
    corrupt = None if corrupt is None else as_prompts(corrupt, what="corrupt")
    clean = model.token_ids(prompts)
    if not clean:
        raise InputError("no prompts to score heads on; give at least one")
    names = {"prompts": prompts.sha256}
    if corrupt is None:
        return Rows(clean, None, names)
    other = model.token_ids(corrupt)
    if len(other) != len(clean):
        raise InputError(f"{len(clean)} prompts and {len(other)} corrupt ones do not pair; give one for each")
    for index, (one, two) in enumerate(zip(clean, other, strict=True)):
        if len(one) != len(two):
            raise InputError(
                f"pair {index} does not align: {len(one)} tokens and {len(two)}; positions must mean the "
                "same in both. heads.align(model, prompts, others) picks partners of the same length"
            )
    return Rows(clean, other, {**names, "corrupt": corrupt.sha256})


def batched(model: ChatModel, rows: Rows, batch_size: int) -> list[Batch]:
    """Batches of rows of similar length."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    order = sorted(range(len(rows)), key=lambda row: len(rows.clean[row]))
    made = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        pair = None if rows.corrupt is None else padded(model, [rows.corrupt[row] for row in chosen])
        made.append(Batch(chosen, padded(model, [rows.clean[row] for row in chosen]), pair))
    return made


def padded(model: ChatModel, sequences: Sequence[Sequence[int]]) -> Inputs:
    """One left-padded batch on the model's device."""
    return vars(left_pad(sequences, model.pad_id, model.device)).copy()


def align(
    model: ModelLike, prompts: Prompts, others: Prompts, *, name: str = "pairs"
) -> tuple[PromptSet, PromptSet]:
    """Pair prompts with others of the same token length, by most tokens in common at the same places.

    Greedy, best pair first; ties by index. Prompts without a partner are left out, and `source` of both sets
    says how many.

    Args:
        model: its tokenizer and chat format decide.
        prompts: the clean side.
        others: candidates for the corrupt side; each is used once.
        name: of the two sets, with " clean" and " corrupt" behind it.

    Raises:
        InputError: nothing pairs.
    """
    model = as_chat_model(model)
    prompts, others = as_prompts(prompts, what="prompts"), as_prompts(others, what="others")
    clean, other = prompts.prompts, others.prompts
    one, two = model.token_ids(clean), model.token_ids(other)
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(two):
        by_length.setdefault(len(ids), []).append(index)
    options = []
    for i, ids in enumerate(one):
        for j in by_length.get(len(ids), ()):
            options.append((-int((np.array(ids) == np.array(two[j])).sum()), i, j))
    left: dict[int, int] = {}
    used: set[int] = set()
    for _, i, j in sorted(options):
        if i not in left and j not in used:
            left[i] = j
            used.add(j)
    if not left:
        raise InputError("no prompt has a partner of the same token length; give more prompts on either side")
    kept = sorted(left)
    source = f"{len(kept)} of {len(clean)} prompts paired by token length"
    return (
        PromptSet.from_prompts([clean[i] for i in kept], name=f"{name} clean", source=source),
        PromptSet.from_prompts([other[left[i]] for i in kept], name=f"{name} corrupt", source=source),
    )
