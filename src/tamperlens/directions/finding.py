"""Finding the refusal direction: difference of means, chosen by what it does (Arditi et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import (
    ZERO,
    BatchSize,
    Split,
    candidate_positions,
    check_disjoint,
    check_positions,
    mean_activations,
    separation_table,
    split_prompts,
)
from tamperlens.directions.direction import Direction
from tamperlens.directions.doubts import doubts
from tamperlens.directions.scoring import Scorer, SelectionMethod, score_table
from tamperlens.directions.selection import SelectionRule, select_direction
from tamperlens.directions.tokens import RefusalTokens, find_refusal_tokens, given_tokens
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, hash_prompts, prompt_texts

DEFINITION = (
    "difference of mean block inputs (resid_pre), harmful − harmless, at a post-instruction template "
    "position, means in float64; chosen by least mean refusal metric on harmful validation prompts under "
    "ablation, subject to induce ≥ {min_induce:g} on harmless ones (+1 · raw at its layer, all positions), "
    "mean last-position KL(untouched ‖ ablated) ≤ {max_kl:g} and layer < {max_layer:g} L, by the rule of "
    "the published {layer_rule} (the code takes the whole part of {max_layer:g} L); Arditi et al. 2024"
)
FIXED = (
    "difference of mean block inputs (resid_pre), harmful − harmless, at a given layer and position, means "
    "in float64; not selected"
)


def find_direction(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    *,
    n_train: int = 128,
    n_val: int = 32,
    seed: int = 0,
    positions: Sequence[int] | None = None,
    refusal_tokens: Sequence[int] | RefusalTokens | None = None,
    judge: str | Judge | None = None,
    rule: SelectionRule | None = None,
    selection: SelectionMethod = "shortlist",
    batch_size: BatchSize = "auto",
    cache: ActivationCache | None = None,
    progress: bool = False,
) -> Direction:
    """Find the direction that refusal goes by, and choose it by what it does.

    Candidates are the differences of means at every post-instruction template position and every block input
    of the layers that the rule allows. They are ablated and added on validation prompts; `select_direction`
    chooses. When none passes the filters, the one that violates them least is returned, with `passed=False`
    and the reason in `flag`. So is any direction when there is no refusal to find: nothing was refused, the
    metric does not tell the two sets apart, or directions from halves of the prompts disagree.

    By default only a shortlist is scored on all prompts: first-order estimates from a few backward passes put
    the candidates in order (`screening.py`), and waves of eight are thinned out by successive elimination
    (`shortlist.py`: the exhaustive search's choice is dropped for one that is worse by more than 0.1 nats of
    bypass with probability .05 at most; no new wave begins beyond 8 % of all prompts). It stops where the
    estimates, set right by what was measured, leave no candidate that could pass; the table says which rows
    are estimates and why. `selection="exhaustive"` scores all of them, as published.

    Args:
        model: any chat model; it is left as it was.
        harmful: prompts that it should refuse, at least n_train + n_val distinct ones.
        harmless: prompts that it should answer, likewise.
        n_train: prompts per kind for the means; 128 as published.
        n_val: prompts per kind for the scores; 32 as published.
        seed: of the split.
        positions: candidate positions, negative from the end; the template's by default.
        refusal_tokens: token ids that open refusals; found from the model's own answers by default
            (`find_refusal_tokens`).
        judge: who says which answers are refusals when the tokens are found.
        rule: other thresholds of the selection.
        selection: "shortlist", or "exhaustive" as published.
        batch_size: rows at once.
        cache: where the means are kept between calls.
        progress: show a bar.

    Raises:
        InputError: too few prompts (the message says how many are needed), prompts in both sets, bad
            positions.
        NumericsError: the model's own activations or logits are NaN or infinite.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(48), prompts.packaged('harmless').head(48)
        >>> direction = directions.find_direction(model, harmful, harmless, n_train=32, n_val=16)
        >>> direction.passed
        True
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    rule = rule or SelectionRule()
    split = split_prompts(harmful, harmless, n_train, n_val, seed)
    places = candidate_positions(model) if positions is None else check_positions(positions)
    tokens = _tokens(model, split, refusal_tokens, judge)
    differences, scale = mean_differences(
        model, split.harmful_train, split.harmless_train, places, cache=cache
    )
    scorer = Scorer(model, split.harmful_val, split.harmless_val, tokens.ids, batch_size)
    labels = _position_labels(model, split.harmful_train[0], places)
    apart = separation_table(model, differences, scale, split.harmful_val, split.harmless_val, places)
    table = score_table(
        scorer, differences, scale, places, labels, rule,
        separations=apart, selection=selection, seed=seed, progress=progress,
    )  # fmt: skip
    chosen = select_direction(table, n_layers=model.n_layers, rule=rule)
    vector = differences[places.index(chosen.position), chosen.layer]
    unit, norm, flag = _unit(vector, float(scale[places.index(chosen.position), chosen.layer]))
    # Without a reason to call it refusal a direction does not pass, whatever its scores.
    against = [flag or chosen.reason, *doubts(model, split, chosen, tokens, scorer.baseline, cache=cache)]
    against = [reason for reason in against if reason]
    return Direction(
        vector=unit,
        raw_norm=norm,
        layer=chosen.layer,
        position=chosen.position,
        passed=not against,
        flag="; ".join(against),
        bypass=chosen.bypass,
        induce=chosen.induce,
        kl=chosen.kl,
        baseline_harmful=scorer.baseline.harmful,
        baseline_harmless=scorer.baseline.harmless,
        table=table,
        tokens=tokens,
        n_train=(n_train, n_train),
        n_val=(n_val, n_val),
        seed=seed,
        harmful_sha256=split.harmful_sha256,
        harmless_sha256=split.harmless_sha256,
        n_layers=model.n_layers,
        model=model.name,
        fingerprint=model.fingerprint,
        chat_format=model.chat_format.name,
        definition=DEFINITION.format(**vars(rule)),
    )


