"""Weights and biases as they are stored, and the same in logical orientation: y = W x + b."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tamperlens_hooks._modules import original, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.quantised import decoded


def stored_parameter(model: nn.Module, name: str) -> nn.Parameter:
    """The parameter that is called `name` in the model without adapters.

    Args:
        model: wrapped or not; with an adapter attached the original weight sits in `base_layer`.
        name: such as `Projection.parameter`.

    Raises:
        HookError: no such parameter.
    """
    path, _, leaf = name.rpartition(".")
    try:
        found = getattr(original(unwrap(model), path), leaf)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Parameter):
        raise HookError(f"the model has no parameter {name!r}; was the anatomy made for another model?")
    return found


def logical(stored: Shaped[Tensor, "a b"], projection: Projection) -> Shaped[Tensor, "d_out d_in"]:
    """A projection's part of a matrix shaped like its parameter, in logical orientation."""
    found = stored[projection.index]
    return found.T if projection.transposed else found


def logical_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
    """A projection's own weight W in logical orientation: `y = W x (+ bias)`, whatever the storage.

    GPT-2's Conv1D is transposed, fused weights are cut or gathered. Slices are views of the parameter,
    interleaved rows and decoded 4-bit weights of bitsandbytes are a copy. Adapters do not count; see
    `effective_weight`.

    Raises:
        HookError: the weight is packed in another way, so that it has no entries to show.
    """
    weight: Tensor = stored_parameter(model, projection.parameter)
    if hasattr(weight, "quant_state"):
        weight = decoded(original(unwrap(model), projection.module), projection.parameter)
    if not weight.is_floating_point() or weight.ndim != 2:
        raise HookError(
            f"{projection.parameter} is quantised ({weight.dtype}); load the model without quantisation"
        )
    return logical(weight, projection)


def logical_bias(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out"] | None:
    """A projection's own bias, or None where its module has none. Adapters do not count: `effective_bias`."""
    layer = original(unwrap(model), projection.module)
    bias: Tensor | None = getattr(layer, "bias", None)
    if bias is None:
        return None
    return bias[list(projection.rows) if isinstance(projection.rows, tuple) else projection.rows]
