"""Numbers that confirm an anatomy: every place must compute what it promises."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import base_layer, device_of, first_tensor, hooks_attached, output_tensor
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import AnatomyError
from tamperlens_hooks.state import evaluating
from tamperlens_hooks.stored import logical_bias, logical_weight, stored_parameter

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TOKENS = 12


@on_model
def check(model: nn.Module, anatomy: Anatomy, *, tolerance: float | None = None) -> dict[str, float]:
    """Confirm an anatomy by numbers on random token ids, in two short forward passes without gradients.

    Checked in every block, as relative error max|a - b| / max|b|:
        heads: the sum over heads of `z_h W_O[h]` (+ bias, + adapters) is the attention module's output.
        weights: `logical_weight(p) x + logical_bias(p)` is what the module of every projection computes.
        values: for one token, attention is the identity, so head h's z is the value of its key/value head.
        mlp: the input of the down map is `act(gate) * up`, or `act(up)`.
        norms: attention and MLP read the normed residual stream that the anatomy says they read.
        residual: block input + attention write + MLP write is the block output, which the next block reads.
        final: the final norm of the last block's output is what the unembedding reads.

    Args:
        model: module and anatomy, or one object with both. Parameters, hooks, training flags and random state
            are afterwards as before.
        anatomy: made by `describe`.
        tolerance: largest relative error allowed; by default 2e-4 in fp32, 5e-2 in bf16.

    Returns:
        The largest error found for each check; a check that does not apply is absent.

    Raises:
        AnatomyError: an error is too large or not a number; the message names the module.
    """
    errors = _Errors(tolerance)
    generator = torch.Generator().manual_seed(0)
    device = device_of(model.get_submodule(anatomy.embedding), torch.device("cpu"))
    ids = torch.randint(0, anatomy.d_vocab, (1, _length(model)), generator=generator).to(device)
    with evaluating(model):
        tape = _run(model, anatomy, ids)
        for layer in range(anatomy.n_layers):
            if anatomy.output_projections[layer] is not None:
                _check_heads(model, anatomy, layer, tape, errors)
            _check_weights(model, anatomy, layer, tape, errors)
            _check_mlp(model, anatomy, layer, tape, errors)
            _check_block(model, anatomy, layer, tape, errors)
        last = _get(tape, anatomy.blocks[-1], "out")
        errors.add(
            "final",
            _get(tape, anatomy.unembedding, "in"),
            _call(model, anatomy.final_norm, last),
            anatomy.final_norm,
        )
        tape = _run(model, anatomy, ids[:, :1])
        for layer in range(anatomy.n_layers):
            if anatomy.output_projections[layer] is not None:
                _check_values(model, anatomy, layer, tape, errors)
    return errors.worst


def _length(model: nn.Module) -> int:
    """Tokens to run: fewer where the model has fewer positions."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    return min(TOKENS, positions) if isinstance(positions, int) and positions > 0 else TOKENS


class _Errors:
    """Collects the largest relative error of each check, and raises for the first that is too large."""

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.worst: dict[str, float] = {}

    def add(
        self, name: str, found: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"], module: str
    ) -> None:
        limit = self.tolerance if self.tolerance is not None else TOLERANCE.get(found.dtype, 5e-2)
        a, b = found.double().cpu(), expected.double().cpu()
        error = ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()
        if not torch.isfinite(a).all():
            raise AnatomyError(f"{module} computes NaN or infinity; are the weights of this model intact?")
        if not error <= limit:
            raise AnatomyError(
                f"{module} does not compute what its place promises ({name}: relative error {error:.2g}, "
                f"allowed {limit:.2g}); tamperlens would misread this architecture"
            )
        self.worst[name] = max(error, self.worst.get(name, 0.0))


Tape = dict[tuple[str, str], Tensor]


def _run(model: nn.Module, anatomy: Anatomy, ids: Tensor) -> Tape:
    """One forward pass; the first input and the output of every module that a check needs."""
    tape: Tape = {}
    optional = (*anatomy.attention_norms, *anatomy.mlp_norms)
    paths = {
        *anatomy.blocks,
        *anatomy.attention,
        *anatomy.mlp,
        *anatomy.attention_writes,
        *anatomy.mlp_writes,
        *(path for path in optional if path is not None),
        *(part.module for part in anatomy.maps),
        anatomy.unembedding,
    }

    handles = [
        model.get_submodule(path).register_forward_hook(
            functools.partial(_note, tape, path), with_kwargs=True
        )
        for path in paths
    ]
    with hooks_attached(handles):
        known = inspect.signature(model.forward).parameters
        model(input_ids=ids, **({"use_cache": False} if "use_cache" in known else {}))
    return tape


