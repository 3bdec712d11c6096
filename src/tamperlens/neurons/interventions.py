"""Take weights or ranks out of a model inside a `with` block; afterwards every bit is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from tamperlens.base.masks import WeightMask
from tamperlens.base.matched import matched_random
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens_hooks.effective import merged_weight
from tamperlens_hooks.weights import zeroed_entries


@contextmanager
def zeroed(model: ModelLike, mask: WeightMask) -> Iterator[ChatModel]:
    """Set the weights of a mask to zero.

    With an adapter attached it is the merged weight W0 + sBA that becomes zero.

    Args:
        model: changed inside the block only, where it is also what the block is given.
        mask: of this model.

    Raises:
        InputError: the mask was made for another model.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons
        >>> model = tamperlens.load('organism')
        >>> with neurons.zeroed(model, neurons.random(model, seed=0).top(0.01)) as changed:
        ...     answer = changed.generate(['Name a tree.'], max_new_tokens=4)
        >>> len(answer)
        1
    """
    model = as_chat_model(model)
    mask.check(model)
    with zeroed_entries(model, mask):
        yield model


def control(model: ModelLike, mask: WeightMask, *, seed: int, bins: int = 20) -> WeightMask:
    """A random set with the same count per projection and per bin of |w|, outside `mask` where possible.

    Args:
        model: whose weights are matched (merged ones with an adapter).
        mask: the set to match.
        seed: of the draw.
        bins: equal-count bins of |w| inside each projection.
    """
    model = as_chat_model(model)
    parts = {part.parameter: part for part in model.anatomy.projections()}

    def weight(name: str) -> Tensor:
        return merged_weight(model.module, parts[name])

    return matched_random(mask, weight, seed=seed, bins=bins)
