"""What every scoring pass shares: which weights, in what portions, kept where, resumed how, named how."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError, RunFolderError
from tamperlens.base.files import PathLike, write_tensors
from tamperlens.base.locks import locked
from tamperlens.base.parts import Part, by_parameter, parts_of
from tamperlens.base.schemas import Schema, read_document
from tamperlens.models import ChatModel
from tamperlens.neurons.choosing import Group
from tamperlens.neurons.cutoffs import check_fraction
from tamperlens.neurons.scores import HEADER, Shards, WeightScores, shard_files, write_header
from tamperlens_hooks import Projection, stored_parameter
from tamperlens_hooks.weights import zeroed_entries

Mode = Literal["intact", "sequential"]
End = Literal["top", "bottom"]
Memory = int | str | None

Collect = Callable[[Sequence[Projection]], Iterator[tuple[str, Tensor]]]
"""Scores of some projections' parameters: (name, fp32 tensor shaped like the parameter)."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class Recipe:
    """What a pass computes, as it is written into its result.

    Attributes:
        method: "snip", ...
        definition: in words and formula.
        unit: of the scores.
        settings: choices that change the numbers.
        prompts: name of each prompt set to its sha256.
        n: number of examples.
    """

    method: str
    definition: str
    unit: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    n: int = 0


@dataclass(frozen=True)
class Pruning:
    """What is pruned in each block before the next is scored.

    Attributes:
        fraction: of each group's weights; a fraction or a count.
        end: "top" or "bottom" of the scores.
        group: "row", "matrix" or "global".
    """

    fraction: float | None
    end: End
    group: Group


def chosen_projections(
    model: ChatModel, modules: str | Iterable[str] | None, layers: Iterable[int] | None = None
) -> list[Projection]:
    """The projections to score.

    Args:
        model: the model.
        modules: names among q, k, v, o, gate, up, down; all by default.
        layers: blocks; all by default.

    Raises:
        InputError: a name that the model does not have, or nothing left.
    """
    known = list(dict.fromkeys(part.name for part in model.anatomy.projections()))
    anatomy = model.anatomy
    layers = None if layers is None else list(layers)
    asked = range(anatomy.n_layers) if layers is None else [anatomy.layer_index(int(at)) for at in layers]
    partial = [at for at in asked if not {"o", "down"} <= {part.name for part in anatomy.projections(at)}]
    if modules is None and partial:
        raise InputError(
            f"{model.name}: {anatomy.blocks[partial[0]]} routes tokens to experts or mixes them without "
            f"heads, and those weights are no projections; name the ones to score (modules={known}), and "
            "score experts with neurons.expert_snip"
        )
    wanted = known if modules is None else [modules] if isinstance(modules, str) else list(modules)
    for name in wanted:
        if name not in known:
            raise InputError(f"{model.name} has no projections {name!r}; it has {', '.join(known)}")
    within = None if layers is None else {model.anatomy.layer_index(int(layer)) for layer in layers}
    found = [
        part
        for part in model.anatomy.projections()
        if part.name in wanted and (within is None or part.layer in within)
    ]
    if not found:
        raise InputError("no projections left to score; name at least one module and layer")
    return found


def score(
    model: ChatModel,
    recipe: Recipe,
    projections: Sequence[Projection],
    collect: Collect,
    *,
    max_memory: Memory = None,
    out: PathLike | None = None,
    pruning: Pruning | None = None,
) -> WeightScores:
    """Run a pass on the intact model, in portions if memory is bounded; or block after block."""
    if pruning is not None:
        if out is not None or max_memory is not None:
            raise InputError("scores='sequential' is kept in memory; leave out max_memory and out")
        return _score_in_sequence(model, recipe, projections, collect, pruning)
    parts = parts_of(model, projections)
    shell = _result(model, recipe, parts, {})
    portions = plan(model, projections, memory_bytes(max_memory))
    if out is None:
        if len(portions) > 1:
            raise InputError(
                f"the scores take {4 * _weights(model, projections):,} bytes, more than max_memory; pass "
                "out=FOLDER, where finished portions are written"
            )
        return _result(model, recipe, parts, dict(_restricted(parts, collect(portions[0]))))
    files = shard_files(parts)
    there = os.listdir(out) if Path(out).is_dir() else []
    if HEADER not in there and not all(name.startswith(".") for name in there):
        raise RunFolderError(f"{out} holds other files; choose another folder for the shards")
    with locked(out) as folder:
        _open(folder, shell)
        for portion in portions:
            missing = [p for p in portion if not (folder / files[p.parameter]).is_file()]
            if not missing:
                continue
            # A portion that was cut off while its shards were written is done anew: same sums, same bits.
            for name, tensor in _restricted(parts, collect(portion)):
                if not (folder / files[name]).is_file():
                    write_tensors(folder / files[name], {name: tensor}, {"kind": "shard", "parameter": name})
    return _result(model, recipe, parts, Shards(folder, files))


