"""Prompts and pairs of prompts, aligned by token and batched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.heads.targets import Inputs
from tamperlens.models import ChatModel, ModelLike, as_chat_model, left_pad, position_limit
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
    clean, digest = _side(model, prompts, "prompts")
    if not clean:
        raise InputError("no prompts to score heads on; give at least one")
    names = {"prompts": digest}
    if corrupt is None:
        return Rows(clean, None, names)
    other, digest = _side(model, corrupt, "corrupt")
    if len(other) != len(clean):
        raise InputError(f"{len(clean)} prompts and {len(other)} corrupt ones do not pair; give one for each")
    for index, (one, two) in enumerate(zip(clean, other, strict=True)):
        if len(one) != len(two):
            raise InputError(
                f"pair {index} does not align: {len(one)} tokens and {len(two)}; positions must mean the "
                "same in both. heads.align(model, prompts, others) picks partners of the same length"
            )
    return Rows(clean, other, {**names, "corrupt": digest})


def raw_tokens(prompts: object) -> list[list[int]] | None:
    """Token ids as they were given, a tensor or array [n, seq] or lists of ids; None for anything else."""
    if isinstance(prompts, Tensor | np.ndarray):
        table = np.asarray(prompts.cpu() if isinstance(prompts, Tensor) else prompts)
        return table.tolist() if table.ndim == 2 and table.dtype.kind in "iu" else None
    if not isinstance(prompts, list | tuple) or not prompts:
        return None
    rows = [row.tolist() if isinstance(row, Tensor | np.ndarray) else row for row in prompts]
    whole = all(
        isinstance(row, list | tuple) and row and all(type(token) is int for token in row) for row in rows
    )
    return [list(row) for row in rows] if whole else None


def _side(model: ChatModel, prompts: Prompts, what: str) -> tuple[list[list[int]], str]:
    """Token ids, and a hash of what they were made from."""
    raw = raw_tokens(prompts)
    if raw is None:
        data = as_prompts(prompts, what=what)
        return model.token_ids(data), data.sha256
    high, limit = max(map(max, raw), default=0), position_limit(model.module)
    if high >= model.anatomy.d_vocab or min(map(min, raw), default=0) < 0:
        raise InputError(f"{what} hold token ids outside 0 to {model.anatomy.d_vocab - 1}; got {high}")
    if limit is not None and max(map(len, raw)) > limit:
        raise InputError(f"{what} hold {max(map(len, raw))} tokens a row, the model has {limit} positions")
    return raw, hashlib.sha256(json.dumps(raw).encode()).hexdigest()


def batched(
    model: ChatModel, rows: Rows, batch_size: int, *, ordered: bool = False, numbered: bool = False
) -> list[Batch]:
    """Batches of rows of similar length.

    Args:
        model: pads.
        rows: to batch.
        batch_size: at most.
        ordered: as given instead of by length.
        numbered: put each row's number among the inputs, as "rows" [batch, 1], for metrics with labels.
    """
    order = list(range(len(rows)))
    if not ordered:
        order.sort(key=lambda row: len(rows.clean[row]))
    made = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        pair = None if rows.corrupt is None else padded(model, [rows.corrupt[row] for row in chosen])
        made.append(Batch(chosen, padded(model, [rows.clean[row] for row in chosen]), pair))
        if numbered:
            for inputs in (made[-1].clean, *([] if pair is None else [pair])):
                inputs["rows"] = torch.tensor(chosen, device=model.device)[:, None]
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
