"""A sha256 that says which weights and which config an artefact was made with.

Models of up to `WHOLE` bytes are hashed completely. Of larger ones each tensor gives its name, shape, dtype
and `SAMPLE` elements at even strides (first and last included): seconds for 7 B, blind to a change that
touches none of them, which LoRA, full fine-tuning, quantisation and another checkpoint all do. Device, tying
by name, `requires_grad`, token-id settings and PEFT's renaming do not matter. With an adapter attached the
fingerprint is sha256(base fingerprint, adapter weights and settings); a weight of the base that the adapter
overwrote (a bias, an embedding) counts as the adapter's, and the base keeps its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tamperlens_hooks import unwrap

WHOLE = 2**28
SAMPLE = 2**14

# Settings that change no number in a forward pass of given tokens.
_BOOKKEEPING = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "is_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


@dataclass(frozen=True)
class Originals:
    """The base's own tensors, by name, of those that an adapter overwrote in its copy."""

    tensors: dict[str, Tensor]

    def __deepcopy__(self, memo: object) -> Originals:
        return self  # shared by copies, as the base's weights are


def fingerprint_of(module: nn.Module) -> str:
    """Hex sha256 over a module's weights and config, always computed anew.

    Weights that accelerate offloaded are brought in one submodule at a time.
    """
    base = base_fingerprint_of(module)
    overwritten = _originals(module)
    adapter = {
        name: (owner, key) for name, owner, key, added in _tensors(module) if added or name in overwritten
    }
    settings = _adapter_settings(module)
    if not adapter and not settings:
        return base
    return hashlib.sha256(
        (base + _digest(adapter, json.dumps(settings, sort_keys=True))).encode()
    ).hexdigest()


def base_fingerprint_of(module: nn.Module) -> str:
    """The fingerprint that the module would have without its adapters."""
    inner: Any = unwrap(module)
    header = json.dumps(_config(inner.config.to_dict()), sort_keys=True, default=str)
    return _digest(base_tensors(module), header)


def base_tensors(module: nn.Module) -> dict[str, tuple[Any, str]]:
    """Owner and attribute of each tensor of the model without its adapters, by name; tied ones once."""
    found: dict[str, tuple[Any, str]] = {
        name: (owner, key) for name, owner, key, added in _tensors(module) if not added
    }
    for name, tensor in _originals(module).items():
        found[name] = (SimpleNamespace(tensor=tensor), "tensor")
    return found


def keep_originals(inner: nn.Module, originals: Originals) -> None:
    """Note on a module inside PEFT which tensors of the base its adapter overwrote."""
    inner.__dict__["_tamperlens_originals"] = originals


def _originals(module: nn.Module) -> dict[str, Tensor]:
    held = unwrap(module).__dict__.get("_tamperlens_originals")
    # Merged or unloaded, the module is a model of its own.
    return held.tensors if isinstance(held, Originals) and _adapter_modules(module) else {}


def versions(module: nn.Module) -> tuple[object, ...]:
    """Changes whenever a weight is updated in place or replaced (writes through `.data` go unseen)."""
    state: list[object] = [
        (id(tensor), 0 if tensor.is_inference() else tensor._version)
        for tensor in (*module.parameters(), *module.buffers())
    ]
    state.append(json.dumps(_adapter_settings(module), sort_keys=True))
    return tuple(state)


def _tensors(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, bool]]:
    """(name in the unwrapped model, owner, attribute, is it an adapter's); tied tensors once."""
    from_adapter = _adapter_modules(module)
    inner = unwrap(module)
    places = {id(owner): path for path, owner in inner.named_modules()}
    seen: set[int] = set()
    found = []
    for outer_path, owner in module.named_modules():
        for key, tensor in {**owner._parameters, **owner._buffers}.items():
            if tensor is None or key in owner._non_persistent_buffers_set:
                continue
            # What lies outside the wrapped model (a prefix encoder) was added by the adapter too.
            outside = id(owner) not in places
            name = f"{places.get(id(owner), outer_path)}.{key}".lstrip(".")
            for shell in (*_WRAPPED, "token_adapter"):
                name = name.replace(f".{shell}.", ".")
            found.append((name, owner, key, tensor, outside or id(owner) in from_adapter))
    for name, owner, key, tensor, belongs in sorted(found, key=lambda item: item[0]):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, owner, key, belongs


_WRAPPED = ("base_layer", "original_module")


def _adapter_modules(module: nn.Module) -> set[int]:
    """Ids of all submodules that an adapter added: PEFT's layers and what lies beside the one they wrap."""
    inside: set[int] = set()

    def add(part: nn.Module) -> None:
        inside.add(id(part))
        for name, extra in part._modules.items():
            if name not in _WRAPPED and extra is not None:
                add(extra)

    for _, part in module.named_modules():
        wraps = any(name in part._modules for name in _WRAPPED)
        if wraps and (hasattr(part, "adapter_layer_names") or "original_module" in part._modules):
            add(part)
    return inside


def _adapter_settings(module: nn.Module) -> dict[str, Any]:
    """Scale and state of each adapted layer: the same factors at another scale are another model."""
    settings: dict[str, Any] = {}
    for path, part in unwrap(module).named_modules():
        if hasattr(part, "adapter_layer_names") and hasattr(part, "merged_adapters"):
            scaling = getattr(part, "scaling", None)
            scaling = scaling if isinstance(scaling, dict) else {}
            settings[path] = [
                {name: float(value) for name, value in sorted(scaling.items())},
                sorted(part.active_adapters),
                bool(part.disable_adapters),
                sorted(part.merged_adapters),
            ]
            # The same factors with entries frozen are another model too.
            frozen = getattr(part, "tamperlens_frozen", None)
            if frozen is not None:
                settings[path].append(frozen.digest)
    return settings


def _digest(tensors: dict[str, tuple[Any, str]], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    held = [getattr(owner, key) for owner, key in tensors.values()]
    whole = sum(tensor.numel() * tensor.element_size() for tensor in held) <= WHOLE
    for name in sorted(tensors):
        owner, key = tensors[name]
        with _present(owner):
            tensor: Tensor = getattr(owner, key).detach()
            digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
            if not tensor.is_meta:
                digest.update(_bytes(tensor, whole))
    return digest.hexdigest()


def _bytes(tensor: Tensor, whole: bool) -> bytes:
    flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.contiguous().reshape(-1)
    if not whole and flat.numel() > SAMPLE:
        # Integer arithmetic: linspace in floating point would round differently across devices.
        picks = torch.arange(SAMPLE, device=flat.device) * (flat.numel() - 1) // (SAMPLE - 1)
        flat = flat[picks]
    return bytes(flat.view(torch.uint8).cpu().numpy().data)


def _present(owner: Any) -> AbstractContextManager[Any]:
    """Bring offloaded weights of one submodule in for the length of the body."""
    if not hasattr(owner, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device, has_offloaded_params

    if not has_offloaded_params(owner):
        return nullcontext()
    manager: AbstractContextManager[Any] = align_module_device(owner, "cpu")
    return manager


def _config(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _config(item) for key, item in value.items() if key not in _BOOKKEEPING}
    if isinstance(value, (list, tuple)):
        return [_config(item) for item in value]
    return value
