"""`attribute`: a score for every attention head, by one of eight methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError
from tamperlens.heads import exact, published
from tamperlens.heads.direct import direct
from tamperlens.heads.gradient import gradient, integrated
from tamperlens.heads.inputs import Batch, Prompts, Rows, batched, make_rows, padded
from tamperlens.heads.scores import HeadScores, make_scores
from tamperlens.heads.targets import HasIds, Target, TargetLike, resolve_target
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens_hooks import HasVector

Method = Literal["direct", "gradient", "integrated", "ablate", "patch", "path", "ships", "sahara"]
Baseline = Literal["zero", "mean", "resample"]
OWN_METRIC = ("ships", "sahara")


@renamed_arguments(tokens="refusal_tokens")
def attribute(
    model: ModelLike,
    prompts: Prompts,
    *,
    target: TargetLike = "refusal_direction",
    metric: Callable[..., Tensor] | None = None,
    labels: object = None,
    method: Method = "gradient",
    corrupt: Prompts | None = None,
    direction: Tensor | HasVector | None = None,
    layer: int | None = None,
    position: int | None = None,
    refusal_tokens: Sequence[int] | HasIds | None = None,
    at: Literal["clean", "corrupt"] = "clean",
    baseline: Baseline = "zero",
    reference: Prompts | None = None,
    steps: int | None = None,
    draws: int = 4,
    scale: float | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> HeadScores:
    """Score every attention head for a target.

    A positive score means that the head raises the target. Methods:

    - "direct": z_h W_O[:, h] · direction at the target's position, norms on the way with their scale held.
      With MLPs, embedding and biases (`parts`) it sums to the target. Linear targets only; for
      "refusal_tokens" the target is mean logit of the tokens − mean logit of the vocabulary (before a
      soft cap).
    - "gradient": (z_clean − z_other) · ∂ target/∂z over all positions (attribution patching). `other` is the
      corrupt run where there is one, else `baseline` ("zero" or "mean"). `at` names the run that the gradient
      is taken on: "clean" as in EAP, "corrupt" as in TransformerLens's `attribution_patch`.
    - "integrated": the same with the gradient averaged over `steps` (5) embeddings between corrupt and clean.
    - "ablate": target(untouched) − target(head's z replaced), exact. `baseline`: zero; the head's mean over
      `reference`; or "resample": its z on the corrupt partner, else on `draws` other prompts of the same
      length.
    - "patch": target(corrupt run with the head's clean z) − target(corrupt), exact.
    - "path": target(clean) − target(clean run with the head's corrupt z wherever later blocks read it, its
      direct path to the logits kept clean), exact: what a head does through others. Logit targets only.
    - "ships": KL of the next token when the head's queries are scaled by `scale` (1e-4); has its own metric.
    - "sahara": degrees by which that mask (1e-5) turns the prompts' main left singular vector, greedy over
      `steps` (1) heads; its own metric, one number for all prompts.

    "ablate", "patch" and "path" run what lies below the replaced head once for all heads.

    Args:
        model: the model; hooks are attached and detached.
        prompts: user turns, rendered with the chat template; or token ids as they are, a tensor [n, seq] or
            lists of ids (`corrupt` and `reference` likewise).
        target: "refusal_direction" (needs `direction`), "refusal_tokens" (needs `refusal_tokens`), or a
            function of the last position's logits [batch, vocab] that returns one number per example,
            differentiable for the gradient methods.
        metric: the same as a function given as `target`. With `labels` it is called as
            metric(logits, labels of those rows); without, all prompts are run in one batch in the order
            given, so that it may hold labels of its own.
        labels: one entry per prompt, a tensor [n, ...] or what becomes one.
        method: see above.
        corrupt: the partner of each prompt, of the same token length; see `heads.align`.
        direction: a vector [d_model] or an object with `.vector`, `.layer` and `.position`.
        layer: block at whose input the projection is read; the direction's own by default, `n_layers` for the
            last block's output.
        position: token, from the end; the direction's own by default, else -1.
        refusal_tokens: token ids, or an object with `.ids`.
        at: "clean" or "corrupt".
        baseline: "zero", "mean" or "resample".
        reference: prompts for means and donors; the scored ones by default.
        steps: points of the path, or heads of the greedy search.
        draws: donors per prompt.
        scale: factor of the published masks.
        heads: exact methods only: a shortlist of (layer, head); the others score 0, which the
            convention says.
        batch_size: prompts at once; 16 by default, and all of them for a metric without labels.
        seed: of the donors.

    Raises:
        InputError: an unknown method or choice, pairs that do not align, or a target that does not fit.
        NumericsError: NaN or infinite numbers.
        UnsupportedModelError: "direct" on a model whose norms have no exact scale.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, heads, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> direction = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> scores = heads.attribute(model, harmful.head(4), direction=direction, method='gradient')
        >>> tuple(scores.scores.shape)
        (5, 4)
    """
    model = as_chat_model(model)
    rows = make_rows(model, prompts, corrupt)
    model.anatomy.require_heads()
    if metric is not None:
        if target != "refusal_direction":
            raise InputError("target= and metric= are two names of one thing; give one")
        target = metric
    if batch_size is None:
        batch_size = len(rows) if metric is not None and labels is None else 16
    batches = batched(model, rows, batch_size, ordered=metric is not None, numbered=labels is not None)
    if method in OWN_METRIC:
        return _published(model, rows, batches, method, steps, scale)
    goal = resolve_target(
        model,
        target,
        direction=direction,
        layer=layer,
        position=position,
        refusal_tokens=refusal_tokens,
        labels=labels,
    )
    if goal.labels is not None and len(goal.labels) != len(rows):
        raise InputError(f"labels= has {len(goal.labels)} entries for {len(rows)} prompts; give one for each")
    _check_position(goal, rows)
    pool = rows if reference is None else make_rows(model, reference, None)
    run, words = _method(
        model, goal, rows, pool, method, at, baseline, 5 if steps is None else steps, draws, seed,
        None if heads is None else _shortlist(model, heads), batch_size,
    )  # fmt: skip
    n, anatomy = len(rows), model.anatomy
    scores = torch.zeros(n, anatomy.n_layers, anatomy.n_heads, dtype=torch.float64)
    values = torch.zeros(n, dtype=torch.float64)
    parts: dict[str, Tensor] = {}
    for batch in batches:
        found, value, *rest = run(batch)
        scores[batch.rows], values[batch.rows] = found.detach().double().cpu(), value.double().cpu()
        for name, part in (rest[0] if rest else {}).items():
            whole = parts.setdefault(name, torch.zeros(n, part.shape[1], dtype=torch.float64))
            whole[batch.rows] = part.double().cpu()
    named = goal.words
    if method == "direct" and goal.tokens:
        named = f"mean logit of {len(goal.tokens)} refusal tokens − mean logit of the vocabulary"
    return make_scores(
        model, scores, method=method, target=named, convention=words, metric=values, prompts=rows.names,
        parts=parts,
    )  # fmt: skip


def _method(
    model: ChatModel,
    goal: Target,
    rows: Rows,
    pool: Rows,
    method: str,
    at: str,
    baseline: str,
    steps: int,
    draws: int,
    seed: int,
    heads: set[exact.Head] | None,
    batch_size: int,
) -> tuple[Callable[[Batch], Any], str]:
    """The function of a batch, and the convention in words."""
    pairs = rows.corrupt is not None
    means = None
    if baseline == "mean" and (method == "ablate" or (method == "gradient" and not pairs)):
        means = exact.mean_z(model, batched(model, pool, batch_size))
    if method == "direct":
        return partial(direct, model, goal), (
            "Head output · direction at one position, norms with their scale held fixed; positive raises the "
            "target; heads, MLPs, embedding and biases sum to it."
        )
    if method == "gradient":
        if baseline == "resample" and not pairs:
            raise InputError("method 'gradient' has no donors; give corrupt=, or baseline 'zero' or 'mean'")
        other = "z_corrupt" if pairs else f"{baseline} z"
        run = partial(gradient, model, goal, at=at, baseline=means)
        return run, f"(z_clean − {other}) · ∂target/∂z at the {at} run, all positions; positive raises it."
    if method == "integrated":
        return partial(integrated, model, goal, steps=steps), (
            f"(z_clean − z_corrupt) · ∂target/∂z averaged over {steps} embeddings from corrupt to clean; "
            "positive raises the target."
        )
    short = "" if heads is None else f" Shortlist of {len(heads)} heads; the others are not measured (0)."
    if method == "patch":
        return partial(exact.patch, model, goal, heads=heads), (
            f"target(corrupt with the head's clean z) − target(corrupt), all positions.{short}"
        )
    if method == "path":
        return partial(exact.path, model, goal, heads=heads), (
            "target(clean) − target(clean with the head's corrupt z for later blocks, its direct path to the "
            f"logits clean), all positions; positive raises it.{short}"
        )
    donors: list[list[list[int]]] = []
    if baseline == "resample" and not pairs:
        donors = exact.draw_donors(rows.clean, pool.clean, draws, seed)
    what = baseline
    if baseline == "resample":
        what = "corrupt partner" if pairs else f"{draws} donors, seed {seed}"
    return partial(_ablate, model, goal, baseline, means, donors, heads), (
        f"target(untouched) − target(head's z replaced: {what}), all positions; positive raises it.{short}"
    )


def _ablate(
    model: ChatModel,
    goal: Target,
    baseline: str,
    means: Tensor | None,
    donors: list[list[list[int]]],
    heads: set[exact.Head] | None,
    batch: Batch,
) -> Any:
    if baseline == "resample" and batch.corrupt is not None:
        others = [batch.corrupt]
    else:
        others = [padded(model, [draw[row] for row in batch.rows]) for draw in donors]
        for one in others if "rows" in batch.clean else ():
            one["rows"] = batch.clean["rows"]
    made = exact.replacements_for(model, goal, batch, baseline, means, others)
    return exact.ablate(model, goal, batch, made, heads)


def _published(
    model: ChatModel, rows: Rows, batches: list[Batch], method: str, steps: int | None, scale: float | None
) -> HeadScores:
    none = torch.zeros(0, dtype=torch.float64)
    if method == "ships":
        factor = published.SHIPS_SCALE if scale is None else scale
        table = torch.zeros(len(rows), model.anatomy.n_layers, model.anatomy.n_heads, dtype=torch.float64)
        for batch in batches:
            table[batch.rows] = published.ships(model, batch, scale=factor)
        return make_scores(
            model, table, method=method, target="KL of the next token, nats", metric=none, prompts=rows.names,
            convention=f"KL(untouched ‖ head's queries × {factor:g}) at the last token, nats; no sign.",
        )  # fmt: skip
    factor = published.SAHARA_SCALE if scale is None else scale
    first, order, reached = published.sahara(model, batches, steps=steps or 1, scale=factor)
    shape = (0, model.anatomy.n_layers, model.anatomy.n_heads)
    return make_scores(
        model, torch.zeros(shape), method=method, target="turn of the main left singular vector, degrees",
        metric=torch.tensor(reached, dtype=torch.float64), prompts=rows.names, scores=first, n=len(rows),
        order=tuple(order),
        convention=f"Degrees of shift with the head's queries × {factor:g}, first greedy step; no sign.",
    )  # fmt: skip


def _check_position(goal: Target, rows: Rows) -> None:
    shortest = min(len(ids) for ids in rows.clean)
    if -goal.position > shortest:
        raise InputError(
            f"position {goal.position} lies before the start of a prompt of {shortest} tokens; choose one "
            "that every prompt has"
        )


def _shortlist(model: ChatModel, heads: Iterable[tuple[int, int]]) -> set[exact.Head]:
    found = {(int(layer), int(head)) for layer, head in heads}
    for layer, head in found:
        model.anatomy.layer_index(layer)
        model.anatomy.head_slice(head)
    if not found:
        raise InputError("heads= is an empty shortlist; leave it out to score all")
    return found
