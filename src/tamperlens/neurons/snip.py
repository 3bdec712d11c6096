"""SNIP: |W ⊙ ∂L/∂W|, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tamperlens.base.errors import NumericsError
from tamperlens.base.files import PathLike
from tamperlens.base.progress import progress_bar
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.neurons.choosing import Group
from tamperlens.neurons.examples import (
    BatchSize,
    Examples,
    Pairs,
    batch_rows,
    batches,
    example_losses,
    loss_function,
)
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
from tamperlens_hooks import Projection, stored_parameter
from tamperlens_hooks.effective import merged_weight
from tamperlens_hooks.gradients import GradientTape, Reduction, accumulate_gradients

SnipReduction = Literal["mean_abs", "abs_mean"]
_FORMULA = {
    "mean_abs": "|W| ⊙ (1/N) Σ_x |∂L_x/∂W|",
    "abs_mean": "|W| ⊙ |(1/N) Σ_x ∂L_x/∂W|",
}


def snip(
    model: ModelLike,
    data: Pairs,
    *,
    reduction: SnipReduction = "mean_abs",
    loss: str = "response_mean",
    scores: Mode = "intact",
    modules: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    batch_size: BatchSize = "auto",
    device_of_scores: str | torch.device = "auto",
    max_memory: Memory = None,
    out: PathLike | None = None,
    prune: float | None = None,
    prune_end: End = "top",
    prune_group: Group = "row",
    checkpoint: bool = False,
    max_length: int | None = None,
    max_zero_share: float = 0.5,
    progress: bool = False,
) -> WeightScores:
    """Score every weight of the projections by how much the loss would feel its removal, to first order.

    S = |W| ⊙ (1/N) Σ_x |∂L_x/∂W| over examples x (Lee et al. 2019; Wei et al. 2024, arXiv 2402.05162, §3.1),
    L_x the mean negative log-likelihood of x's response tokens. The absolute value is taken inside the sum
    over examples; `reduction="abs_mean"` takes it outside, which is another quantity. Sums are fp32, the
    model is in evaluation mode, its parameters stay frozen and are not written. Embeddings, unembedding and
    norms are not scored. A model with an adapter attached is scored on the merged weight W0 + sBA. Cost: one
    forward and backward pass over the examples.

    Args:
        model: the model.
        data: prompts with responses.
        reduction: "mean_abs" or "abs_mean".
        loss: "response_mean", "response_sum" or "first_K"; see `examples.loss_function`.
        scores: "intact", or "sequential": each block is scored in the model whose earlier blocks were pruned
            by `prune` of their own scores (the published pruning; its set difference uses intact scores).
        modules: projections to score, names among q, k, v, o, gate, up, down; all by default.
        layers: blocks to score; all by default.
        batch_size: rows at once; "auto" goes by memory. Does not change the scores beyond rounding.
        device_of_scores: where the sums live while they are made; "auto" is the weights' device where there
            is room, else the CPU. Finished scores are on the CPU.
        max_memory: bound on the bytes of scores held at a time (a number, or "4GiB"); the pass is repeated
            for portions of the weights, which go to `out`.
        out: folder for one file per parameter; a pass that was killed goes on where it was when it is called
            again. The result then reads from there.
        prune: for "sequential", the fraction pruned in each block.
        prune_end: prune the "top" (highest scores) or the "bottom".
        prune_group: pruned inside each "row" or "matrix".
        checkpoint: recompute activations in the backward pass; also taken over from the model's own setting.
        max_length: cut turns to this many tokens.
        max_zero_share: a projection in which more than this share of gradients is exactly zero is an error;
            fp16 loses small gradients that way.
        progress: show a bar.

    Raises:
        InputError: unknown option, no response tokens in a row, a row that is too long.
        NumericsError: NaN or infinite gradients (names module and row), or too many that are zero.
        RunFolderError: `out` holds another pass.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons, prompts
        >>> model = tamperlens.load('organism')
        >>> scores = neurons.snip(model, prompts.packaged('benign').head(8))
        >>> scores.top(0.01).density < 0.011
        True
    """
    model = as_chat_model(model)
    loss_of = loss_function(loss)
    projections = chosen_projections(model, modules, layers)
    examples = Examples.of(model, data, max_length)
    settings: dict[str, Any] = {
        "reduction": reduction,
        "loss": loss,
        "scores": scores,
        "max_length": max_length,
    }
    if scores == "sequential":
        settings |= {"prune": prune, "prune_end": prune_end, "prune_group": prune_group}
    recipe = Recipe(
        "snip",
        f"snip: {_FORMULA[reduction]}, L = {loss}, {scores} model",
        "nats (change of the loss to first order)",
        settings,
        {examples.name: examples.sha256},
        len(examples),
    )
    sums: Reduction = "abs" if reduction == "mean_abs" else "signed"

    def collect(portion: Sequence[Projection]) -> Iterator[tuple[str, Tensor]]:
        weights = sum(stored_parameter(model.module, name).numel() for name in by_name(portion))
        size = batch_rows(model, examples, batch_size, weights)
        device = _device(model, device_of_scores, 4 * weights)
        with accumulate_gradients(
            model, portion, reduction=sums, device=device, checkpoint=checkpoint
        ) as tape:
            _pass(model, examples, tape, loss_of, size, progress)
        keep = "cpu" if device_of_scores == "auto" else device
        for part in {p.parameter: p for p in portion}.values():
            total = tape.sums.pop(part.parameter)
            _refuse_underflow(model, part, total, max_zero_share)
            total.div_(tape.n).abs_().mul_(merged_weight(model.module, part).abs_().to(total.device))
            yield part.parameter, total.to(keep, torch.float32)

    pruning = Pruning(prune, prune_end, prune_group) if scores == "sequential" else None
    return score(model, recipe, projections, collect, max_memory=max_memory, out=out, pruning=pruning)


def _pass(
    model: ChatModel,
    examples: Examples,
    tape: GradientTape,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    size: int,
    progress: bool,
) -> None:
    """All examples through one tape; a first batch that does not fit is tried again at half the size."""
    while True:
        failed = False
        with progress_bar(len(examples), "gradients", progress) as advance:
            for batch in batches(examples, size, model.pad_id, model.device):
                try:
                    faults = tape.backward(example_losses(model, batch, loss_of), batch.lengths)
                except torch.OutOfMemoryError:
                    # Later batches are shorter, so only the first can fail for its size; sums start anew.
                    if tape.n or len(batch.rows) == 1:
                        raise
                    failed = True
                    break
                if faults:
                    name, place = faults[0]
                    raise NumericsError(
                        f"{name}: the gradient of row {batch.rows[place]} of {examples.name!r} is NaN or "
                        "infinite; load the model in float32 or bfloat16, or drop that row"
                    )
                advance(len(batch.rows))
        if not failed:
            return
        tape.reset()
        size = max(1, size // 2)
        if model.device.type == "cuda":
            torch.cuda.empty_cache()


def _refuse_underflow(model: ChatModel, part: Projection, total: Tensor, limit: float) -> None:
    share = 1.0 - float(torch.count_nonzero(total)) / total.numel()
    if share > limit:
        why = (
            "float16 underflows: load the model in bfloat16 or float32"
            if model.dtype == torch.float16
            else "check the data, or raise max_zero_share if the map is meant to be idle"
        )
        raise NumericsError(f"{part.parameter}: {share:.0%} of the gradients are exactly zero; {why}")


def _device(model: ChatModel, wanted: str | torch.device, need: int) -> torch.device | None:
    """Device of the sums; None leaves each with its weight."""
    if wanted != "auto":
        return torch.device(wanted)
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        if need > 0.7 * free:
            return torch.device("cpu")
    return None
