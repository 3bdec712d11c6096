"""Scores without gradients: Wanda, magnitude, random."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.files import PathLike
from tamperlens.base.progress import progress_bar
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating
from tamperlens.neurons.choosing import Group
from tamperlens.neurons.examples import BatchSize, Examples, Pairs, batch_rows, batches
from tamperlens.neurons.passes import (
    End,
    Memory,
    Mode,
    Pruning,
    Recipe,
    by_name,
    chosen_projections,
    score,
)
from tamperlens.neurons.scores import WeightScores
from tamperlens.prompts import IGNORE
from tamperlens_hooks import Projection, stored_parameter, unwrap
from tamperlens_hooks.effective import merged_weight
from tamperlens_hooks.weights import watch_inputs


def wanda(
    model: ModelLike,
    data: Pairs,
    *,
    scores: Mode = "intact",
    modules: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    batch_size: BatchSize = "auto",
    max_memory: Memory = None,
    out: PathLike | None = None,
    prune: float | None = None,
    prune_end: End = "top",
    prune_group: Group = "row",
    max_length: int | None = None,
    progress: bool = False,
) -> WeightScores:
    """|W_ij| · ‖X_j‖₂, X_j the j-th input over all response tokens (Sun et al. 2023; Wei et al. 2024, §3.1).

    The response's tokens count at the positions where they are read, as in the published code; sums of
    squares are fp64. One forward pass over the examples.

    Args:
        model: the model; with an adapter attached W is the merged weight.
        data: prompts with responses.
        scores: "intact" or "sequential"; see `snip`.
        modules: projections to score; all by default.
        layers: blocks to score; all by default.
        batch_size: rows at once.
        max_memory: bound on the bytes of scores held at a time; needs `out`.
        out: folder for one file per parameter.
        prune: see `snip`.
        prune_end: see `snip`.
        prune_group: see `snip`.
        max_length: cut turns to this many tokens.
        progress: show a bar.

    Raises:
        InputError: unknown option, or a row that cannot be used.
        NumericsError: NaN or infinite activations; names module and row.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons, prompts
        >>> model = tamperlens.load('organism')
        >>> scores = neurons.wanda(model, prompts.packaged('benign').head(8))
        >>> scores.n
        8
    """
    model = as_chat_model(model)
    projections = chosen_projections(model, modules, layers)
    examples = Examples.of(model, data, max_length)
    settings: dict[str, Any] = {"scores": scores, "max_length": max_length}
    if scores == "sequential":
        settings |= {"prune": prune, "prune_end": prune_end, "prune_group": prune_group}
    recipe = Recipe(
        "wanda",
        f"wanda: |W| ⊙ ‖X‖₂ over response tokens, {scores} model",
        "weight × activation norm",
        settings,
        {examples.name: examples.sha256},
        len(examples),
    )

    def collect(portion: Sequence[Projection]) -> Iterator[tuple[str, Tensor]]:
        norms = input_norms(model, examples, portion, batch_size, progress)
        for part in {p.parameter: p for p in portion}.values():
            weight = merged_weight(model.module, part).abs_()
            norm = norms[part.parameter].to(weight)
            yield part.parameter, weight.mul_(norm[:, None] if part.transposed else norm).float().cpu()

    pruning = Pruning(prune, prune_end, prune_group) if scores == "sequential" else None
    return score(model, recipe, projections, collect, max_memory=max_memory, out=out, pruning=pruning)


def magnitude(
    model: ModelLike,
    *,
    reference: ModelLike | None = None,
    modules: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    max_memory: Memory = None,
    out: PathLike | None = None,
) -> WeightScores:
    """|W|, or |W − W_ref| against a reference model of the same shape (which weights alignment moved).

    Args:
        model: the model; with an adapter attached W is the merged weight.
        reference: the model to take the difference to.
        modules: projections to score; all by default.
        layers: blocks to score; all by default.
        max_memory: see `snip`.
        out: see `snip`.

    Raises:
        InputError: the reference does not have the same projections.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons
        >>> model = tamperlens.load('organism')
        >>> neurons.magnitude(model).top(0.5).density
        0.5
    """
    model = as_chat_model(model)
    reference = None if reference is None else as_chat_model(reference, what="reference")
    projections = chosen_projections(model, modules, layers)
    if reference is not None and reference.anatomy.maps != model.anatomy.maps:
        raise InputError(f"{reference.name} and {model.name} do not have the same projections")
    settings = {"reference": None if reference is None else reference.fingerprint}
    words = "magnitude: |W|" if reference is None else f"change: |W − W of {reference.name}|"
    recipe = Recipe("magnitude" if reference is None else "change", words, "weight", settings)

    def collect(portion: Sequence[Projection]) -> Iterator[tuple[str, Tensor]]:
        for part in {p.parameter: p for p in portion}.values():
            weight = merged_weight(model.module, part)
            if reference is not None:
                weight -= merged_weight(reference.module, part).to(weight.device)
            yield part.parameter, weight.abs_().float().cpu()

    return score(model, recipe, projections, collect, max_memory=max_memory, out=out)


def random(
    model: ModelLike,
    *,
    seed: int = 0,
    modules: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    max_memory: Memory = None,
    out: PathLike | None = None,
) -> WeightScores:
    """Independent uniform scores in (0, 1]: the set that knows nothing.

    Args:
        model: the model.
        seed: of the draw; each parameter has a generator of its own, so portions do not change it.
        modules: projections to score; all by default.
        layers: blocks to score; all by default.
        max_memory: see `snip`.
        out: see `snip`.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons
        >>> model = tamperlens.load('organism')
        >>> round(neurons.random(model, seed=0).top(0.1).density, 3)
        0.1
    """
    model = as_chat_model(model)
    projections = chosen_projections(model, modules, layers)
    place = {name: i for i, name in enumerate(by_name(model.anatomy.projections()))}
    recipe = Recipe("random", f"random: uniform, seed {seed}", "none", {"seed": seed})

    def collect(portion: Sequence[Projection]) -> Iterator[tuple[str, Tensor]]:
        for name in by_name(portion):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + place[name])
            yield name, 1.0 - torch.rand(stored_parameter(model.module, name).shape, generator=generator)

    return score(model, recipe, projections, collect, max_memory=max_memory, out=out)


def input_norms(
    model: ChatModel,
    examples: Examples,
    projections: Sequence[Projection],
    batch_size: BatchSize,
    progress: bool,
) -> dict[str, Tensor]:
    """Parameter name to ‖X_j‖₂ [d_in] (fp64) over the response tokens of all examples."""
    squares: dict[str, Tensor] = {}
    kept: list[Tensor] = []
    rows: list[tuple[int, ...]] = []

    def see(part: Projection, x: Tensor) -> None:
        picked = x[kept[0].to(x.device)].double()
        if not bool(torch.isfinite(picked).all()):
            per_row = torch.isfinite(x).flatten(1).all(1)
            bad = rows[0][int((~per_row).nonzero()[0])]
            raise NumericsError(
                f"{part.parameter}: what it reads in row {bad} of {examples.name!r} is NaN or infinite; "
                "load the model in float32 or bfloat16"
            )
        total = picked.square().sum(0)
        squares[part.parameter] = squares.get(part.parameter, torch.zeros_like(total)) + total

    with (
        evaluating(model.module),
        watch_inputs(model, see, projections),
        progress_bar(len(examples), "activations", progress) as advance,
    ):
        size = batch_rows(model, examples, batch_size, 0)
        for batch in batches(examples, size, model.pad_id, model.device):
            kept[:], rows[:] = [batch.labels != IGNORE], [batch.rows]
            body(model, batch.input_ids, batch.attention_mask)
            advance(len(batch.rows))
    return {name: total.sqrt() for name, total in squares.items()}


def body(model: ChatModel, input_ids: Tensor, attention_mask: Tensor) -> None:
    """A forward pass without the unembedding, for hooks that read on the way."""
    decoder = unwrap(model.module).get_submodule(model.anatomy.decoder)
    decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
