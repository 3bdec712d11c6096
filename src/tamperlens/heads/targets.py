"""What heads are scored for: a projection on a direction, the log-odds of a refusal, or your own metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.deprecation import renamed_arguments
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.logits import refusal_metric
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.models.generation import forward_last
from tamperlens_hooks import HasVector, capture

Inputs = dict[str, Tensor]
Metric = Callable[..., Tensor]


@runtime_checkable
class HasIds(Protocol):
    """Anything with token ids, such as what `find_refusal_tokens` returns."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids."""
        ...


@dataclass(frozen=True)
class Target:
    """One number per example, as a function of one forward pass.

    Attributes:
        words: what it is.
        layer: the block whose input is read, `n_layers` for the last block's output; None for logits.
        position: token, counted from the end of the prompt.
        vector: unit direction to project on, where `layer` is given.
        metric: function of the last position's logits [batch, vocab], where `layer` is None.
        tokens: refusal tokens, where the metric is their log-odds.
        labels: one per example [n, ...], the metric's second argument; None for metrics of logits alone.
    """

    words: str
    layer: int | None = None
    position: int = -1
    vector: Tensor | None = None
    metric: Metric | None = None
    tokens: tuple[int, ...] = ()
    labels: Tensor | None = None

    def read(self, model: ChatModel, inputs: Inputs, copies: int = 1) -> Float[Tensor, " batch"]:
        """Run the model once; gradients flow where they are enabled.

        Args:
            model: the model.
            inputs: a batch.
            copies: of the same prompts one after the other; a metric sees one of them at a time.

        Raises:
            InputError: the metric does not return one number per example.
            NumericsError: it is NaN or infinite.
        """
        ids, mask, positions = (inputs[key] for key in ("input_ids", "attention_mask", "position_ids"))
        if self.layer is None:
            assert self.metric is not None
            logits = forward_last(model.module, ids, mask, positions, use_cache=False)
            if self.labels is None:
                seen = [self.metric(one) for one in logits.chunk(copies)]
                found = torch.cat(seen) if len(seen) > 1 and all(map(torch.is_tensor, seen)) else seen[0]
            else:
                found = self.metric(logits, self.labels.to(logits.device)[inputs["rows"][:, 0]])
        else:
            assert self.vector is not None
            last = self.layer == model.n_layers
            site, at = ("resid_post", self.layer - 1) if last else ("resid_pre", self.layer)
            with capture(model, sites=[site], layers=[at], detach=False) as tape:  # type: ignore[list-item]
                forward_last(model.module, ids, mask, positions, use_cache=False)
            stream = tape.raw(site)[0][:, self.position]
            wide = torch.promote_types(stream.dtype, torch.float32)
            found = stream.to(wide) @ self.vector.to(stream.device, wide)
        return _checked(found, len(ids), self.words)


TargetLike = str | Callable[..., Tensor] | Target


@renamed_arguments(tokens="refusal_tokens")
def resolve_target(
    model: ModelLike,
    target: TargetLike,
    *,
    direction: Tensor | HasVector | None = None,
    layer: int | None = None,
    position: int | None = None,
    refusal_tokens: Sequence[int] | HasIds | None = None,
    labels: object = None,
) -> Target:
    """The `Target` that a user's words mean; see `heads.attribute`.

    Raises:
        InputError: unknown, or what it needs is missing or does not fit the model.
    """
    model = as_chat_model(model)
    if isinstance(target, Target):
        return target
    if labels is not None and not callable(target):
        raise InputError("labels= are for a metric; give metric=, a function of (logits, labels)")
    if target == "refusal_direction":
        return _direction(model, direction, layer, position)
    if target == "refusal_tokens":
        given = refusal_tokens.ids if isinstance(refusal_tokens, HasIds) else refusal_tokens
        ids = tuple(int(token) for token in given or ())
        if not ids:
            raise InputError(
                "target 'refusal_tokens' needs refusal_tokens=, ids or what find_refusal_tokens gave"
            )
        if not 0 <= min(ids) <= max(ids) < model.anatomy.d_vocab:
            raise InputError(f"refusal tokens {list(ids)} must be ids below {model.anatomy.d_vocab}")
        words = f"log-odds of {len(ids)} refusal tokens as first token of the answer"
        return Target(words, metric=_LogOdds(ids), tokens=ids)
    if callable(target):
        words = f"metric {getattr(target, '__name__', type(target).__name__)}"
        return Target(words, metric=target, labels=None if labels is None else torch.as_tensor(labels))
    raise InputError(
        f"target is {target!r}; it must be 'refusal_direction', 'refusal_tokens' or a function of the last "
        "position's logits [batch, vocab] that returns one number per example"
    )


def _direction(model: ChatModel, direction: Any, layer: int | None, position: int | None) -> Target:
    if direction is None:
        raise InputError(
            "target 'refusal_direction' needs direction=, a vector with layer= or what find_direction returns"
        )
    vector = getattr(direction, "vector", direction)
    at = getattr(direction, "layer", None) if layer is None else layer
    place = getattr(direction, "position", -1) if position is None else position
    if not isinstance(vector, Tensor) or vector.shape != (model.d_model,):
        got = list(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
        raise InputError(f"the direction must be a vector of {model.d_model} numbers; got {got}")
    norm = vector.double().norm()
    if not bool(torch.isfinite(norm)) or norm == 0:
        raise InputError("the direction is zero or not finite; find one that is defined for this model")
    if at is None or not 1 <= int(at) <= model.n_layers:
        raise InputError(
            f"the direction is read at the input of block {at}; give layer= from 1 (where only block 0 "
            f"lies below) to {model.n_layers} (the last block's output)"
        )
    if place >= 0:
        raise InputError(f"position counts from the end of the prompt and must be negative; got {place}")
    unit = (vector.double() / norm).float().cpu()
    words = f"residual stream at the input of block {at}, position {place}, along the direction"
    return Target(words, layer=int(at), position=int(place), vector=unit)


class _LogOdds:
    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def __call__(self, logits: Tensor) -> Tensor:
        return refusal_metric(logits, self.ids)


def _checked(found: Any, rows: int, words: str) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != (rows,):
        got = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"{words} must give one number per example, shape [{rows}]; got {got}. It is called with the "
            "last position's logits [batch, vocab]: do not average over the batch"
        )
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{words} is NaN or infinite at prompt {int((~torch.isfinite(found)).nonzero()[0])}"
        )
    return found
