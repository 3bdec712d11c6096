"""Everything about a model that reading or editing it must not change."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()


def module_print(model: nn.Module) -> dict[str, Any]:
    """Parameters, buffers, keys, attention implementation, flags, hooks and random state."""
    config: Any = getattr(model, "config", None)
    return {
        "state": {name: digest(value) for name, value in model.state_dict().items()},
        "parameters": {
            name: (id(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad is None, digest(p))
            for name, p in model.named_parameters(remove_duplicate=False)
        },
        "buffers": {name: digest(value) for name, value in model.named_buffers(remove_duplicate=False)},
        "modules": {name: (id(m), type(m), m.training) for name, m in model.named_modules()},
        "instance attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "hooks": {
            name: [
                len(found)
                for key, found in sorted(vars(m).items())
                if "hooks" in key and hasattr(found, "__len__")
            ]
            for name, m in model.named_modules()
        },
        "attention": getattr(config, "_attn_implementation", None),
        "config": None if config is None else config.to_json_string(use_diff=False),
        # Python's own generator is left out: beartype, which only tests switch on, draws from it
        "random": (digest(torch.get_rng_state()), str(np.random.get_state())),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what changed; empty when nothing did."""
    return [key for key in before if before[key] != after[key]]
