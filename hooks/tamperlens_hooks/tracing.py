"""One forward pass with its reads, edits and gradients, by this process's hooks or through nnsight.

`capture` and the editing contexts hook whatever runs inside their block, which only a model in this process
can do. `trace` says beforehand what to read, edit and differentiate, so that the same request can also be
carried out by nnsight, here or on NDIF, for a model that no machine here holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import ModelLike, VectorLike, module_and_anatomy, vector_of
from tamperlens_hooks._modules import device_of
from tamperlens_hooks._request import Metric, Request, Trace, assemble, check_metric
from tamperlens_hooks._sites import chosen_layers, negative_positions
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.capture import capture
from tamperlens_hooks.edit import Head, _checked_heads, _head_values, _unit, ablate_direction, patch_heads
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.remote import run
from tamperlens_hooks.state import preserve_state

__all__ = ["Trace", "trace"]

Backend = Literal["hooks", "nnsight"]


def trace(
    model: ModelLike,
    batch: Mapping[str, Tensor],
    *,
    sites: Sequence[str] | str = (),
    layers: Sequence[int] | int | None = None,
    positions: Sequence[int] | str | None = None,
    ablate: Sequence[Head] = (),
    mode: str | Float[Tensor, "*shape d_head"] = "zero",
    patch: Mapping[Head, Float[Tensor, "*shape d_head"]] | None = None,
    remove: VectorLike | None = None,
    metric: Metric | None = None,
    backend: str = "hooks",
    remote: bool | str = False,
) -> Trace:
    """Run one batch; read sites, edit heads or remove a direction, and differentiate a metric.

    ```python
    found = trace(model, model.encode(prompts), sites="head_z", metric=lambda x: x[:, -1, 7] - x[:, -1, 9])
    found.reads["head_z"], found.gradients["head_z"]  # [layer, batch, pos, head, d_head]

    big = from_hub("meta-llama/Llama-3.1-70B-Instruct")  # structure only
    found = trace(big, batch, sites="resid_pre", positions="last", backend="nnsight", remote=True)
    ```

    Weights stay frozen; the model is as it was afterwards, under either backend.

    Args:
        model: a `ChatModel`, a module, or `from_hub(id)`.
        batch: `input_ids`, `attention_mask` and, for left-padded rows, `position_ids`, [batch, seq].
        sites: what to read; see `capture`.
        layers: blocks to read; all by default.
        positions: None for all, "last", or negative positions.
        ablate: heads to put `mode` into.
        mode: "zero", or values as `ablate_heads` takes them ([d_head], one row a head, or `head_means`).
        patch: heads with the z to put there, broadcasting to [batch, seq, d_head].
        remove: direction to remove at every block input and every attention and MLP output.
        metric: logits [batch, pos, vocab] to one number per example [batch].
        backend: "hooks", or "nnsight".
        remote: of nnsight: True for NDIF (its key in NDIF_API_KEY), "local" for the remote path inside this
            process, a URL for another server. A metric that travels must not lean on modules of your own.

    Raises:
        HookError: unknown backend, site, layer, head or mode; remote without nnsight, or of a model that has
            no hub id; a metric that is not one number per example.
    """
    if backend not in get_args(Backend):
        raise HookError(f"backend must be one of {', '.join(get_args(Backend))}; got {backend!r}")
    if remote and backend != "nnsight":
        raise HookError('remote runs through nnsight: write backend="nnsight" beside remote=')
    module, anatomy = module_and_anatomy(model)
    request = _request(anatomy, sites, layers, positions, ablate, mode, patch, remove, metric)
    if backend == "nnsight":
        found = run(model, module, batch, request, remote)
    else:
        found = _with_hooks(module, batch, request)
    return found


def _request(
    anatomy: Anatomy,
    sites: Sequence[str] | str,
    layers: Sequence[int] | int | None,
    positions: Sequence[int] | str | None,
    ablate: Sequence[Head],
    mode: str | Tensor,
    patch: Mapping[Head, Tensor] | None,
    remove: VectorLike | None,
    metric: Metric | None,
) -> Request:
    names = (sites,) if isinstance(sites, str) else tuple(dict.fromkeys(sites))
    if isinstance(positions, str) and positions != "last":
        raise HookError(f"positions must be None, 'last' or negative numbers; got {positions!r}")
    columns = None if positions is None else (-1,) if isinstance(positions, str) else positions
    values = dict(patch or {})
    if ablate:
        heads = _checked_heads(anatomy, ablate)
        if isinstance(mode, str) and mode != "zero":
            raise HookError(
                f"mode {mode!r} is not possible in a trace; give 'zero' or values, such as head_means(...)[0]"
            )
        rows = torch.zeros(anatomy.d_head) if isinstance(mode, str) else mode
        doubled = set(heads) & values.keys()
        if doubled:
            raise HookError(f"head {min(doubled)} is to be ablated and patched; choose one")
        values |= dict(zip(heads, _head_values(anatomy, heads, rows), strict=True))
    if values:
        _checked_heads(anatomy, list(values))
    request = Request(
        anatomy,
        names,
        tuple(chosen_layers(anatomy, layers)),
        None if columns is None else tuple(negative_positions(columns)),
        positions == "last",
        values,
        None if remove is None else _unit(vector_of(remove).detach(), anatomy),
        metric,
    )
    request.places()  # names an unknown site before anything runs
    return request


def _with_hooks(module: nn.Module, batch: Mapping[str, Tensor], request: Request) -> Trace:
    device = device_of(module.get_submodule(request.anatomy.embedding), batch["input_ids"].device)
    inputs = {name: value.to(device) for name, value in batch.items()}
    differentiate = request.metric is not None and bool(request.sites)
    with ExitStack() as stack:
        stack.enter_context(preserve_state(module, grad=False))
        if request.values:
            stack.enter_context(patch_heads(module, request.anatomy, request.values))
        if request.unit is not None:
            stack.enter_context(ablate_direction(module, request.anatomy, request.unit))
        tape = stack.enter_context(
            capture(module, request.anatomy, request.sites, request.layers, detach=False)  # type: ignore[arg-type]
        )
        stack.enter_context(torch.set_grad_enabled(differentiate))
        logits = module(**inputs, use_cache=False).logits
        keys = [(site, layer) for _, _, site, layer in request.places()]
        nodes = [node for site in request.sites for node in tape.raw(site)]
        value = None if request.metric is None else request.metric(logits)
        check_metric(value, len(logits))
        slopes = torch.autograd.grad(value.sum(), nodes) if differentiate and value is not None else ()
    reads = [_cut(node, request.columns) for node in nodes]
    cut = [_cut(slope, request.columns) for slope in slopes]
    return assemble(request, keys, reads, cut, logits[:, -1], value, "hooks")


def _cut(x: Tensor, columns: tuple[int, ...] | None) -> Tensor:
    if columns is None:
        return x.detach()
    if -min(columns) > x.shape[1]:
        raise HookError(f"position {min(columns)} lies before the start of a batch of {x.shape[1]} tokens")
    return x.detach()[:, list(columns)]
