"""Small helpers around live modules: wrappers, hidden states in calls, hooks."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tamperlens_hooks._threads import alone
from tamperlens_hooks.errors import HookError, UnsupportedModelError


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside PEFT, DataParallel or torch.compile wrappers.

    The adapter layers of a PEFT model stay inside and keep working; only the outer shell is taken off.

    Raises:
        UnsupportedModelError: a prompt-learning adapter, whose virtual tokens live in the shell.
    """
    peft: Any = sys.modules.get("peft")  # a PEFT model can only exist when peft has been imported
    while True:
        if peft is not None and isinstance(model, peft.PeftModel):
            config = model.active_peft_config
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            if config.is_prompt_learning or kind in ("ADAPTION_PROMPT", "SHADOW"):
                raise UnsupportedModelError(
                    f"not supported yet: the prompt-learning adapter {model.active_adapter!r} ({kind}), "
                    "which changes what blocks read, not weights; use an adapter on the weights, such as LoRA"
                )
            model = model.get_base_model()
        elif peft is not None and isinstance(
            model, (peft.PeftMixedModel, peft.tuners.tuners_utils.BaseTuner)
        ):
            model = model.get_base_model() if hasattr(model, "get_base_model") else model.model
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast("nn.Module", model._orig_mod)
        else:
            return model


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy whose modules are new and whose weights and buffers are the same memory.

    Submodules, flags, hooks and `requires_grad` are the copy's own; in-place writes to a weight or buffer
    reach both. Hooks that are on the module now are copied with it.
    """
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        # Same storage, own requires_grad and grad. Subclasses (4-bit weights) carry more state: shared as
        # they are.
        memo[id(parameter)] = (
            nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
            if type(parameter) is nn.Parameter
            else parameter
        )
    return copy.deepcopy(module, memo)


def running(module: nn.Module) -> nn.Module:
    """The module that computes inside PEFT's wrappers of whole modules, or the module itself.

    `modules_to_save` keeps a trained copy beside the original; the active adapter decides which of them runs.
    """
    inner: Any = module._modules
    wrapper: Any = module
    saved, tokens = inner.get("modules_to_save"), inner.get("token_adapter")
    if saved is None and tokens is None:
        return module
    active = list(wrapper.active_adapters)
    if wrapper.disable_adapters or not active or any(name not in wrapper._adapters for name in active):
        found: nn.Module = wrapper.original_module
    else:
        found = tokens if saved is None else saved[active[0]]
    return running(found)


def original(model: nn.Module, path: str) -> nn.Module:
    """The module at a path as it was before any adapter; wrappers on the way are looked through too.

    Raises:
        AttributeError: there is none.
    """
    found = base_layer(model)
    for name in path.split(".") if path else ():
        child = found._modules.get(name)
        if child is None:
            raise AttributeError(path)
        found = base_layer(child)
    return found


def base_layer(module: nn.Module) -> nn.Module:
    """The original layer inside an adapter layer (`base_layer`, `original_module`), or the module itself."""
    for name in ("base_layer", "original_module", "token_adapter"):
        inner = module._modules.get(name)
        if inner is not None:
            return base_layer(inner)
    return module


def device_of(module: nn.Module, default: torch.device) -> torch.device:
    """Where to send a module's inputs; `default` for modules without parameters or with offloaded ones."""
    device = next((p.device for p in base_layer(module).parameters()), default)
    return default if device.type == "meta" else device


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a block or projection was called with, positionally or by name."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    found = kwargs.get("hidden_states")
    if not isinstance(found, Tensor):
        raise HookError("a hooked module was called without hidden states as its first argument")
    return found


def with_first_tensor(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states."""
    if args and isinstance(args[0], Tensor):
        return (value, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": value}


def output_tensor(output: Any) -> Tensor:
    """The hidden states among a module's outputs: the tensor itself or the first of a tuple."""
    found = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(found, Tensor):
        raise HookError(f"a hooked module returned {type(output).__name__}, not hidden states")
    return found


def with_output_tensor(output: Any, value: Tensor) -> Any:
    """The same outputs with other hidden states."""
    return (value, *output[1:]) if isinstance(output, (tuple, list)) else value


def attach(
    module: nn.Module, at_input: bool, see: Callable[[Tensor], Tensor | None], *, tokenwise: bool = False
) -> Any:
    """Hook a module's first input or its output; a tensor that `see` returns replaces what it saw.

    `tokenwise` says that `see` treats every token alone (see `tokenwise.py`).
    """
    # partials of module-level functions: a closure would be type-checked anew for every hook in tests
    hook: Any = functools.partial(_before if at_input else _after, see)
    hook.tokenwise = tokenwise
    if at_input:
        return module.register_forward_pre_hook(hook, with_kwargs=True)
    return module.register_forward_hook(hook)


def _before(
    see: Callable[[Tensor], Tensor | None], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    changed = see(first_tensor(args, kwargs))
    return None if changed is None else with_first_tensor(args, kwargs, changed)


def _after(see: Callable[[Tensor], Tensor | None], module: nn.Module, args: Any, output: Any) -> Any:
    changed = see(output_tensor(output))
    return None if changed is None else with_output_tensor(output, changed)


@contextmanager
def hooks_attached(handles: list[Any]) -> Iterator[None]:
    """Remove the handles on the way out, whatever happened inside; other threads wait so long."""
    with alone:
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def in_backward() -> bool:
    """True while autograd runs backward: gradient checkpointing then repeats the forward pass."""
    current = getattr(torch._C, "_current_graph_task_id", None)
    return current is not None and current() != -1