def direction_at(
    model: ModelLike, harmful: Prompts, harmless: Prompts, layer: int, position: int
) -> Direction:
    """The difference of means at a fixed place, over all the prompts given: for following a direction.

    Across checkpoints, take layer, position and prompts from the base model's direction; choosing again at
    each checkpoint manufactures drift. `direction_like` does that.

    Args:
        model: any chat model.
        harmful: prompts behind the harmful mean.
        harmless: prompts behind the harmless mean.
        layer: block whose input is read, from 0.
        position: negative token position from the end.

    Raises:
        InputError: an empty set, prompts in both sets, a layer or position that does not exist.
        NumericsError: activations are NaN or infinite.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> direction = directions.direction_at(model, harmful, harmless, layer=2, position=-1)
        >>> direction.layer, direction.position
        (2, -1)
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    check_disjoint(harmful, harmless)
    bad, good = prompt_texts(harmful), prompt_texts(harmless)
    return _read_at(model, bad, good, layer, position, hash_prompts(bad), hash_prompts(good))


def direction_like(model: ModelLike, base: Direction, harmful: Prompts, harmless: Prompts) -> Direction:
    """A selected direction measured again on another checkpoint: same prompts, split, layer and position.

    Args:
        model: the other checkpoint.
        base: what `find_direction` gave for the base model.
        harmful: the harmful prompts that it was given.
        harmless: the harmless prompts that it was given.

    Raises:
        InputError: other prompts than those behind `base`.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    split = split_of(base, harmful, harmless)
    return _read_at(
        model,
        split.harmful_train,
        split.harmless_train,
        base.layer,
        base.position,
        base.harmful_sha256,
        base.harmless_sha256,
    )


def split_of(base: Direction, harmful: Prompts, harmless: Prompts) -> Split:
    """The training and validation prompts behind a selected direction, made again from its sets and seed.

    Args:
        base: what `find_direction` (or `find_harmfulness_direction`) gave.
        harmful: the harmful prompts that it was given.
        harmless: the harmless prompts that it was given.

    Raises:
        InputError: other prompts than those behind `base`, or a direction that was read at a given place.
    """
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    if not base.n_val[0]:
        raise InputError(
            "this direction was read at a given place and has no split; pass the one that find_direction gave"
        )
    split = split_prompts(harmful, harmless, base.n_train[0], base.n_val[0], base.seed)
    if (split.harmful_sha256, split.harmless_sha256) != (base.harmful_sha256, base.harmless_sha256):
        raise InputError(
            "these are not the prompts that the base direction was found with (their hashes differ); "
            "pass the same sets in the same order"
        )
    return split


def mean_differences(
    model: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    positions: Sequence[int],
    *,
    cache: ActivationCache | None = None,
) -> tuple[Float64[Tensor, "pos layer d_model"], Float64[Tensor, "pos layer"]]:
    """Harmful mean − harmless mean everywhere, and the larger of the two means' norms."""
    bad = mean_activations(model, harmful, positions, cache=cache)
    good = mean_activations(model, harmless, positions, cache=cache)
    return bad - good, torch.maximum(bad.norm(dim=-1), good.norm(dim=-1))


def _read_at(
    model: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    layer: int,
    position: int,
    harmful_hash: str,
    harmless_hash: str,
) -> Direction:
    if not harmful or not harmless:
        raise InputError("a direction needs harmful and harmless prompts; one of the two sets is empty")
    if not 0 <= layer < model.n_layers:
        raise InputError(f"layer {layer} does not exist: {model.name} has blocks 0 to {model.n_layers - 1}")
    place = check_positions([position])
    bad = mean_activations(model, harmful, place, [layer])[0, 0]
    good = mean_activations(model, harmless, place, [layer])[0, 0]
    unit, norm, flag = _unit(bad - good, max(float(bad.norm()), float(good.norm())))
    return Direction(
        vector=unit,
        raw_norm=norm,
        layer=layer,
        position=position,
        flag=flag,
        n_train=(len(harmful), len(harmless)),
        harmful_sha256=harmful_hash,
        harmless_sha256=harmless_hash,
        n_layers=model.n_layers,
        model=model.name,
        fingerprint=model.fingerprint,
        chat_format=model.chat_format.name,
        definition=FIXED,
    )


def _unit(vector: Float64[Tensor, " d_model"], scale: float) -> tuple[Tensor, float, str]:
    """(unit vector in float32, norm, reason why it is NaN or "")."""
    norm = float(vector.norm())
    if norm <= ZERO * scale or not math.isfinite(norm):
        return torch.full(vector.shape, math.nan), norm, "harmful and harmless means do not differ here"
    return (vector / norm).float().cpu(), norm, ""


def _tokens(
    model: ChatModel,
    split: Split,
    given: Sequence[int] | RefusalTokens | None,
    judge: str | Judge | None,
) -> RefusalTokens:
    if isinstance(given, RefusalTokens):
        return given
    if given is not None:
        return given_tokens(model, given)
    return find_refusal_tokens(model, split.harmful_train, split.harmless_train, judge=judge)


def _position_labels(model: ChatModel, prompt: str, positions: Sequence[int]) -> list[str]:
    ids = model.token_ids([prompt])[0]
    return [model.tokenizer.decode([ids[p]]) if -p <= len(ids) else "" for p in positions]
