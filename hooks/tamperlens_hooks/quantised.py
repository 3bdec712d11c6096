"""4-bit weights of bitsandbytes, as in QLoRA: decoded, and left packed as they are."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks.errors import HookError


def is_four_bit(layer: nn.Module) -> bool:
    """Whether a layer's weight is packed by bitsandbytes into 4 bits an entry."""
    return hasattr(getattr(layer, "weight", None), "quant_state")


def decoded(layer: nn.Module, name: str) -> Float[Tensor, "a b"]:
    """What a 4-bit layer multiplies with: a new tensor in the type that it was packed from.

    Args:
        layer: the original layer, without its adapter.
        name: what to call its weight in an error.

    Raises:
        HookError: the weight was packed anew for inference on a CPU.
    """
    from peft.utils.integrations import dequantize_module_weight

    held: Any = layer
    if getattr(held.weight.quant_state, "packing_format_for_cpu", False):
        raise HookError(
            f"{name} was run in evaluation mode on a CPU, where bitsandbytes packs 4-bit weights anew for "
            "inference alone; load the model again and call .train() before it is run"
        )
    made: Tensor = dequantize_module_weight(held)
    return made.detach()
