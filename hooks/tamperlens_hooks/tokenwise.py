"""Which hooks treat every token alone, so that a sequence may be run in pieces."""

from __future__ import annotations

from torch import nn

# What these packages hook belongs to the model (a norm made anew, an input that asks for gradients).
_OF_THE_MODEL = ("accelerate", "bitsandbytes", "peft", "torch", "transformers")


def tokenwise(module: nn.Module) -> bool:
    """Whether the hooks that are on a module's parts now treat every token alone, as far as one can tell.

    Those of `ablate_direction`, `add_direction` and of heads set to zero or to one value do. Reads
    (`capture`), patches with a value per position and hooks of other origin may not. Global hooks of torch
    (profilers) do not count.
    """
    return all(
        getattr(hook, "tokenwise", False)
        or str(getattr(hook, "__module__", "")).partition(".")[0] in _OF_THE_MODEL
        for part in module.modules()
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
    )