def _score_in_sequence(
    model: ChatModel, recipe: Recipe, projections: Sequence[Projection], collect: Collect, pruning: Pruning
) -> WeightScores:
    """Score block after block, each in the model whose earlier blocks are pruned by their own scores.

    The pruning is undone before returning, bit for bit.
    """
    if pruning.fraction is None:
        raise InputError("scores='sequential' needs prune=, the fraction pruned in each block once scored")
    check_fraction("prune", pruning.fraction)
    parts = parts_of(model, projections)
    shell = _result(model, recipe, parts, {})  # fingerprint of the intact model
    tensors: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for layer in sorted({part.layer for part in projections}):
            here = [part for part in projections if part.layer == layer]
            block = dict(_restricted(parts, collect(here)))
            tensors |= block
            own = tuple(part for part in parts if part.layer == layer)
            ranked = block if pruning.end == "top" else {n: _upside_down(t) for n, t in block.items()}
            mask = _result_like(shell, own, ranked).top(pruning.fraction, pruning.group)
            stack.enter_context(zeroed_entries(model, mask))
    return _result_like(shell, parts, tensors)


def memory_bytes(memory: Memory) -> int | None:
    """Bytes from a number or a text such as "4GiB", "500MB"."""
    if memory is None:
        return None
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([\d.]+)\s*([kmg]i?|)b?\s*", memory.lower())
        if not found:
            raise InputError(f"max_memory is {memory!r}; write bytes, or a text such as '4GiB'")
        memory = int(float(found.group(1)) * _UNITS[found.group(2)])
    if memory < 1:
        raise InputError(f"max_memory is {memory}; it must be positive")
    return memory


def plan(model: ChatModel, projections: Sequence[Projection], limit: int | None) -> list[list[Projection]]:
    """Portions of whole parameters whose fp32 scores fit into `limit` bytes, the last blocks first.

    Late blocks come first because their backward pass is short.

    Raises:
        InputError: one parameter alone does not fit.
    """
    groups = list(by_name(projections).values())
    if limit is None:
        return [list(projections)]
    portions: list[list[Projection]] = []
    room = 0
    for group in reversed(groups):
        need = 4 * stored_parameter(model.module, group[0].parameter).numel()
        if need > limit:
            raise InputError(
                f"max_memory of {limit:,} bytes does not hold the scores of {group[0].parameter} "
                f"({need:,} bytes); raise it to at least that"
            )
        if not portions or need > room:
            portions.append([])
            room = limit
        portions[-1][:0] = group
        room -= need
    return portions


def by_name(projections: Iterable[Projection]) -> dict[str, list[Projection]]:
    """Projections grouped by parameter, in order."""
    found: dict[str, list[Projection]] = {}
    for part in projections:
        found.setdefault(part.parameter, []).append(part)
    return found


def finite_or_raise(name: str, tensor: Tensor) -> None:
    """Raise NumericsError naming the parameter if its scores are not finite."""
    if tensor.numel() and not bool(torch.isfinite(tensor.abs().max())):
        raise NumericsError(f"the scores of {name} are not finite; load the model in float32 or bfloat16")


def _restricted(parts: Sequence[Part], tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Zero what belongs to no scored part (the rest of a fused weight)."""
    inside = by_parameter(parts)
    for name, tensor in tensors:
        finite_or_raise(name, tensor)
        if sum(part.numel for part in inside[name]) < tensor.numel():
            kept = torch.zeros_like(tensor)
            for part in inside[name]:
                part.write(kept, part.read(tensor))
            tensor = kept
        yield name, tensor


def _result(
    model: ChatModel, recipe: Recipe, parts: tuple[Part, ...], tensors: Mapping[str, Tensor]
) -> WeightScores:
    return WeightScores(
        # portions may finish in another order than the model's
        tensors if isinstance(tensors, Shards) else {n: tensors[n] for n in by_parameter(parts) if tensors},
        parts,
        recipe.definition,
        recipe.unit,
        recipe.method,
        dict(recipe.settings),
        dict(recipe.prompts),
        recipe.n,
        model.fingerprint,
        model.base_fingerprint,
        model.name,
    )


def _result_like(shell: WeightScores, parts: tuple[Part, ...], tensors: Mapping[str, Tensor]) -> WeightScores:
    from dataclasses import replace

    return replace(shell, parts=parts, tensors=tensors)


def _upside_down(tensor: Tensor) -> Tensor:
    """Positive scores in reverse order."""
    return tensor.max() - tensor + 1e-30 + tensor.max() * 1e-6


def _weights(model: ChatModel, projections: Sequence[Projection]) -> int:
    return sum(stored_parameter(model.module, name).numel() for name in by_name(projections))


def _open(folder: Path, shell: WeightScores) -> None:
    """Start a shard folder, or check that an unfinished one is of this very pass."""
    header = shell.header()
    if not (folder / HEADER).is_file():
        write_header(folder, header)
        return
    there = read_document(folder / HEADER, Schema, remedy="choose another folder", error=RunFolderError)
    for key in ("fingerprint", "definition", "settings", "prompts", "n", "parts"):
        if there.get(key) != json.loads(json.dumps(header[key])):
            raise RunFolderError(
                f"{folder} holds shards of another pass ({key} differs: {str(there.get(key))[:60]} there); "
                "choose another folder"
            )
