"""Hand a model to TransformerLens 4: same parameters, other hooks, and the original left as it was."""

from __future__ import annotations

import copy
import os
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from tamperlens_hooks._calling import HasModule, module_and_anatomy
from tamperlens_hooks._modules import base_layer, device_of, sharing_copy
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError

__all__ = ["to_transformer_lens"]


def to_transformer_lens(
    model: nn.Module | HasModule, *, tokenizer: PreTrainedTokenizerBase | None = None, name: str = "local"
) -> object:
    """A `transformer_lens` TransformerBridge around a model, for `patching`, `tools.analysis` and the rest.

    Booting the bridge renames modules, switches to eager attention and breaks `save_pretrained`; so it is
    booted on a copy of the modules that shares every parameter's memory, and the model handed in stays as it
    is. What the bridge takes out of fused weights (GPT-NeoX q, k and v, whose rows are interleaved) is a copy
    of those rows, and `bridge.enable_compatibility_mode()` puts folded weights into the bridge alone. Its
    numbers are those of eager attention: about 1e-6 away in fp32.

    The tokenizer is copied. Text is read as it stands (`cfg.default_prepend_bos` is off): write prompts with
    `model.render`, or pass token ids.

    Args:
        model: a `ChatModel`, or a transformers model, PEFT-wrapped or not.
        tokenizer: of the model; taken from a ChatModel.
        name: what the bridge calls the model.

    Returns:
        A TransformerBridge in eval mode.

    Raises:
        HookError: no tokenizer, or a LoRA on a fused projection, which the bridge would drop in silence.
    """
    tokenizer = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
    if tokenizer is None:
        raise HookError("TransformerLens needs the tokenizer; pass tokenizer=, or a ChatModel")
    module, anatomy = module_and_anatomy(model)
    _refuse_fused_adapters(module, anatomy)
    for variable, value in (("WANDB_MODE", "disabled"), ("DO_NOT_TRACK", "1")):
        os.environ.setdefault(variable, value)  # transformer_lens imports wandb
    # From its own module: the package's top level costs seconds more.
    from transformer_lens.model_bridge import TransformerBridge

    shell: Any = sharing_copy(module)
    # The copy's own configuration; it names no architecture after `from_config`.
    shell.config.architectures = [type(module).__name__]
    reader = copy.deepcopy(tokenizer)
    # With this flag the bridge takes the tokenizer as it is. Without, it reads it anew from the hub.
    reader.init_kwargs.update(name_or_path=name, add_bos_token=True)
    weight = next(parameter for parameter in module.parameters() if parameter.is_floating_point())
    bridge = TransformerBridge.boot_transformers(
        name,
        hf_model=shell.eval(),
        tokenizer=reader,
        device=device_of(module, weight.device),
        dtype=weight.dtype,
    )
    bridge.cfg.default_prepend_bos = False
    return bridge.eval()


def _refuse_fused_adapters(module: nn.Module, anatomy: Anatomy) -> None:
    """Refuse adapters on modules that hold several maps; the bridge splits those by the base weight alone."""
    sharing: dict[str, list[str]] = {}
    for part in anatomy.projections():
        sharing.setdefault(part.module, []).append(part.name)
    for path, names in sharing.items():
        layer = module.get_submodule(path)
        if len(names) > 1 and layer is not base_layer(layer):
            raise HookError(
                f"{path} holds {', '.join(names)} in one weight and carries an adapter, which "
                "TransformerLens drops in silence when it splits that weight; merge the adapter first "
                "(tuned.merged_state_dict(), or PEFT's merge_and_unload on a copy)"
            )
