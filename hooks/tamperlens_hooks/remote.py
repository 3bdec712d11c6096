"""The requests of `trace` through nnsight: in this process, by its remote path, or on NDIF.

nnsight puts `.save` on every object and patches `Tensor.backward` when it is imported, so it is imported
here only, when it is asked for.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from torch import Tensor, nn
from transformers import AutoTokenizer

from tamperlens_hooks._modules import base_layer, sharing_copy
from tamperlens_hooks._request import Request, Trace, assemble, check_metric
from tamperlens_hooks._sites import place
from tamperlens_hooks.anatomy import Anatomy, describe
from tamperlens_hooks.errors import HookError

__all__ = ["HubModel", "from_hub"]

# How far a site is from the block's input in the order of a forward pass; nnsight reads in that order.
_ORDER = {"resid_pre": 0, "head_z": 1, "attn_out": 2, "mlp_out": 3, "resid_post": 4, "final": 5}
_EDITED = ("resid_pre", "attn_out", "mlp_out")  # where `ablate_direction` removes
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, eq=False)
class HubModel:
    """A model that is known by its hub id, its structure at hand and its weights elsewhere.

    Attributes:
        name: the hub id.
        module: the transformers model; on the meta device until a local trace needs its weights.
        anatomy: by structure; not checked by numbers.
        tokenizer: its tokenizer.
        engine: nnsight's model.
    """

    name: str
    module: nn.Module
    anatomy: Anatomy
    tokenizer: object
    engine: object


def from_hub(name: str, *, revision: str | None = None) -> HubModel:
    """A model by hub id (or folder) for `trace(..., backend="nnsight")`, without loading its weights.

    Args:
        name: hub id; for `remote=True` one that NDIF serves.
        revision: branch, tag or commit.

    Raises:
        HookError: there is no such model.
    """
    make = _nnsight()
    try:
        # A server files a model under its task, as the hub gives it; offline nothing can be asked, or served.
        task = {"task": "text-generation"} if is_offline_mode() or os.path.isdir(name) else {}
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        engine = make(name, revision=revision, tokenizer=tokenizer, **task)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HookError(f"nnsight cannot make {name!r} from the hub: {first}") from error
    return HubModel(name, engine._module, describe(engine._module), engine.tokenizer, engine)


def run(
    model: Any, module: nn.Module, batch: Mapping[str, Tensor], request: Request, remote: bool | str
) -> Trace:
    """Carry out a request with nnsight; see `trace`."""
    engine = _engine(model, module, remote)
    columns = None if request.columns is None else list(request.columns)
    keys, found, slopes, logits, value = _traced(
        engine, dict(batch), _steps(request), request.metric, columns, remote
    )
    check_metric(value, len(logits))
    wanted = [(site, layer) for _, _, site, layer in request.places()]
    by_key = dict(zip(keys, range(len(keys)), strict=True))
    order = [by_key[key] for key in wanted]
    ordered = [slopes[i] for i in order] if slopes else []
    return assemble(request, wanted, [found[i] for i in order], ordered, logits, value, "nnsight")


def _traced(
    engine: Any,
    batch: dict[str, Tensor],
    steps: list[tuple[Any, ...]],
    metric: Any,
    columns: list[int] | None,
    remote: bool | str,
) -> tuple[list[Any], list[Tensor], list[Tensor], Tensor, Tensor | None]:
    """Keys of the reads in forward order, their values, their gradients, last logits, the metric.

    What stands inside the block travels to the server as source with the plain values that it names, so it
    calls nothing of this package.
    """
    import nnsight

    differentiate = metric is not None and any(key is not None for *_, key in steps)
    value: Any = None
    keys = [key for *_, key in steps if key is not None]
    with engine.trace(remote=remote, use_cache=False, **batch):
        found, slopes, value = [], [], None
        with torch.set_grad_enabled(differentiate):
            for path, at_input, heads, unit, key in steps:
                envoy = engine.get(path)
                whole = envoy.input if at_input else envoy.output
                x = whole[0] if isinstance(whole, (tuple, list)) else whole
                before = x
                if heads:
                    x = x.clone()
                    for start, stop, z in heads:
                        x[..., start:stop] = z.to(x)
                if unit is not None:
                    wide = torch.promote_types(x.dtype, torch.float32)
                    r = unit.to(x.device, wide)
                    x = (x.to(wide) - (x.to(wide) @ r)[..., None] * r).to(x.dtype)
                if differentiate and key is not None and not x.requires_grad:
                    x = x.detach().requires_grad_(True)
                if x is not before:
                    if at_input:
                        envoy.input = x
                    else:
                        envoy.output = (x, *whole[1:]) if isinstance(whole, (tuple, list)) else x
                if key is not None:
                    found.append(x)
            logits = engine.output.logits
            if metric is not None:
                value = metric(logits)
            if differentiate:
                slopes = list(torch.autograd.grad(value.sum(), found))
            last = logits[:, -1].detach()
            value = None if value is None else value.detach()
            # Cut where the model is: only the positions asked for travel back.
            found = [x.detach() if columns is None else x.detach()[:, columns] for x in found]
            slopes = [x if columns is None else x[:, columns] for x in slopes]
        nnsight.save(found)
        nnsight.save(slopes)
        nnsight.save(last)
        nnsight.save(value)
    return keys, found, slopes, last, value


def _steps(request: Request) -> list[tuple[Any, ...]]:
    """Edits and reads in the order of a forward pass: path, at input, [(from, to, z)], direction, key."""
    anatomy = request.anatomy
    keys: set[tuple[str, int]] = {(site, layer) for _, _, site, layer in request.places()}
    touched = set(keys) | {("head_z", layer) for layer, _ in request.values}
    if request.unit is not None:
        touched |= {
            (site, layer)
            for site in ("resid_pre", "attn_out", "mlp_out")
            for layer in range(anatomy.n_layers)
        }
    steps = []
    for site, layer in sorted(
        touched, key=lambda one: (anatomy.n_layers if one[0] == "final" else one[1], _ORDER[one[0]])
    ):
        path, at_input = place(anatomy, site, layer)
        heads = [
            (anatomy.head_slice(head).start, anatomy.head_slice(head).stop, z.detach())
            for (at, head), z in request.values.items()
            if site == "head_z" and at == layer
        ]
        unit = request.unit if site in _EDITED else None
        steps.append((path, at_input, heads, unit, (site, layer) if (site, layer) in keys else None))
    return steps


def _engine(model: Any, module: nn.Module, remote: bool | str) -> Any:
    if isinstance(model, HubModel):
        return model.engine
    if remote and remote != "local":
        return from_hub(_hub_id(model, module)).engine
    tokenizer = getattr(model, "tokenizer", None)
    shell = sharing_copy(module).eval()  # nnsight wraps forwards and sets up its tokenizer
    for parameter in shell.parameters():
        parameter.requires_grad_(False)
    if tokenizer is not None:
        return _nnsight()(shell, tokenizer=copy.deepcopy(tokenizer))
    if remote:
        raise HookError("the remote path needs the tokenizer too: pass a ChatModel, not a bare module")
    import nnsight

    return nnsight.NNsight(shell)


def _hub_id(model: Any, module: nn.Module) -> str:
    """The hub id that a model in memory was loaded from.

    Raises:
        HookError: there is none, or the model in memory is not what the hub holds.
    """
    label = getattr(model, "name", type(module).__name__)
    how = 'from_hub("organisation/model") makes one that NDIF can run'
    if any(layer is not base_layer(layer) for layer in module.modules()):
        raise HookError(f"{label} carries an adapter that NDIF does not have; {how}, without it")
    name = str(getattr(getattr(module, "config", None), "_name_or_path", "") or "")
    if not _HUB_ID.fullmatch(name) or os.path.exists(name):
        raise HookError(
            f"{label} has no hub id, so it cannot run remotely: NDIF knows models by their hub id; {how}"
        )
    return name


def _nnsight() -> Any:
    from nnsight.modeling.transformers import TransformersModel

    return TransformersModel
