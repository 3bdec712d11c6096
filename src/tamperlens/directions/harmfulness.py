"""The harmfulness direction, read where the instruction ends, beside the refusal direction behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import ZERO, split_prompts
from tamperlens.directions.direction import Direction
from tamperlens.directions.distances import Distance, distance
from tamperlens.directions.finding import direction_at, split_of
from tamperlens.directions.geometry import auroc, d_prime
from tamperlens.directions.nulls import activations
from tamperlens.directions.selection import SelectionRule
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import as_prompts, post_instruction_tokens
from tamperlens.rates.completions import Prompts

DEFINITION = (
    "difference of mean block inputs (resid_pre), harmful − harmless, at the last token of the instruction "
    "(t_inst of arXiv 2507.11878), means in float64; {how}"
)


@dataclass(frozen=True)
class HarmfulnessAndRefusal(Result):
    """Two directions of one model.

    Attributes:
        harmfulness: read at the last token of the instruction.
        refusal: read behind the instruction.
        apart: their distance; `reason` says that they were read at different places.
    """

    harmfulness: Direction
    refusal: Direction
    apart: Distance

    def summary(self) -> str:
        """Cosine of the two directions."""
        return f"Harmfulness and refusal directions: {self.apart.summary()}"


def instruction_position(model: ModelLike) -> int:
    """Position of the instruction's last token, negative from the end: right before the template's tokens."""
    model = as_chat_model(model)
    return -len(post_instruction_tokens(model.tokenizer, fmt=model.chat_format)) - 1


def find_harmfulness_direction(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    *,
    layer: int | None = None,
    n_train: int = 128,
    n_val: int = 32,
    seed: int = 0,
    rule: SelectionRule | None = None,
    cache: ActivationCache | None = None,
) -> Direction:
    """What the model holds of a request's harm before it turns to its answer (arXiv 2507.11878).

    There the model's belief that a request is harmful shows at the last token of the instruction, its
    decision to refuse at the last token of the template behind it. The layer, when none is given, is the one
    below 0.8 L where validation prompts are best told apart: greatest AUROC, then greatest d′. (This choice
    is ours. A direction by which a model knows harm need not make it refuse, so the causal filters of
    `find_direction` do not apply.)

    Args:
        model: any chat model.
        harmful: harmful prompts, n_train + n_val distinct ones at least.
        harmless: harmless prompts, likewise.
        layer: block whose input is read.
        n_train: prompts per kind for the means.
        n_val: prompts per kind for the choice of layer.
        seed: of the split, as in `find_direction`.
        rule: whose `max_layer` bounds the layers.
        cache: where activations are kept between calls.

    Raises:
        InputError: too few prompts, prompts in both sets, or a layer that does not exist.
        NumericsError: activations are NaN or infinite.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    split = split_prompts(harmful, harmless, n_train, n_val, seed)
    position = instruction_position(model)
    how = "layer given"
    if layer is None:
        sides = [
            activations(model, prompts, position, cache=cache)
            for prompts in (split.harmful_train, split.harmless_train, split.harmful_val, split.harmless_val)
        ]
        rule = rule or SelectionRule()
        allowed = [at for at in range(model.n_layers) if not rule.layer_objection(at, model.n_layers)]
        layer = best_layer(sides, allowed)
        how = (
            f"layer below {rule.max_layer:g} L (as in the {rule.layer_rule}) with the greatest AUROC, then "
            "d′, on validation prompts"
        )
    found = direction_at(model, split.harmful_train, split.harmless_train, layer, position)
    return dataclasses.replace(
        found,
        n_val=(n_val, n_val),
        seed=seed,
        harmful_sha256=split.harmful_sha256,
        harmless_sha256=split.harmless_sha256,
        definition=DEFINITION.format(how=how),
    )


def harmfulness_and_refusal(
    model: ModelLike,
    refusal: Direction,
    harmful: Prompts,
    harmless: Prompts,
    *,
    same_layer: bool = False,
    cache: ActivationCache | None = None,
) -> HarmfulnessAndRefusal:
    """The harmfulness direction beside a refusal direction of the same model, prompts and split.

    Args:
        model: the model that `refusal` was found in.
        refusal: what `find_direction` gave.
        harmful: the harmful prompts that it was given.
        harmless: the harmless prompts that it was given.
        same_layer: read harmfulness at the layer of `refusal` instead of its own best one.
        cache: where activations are kept between calls.

    Raises:
        InputError: `refusal` was not selected (it has no validation prompts), or other prompts than its own.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    split_of(refusal, harmful, harmless)
    found = find_harmfulness_direction(
        model,
        harmful,
        harmless,
        layer=refusal.layer if same_layer else None,
        n_train=refusal.n_train[0],
        n_val=refusal.n_val[0],
        seed=refusal.seed,
        cache=cache,
    )
    return HarmfulnessAndRefusal(found, refusal, distance(refusal, found, allow_unequal=True))


def best_layer(sides: Sequence[Float64[Tensor, "layer _ d_model"]], layers: Sequence[int]) -> int:
    """The layer where validation prompts are best told apart by the training prompts' difference of means.

    Args:
        sides: activations of harmful and harmless training, then harmful and harmless validation prompts.
        layers: to choose from; of equals the first.

    Raises:
        InputError: none of the layers has means that differ.
    """
    ranked = []
    for layer in layers:
        bad, good, bad_val, good_val = (rows[layer] for rows in sides)
        vector = bad.mean(0) - good.mean(0)
        if float(vector.norm()) <= ZERO * max(float(bad.mean(0).norm()), float(good.mean(0).norm())):
            continue
        high, low = bad_val @ vector, good_val @ vector
        spread = d_prime(high, low)
        ranked.append((auroc(high, low), spread if spread == spread else -torch.inf, -layer))
    if not ranked:
        raise InputError("harmful and harmless means differ at none of the layers; look at the prompts")
    return -max(ranked)[2]
