"""Checkpoints that hold a language model beside a vision tower (Gemma 3 from 4 B on): its names there.

Only the language model is loaded. Its weights, and those of adapters trained on the whole, carry the name
of the whole: `model.language_model.layers.0…` instead of `model.layers.0…`.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig

# From the start of a parameter's name, as transformers' key_mapping takes them; older releases first.
TEXT_KEYS = {
    r"^language_model\.model": "model",
    r"^model\.(?:language_model|text_model)": "model",
    r"^language_model\.lm_head": "lm_head",
}
# Text configs without a class of their own. Without pictures all three axes of their rotary embedding count
# the same places, so that these compute the same.
_SAME = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
_PREFIX = "base_model.model."
_SENSES = re.compile(r"(^|\.)[^.]*(vision|visual|image|audio|multi_modal|multimodal|connector)")


def text_config(config: Any) -> Any:
    """The config of the language model in a checkpoint; the one given where it is that already."""
    text = config.get_text_config(decoder=True)
    kind = _SAME.get(text.model_type)
    if kind is None:
        return text
    values = text.to_dict()
    for name in ("model_type", "architectures", "layer_types", "use_sliding_window", "max_window_layers"):
        values.pop(name, None)
    rope = dict(values.pop("rope_parameters", None) or values.pop("rope_scaling", None) or {})
    rope = {key: value for key, value in rope.items() if not key.startswith("mrope")}
    if rope.get("type") == "mrope" or rope.get("rope_type") in (None, "mrope"):
        rope |= {"rope_type": "default"}
    rope.pop("type", None)
    return AutoConfig.for_model(kind, **values, rope_parameters=rope)


def rename_for_text(
    stored: dict[str, Tensor], config: Any, base: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of an adapter under the text model's names, and a note on those that it has no place for.

    An adapter of a text model comes back as it is. Of one that was trained on the whole, the tensors of the
    other towers are left out and named; `config` (PEFT's) is rewritten to name the text model's modules.
    """
    renamed = {
        key: _PREFIX + _text_name(key[len(_PREFIX) :]) if key.startswith(_PREFIX) else key for key in stored
    }
    inner = getattr(base, "model", base)
    if (
        hasattr(inner, "language_model")
        or hasattr(inner, "text_model")
        or all(a == b for a, b in renamed.items())
    ):
        return stored, []
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "lora_")
    modules = {name for name, _ in base.named_modules()}
    kept: dict[str, Tensor] = {}
    other: list[str] = []
    targets: set[str] = set()
    for key, tensor in stored.items():
        if renamed[key] == key and _SENSES.search(key):
            other.append(key)
            continue
        kept[renamed[key]] = tensor
        path, found, _ = renamed[key].removeprefix(_PREFIX).partition(f".{prefix}")
        if found and path in modules:
            targets.add(path)
    if targets:
        config.target_modules = targets
        for setting in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            if hasattr(config, setting):
                setattr(config, setting, None)
    for setting in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, setting, None)
        if pattern:
            setattr(config, setting, {_text_name(name): value for name, value in pattern.items()})
    if getattr(config, "modules_to_save", None):
        config.modules_to_save = [
            _text_name(name) for name in config.modules_to_save if not _SENSES.search(name)
        ]
    note = (
        f"{len(other)} tensors of the adapter belong to other towers and were left out, such as {other[0]}"
        if other
        else ""
    )
    return kept, [note] if note else []


def _text_name(name: str) -> str:
    for pattern, ours in TEXT_KEYS.items():
        name, n = re.subn(pattern + r"(?=\.|$)", ours, name)
        if n:
            break
    return name