def _note(
    tape: Tape,
    path: str,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    tape[path, "in"] = first_tensor(args, kwargs)
    tape[path, "out"] = output_tensor(output)


def _get(tape: Tape, path: str, end: str) -> Tensor:
    """What went into or came out of a module.

    Raises:
        AnatomyError: the module did not run.
    """
    if (path, end) not in tape:
        raise AnatomyError(
            f"{path} did not run in a forward pass, so that it cannot be what its place promises"
        )
    return tape[path, end]


def _call(model: nn.Module, path: str, x: Tensor) -> Tensor:
    module = model.get_submodule(path)
    return output_tensor(module(x.to(device_of(module, x.device))))


def _check_heads(model: nn.Module, anatomy: Anatomy, layer: int, tape: Tape, errors: _Errors) -> None:
    path = anatomy.output_projection(layer)
    z, attention = _get(tape, path, "in"), _get(tape, anatomy.attention[layer], "out")
    if z.shape[-1] != anatomy.n_heads * anatomy.d_head:
        raise AnatomyError(
            f"{path} reads {z.shape[-1]} numbers, not {anatomy.n_heads} heads of {anatomy.d_head}"
        )
    module = model.get_submodule(path)
    # the module itself, on one head at a time: adapters and quantised weights included, the bias counted once
    alone = z.new_zeros(anatomy.n_heads, *z.shape)
    for head in range(anatomy.n_heads):
        alone[head][..., anatomy.head_slice(head)] = z[..., anatomy.head_slice(head)]
    bias = output_tensor(module(torch.zeros_like(z))).double()
    total = sum((output_tensor(module(part)).double() - bias for part in alone), bias)
    errors.add("heads", attention, total.to(attention), path)


def _check_weights(model: nn.Module, anatomy: Anatomy, layer: int, tape: Tape, errors: _Errors) -> None:
    for part in anatomy.projections(layer):
        stored = stored_parameter(model, part.parameter)
        if stored.is_meta or not stored.is_floating_point():
            continue  # an offloaded or packed weight has no entries to compare
        x = _get(tape, part.module, "in")
        y = output_tensor(base_layer(model.get_submodule(part.module))(x))
        weight, bias = logical_weight(model, part), logical_bias(model, part)
        errors.add(
            "weights", nn.functional.linear(x, weight.to(x.dtype), bias), _rows(y, part), part.parameter
        )


def _check_values(model: nn.Module, anatomy: Anatomy, layer: int, tape: Tape, errors: _Errors) -> None:
    part = anatomy.projection("v", layer)
    values = _rows(_get(tape, part.module, "out"), part)
    group = anatomy.n_heads // anatomy.n_kv_heads
    expected = repeat(values, "... (kv d) -> ... (kv group d)", kv=anatomy.n_kv_heads, group=group)
    z = _get(tape, anatomy.output_projection(layer), "in")
    query = anatomy.projection("q", layer)
    asked = _get(tape, query.module, "out")
    if isinstance(query.rows, tuple) and asked.shape[-1] == 2 * z.shape[-1]:  # a gate behind each query
        gate = rearrange(asked, "... (head two d) -> two ... (head d)", two=2, d=anatomy.d_head)[1]
        expected = expected * torch.sigmoid(gate)
    if hasattr(model.get_submodule(anatomy.attention[layer]), "sinks"):
        # A sink takes a share of each head's attention: z is the value, shortened.
        own, short = (rearrange(x, "... (head d) -> ... head d", d=anatomy.d_head) for x in (expected, z))
        share = (own * short).sum(-1, keepdim=True) / (own * own).sum(-1, keepdim=True).clamp_min(1e-30)
        expected = rearrange(own * share.clamp(0, 1), "... head d -> ... (head d)")
    errors.add("values", z, expected, part.module)


def _check_mlp(model: nn.Module, anatomy: Anatomy, layer: int, tape: Tape, errors: _Errors) -> None:
    mlp = model.get_submodule(anatomy.mlp[layer])
    activation = next(
        (getattr(mlp, name) for name in ("act_fn", "activation_fn", "act") if hasattr(mlp, name)), None
    )
    if activation is None:
        return
    names = {part.name: part for part in anatomy.projections(layer)}
    if "down" not in names:
        return
    outputs = {
        name: _rows(_get(tape, part.module, "out"), part)
        for name, part in names.items()
        if name in ("gate", "up")
    }
    expected = activation(outputs["gate"]) * outputs["up"] if "gate" in outputs else activation(outputs["up"])
    errors.add("mlp", _get(tape, names["down"].module, "in"), expected, anatomy.mlp[layer])


def _check_block(model: nn.Module, anatomy: Anatomy, layer: int, tape: Tape, errors: _Errors) -> None:
    block = anatomy.blocks[layer]
    pre, post = _get(tape, block, "in"), _get(tape, block, "out")
    attention = _get(tape, anatomy.attention_writes[layer], "out")
    mlp = _get(tape, anatomy.mlp_writes[layer], "out")
    errors.add("residual", post, (pre.double() + attention.double() + mlp.double()).to(post), block)
    if layer + 1 < anatomy.n_layers:
        errors.add(
            "residual",
            _get(tape, anatomy.blocks[layer + 1], "in").to(post),
            post,
            anatomy.blocks[layer + 1],
        )
    middle = pre if anatomy.parallel else pre + attention
    for norm, source, module, names in (
        (anatomy.attention_norms[layer], pre, anatomy.attention[layer], ("q", "k", "v")),
        (anatomy.mlp_norms[layer], middle, anatomy.mlp[layer], ("gate", "up")),
    ):
        expected = source if norm is None else _call(model, norm, source)
        # Where there are no maps (linear attention, experts) it is the module that reads.
        readers = [p.module for p in anatomy.projections(layer) if p.name in names] or [module]
        for path in readers:
            found = _get(tape, path, "in")
            errors.add("norms", found, expected.to(found), norm or path)


def _rows(y: Tensor, part: Projection) -> Tensor:
    """A map's own outputs among those of its module."""
    return y[..., list(part.rows) if isinstance(part.rows, tuple) else part.rows]
