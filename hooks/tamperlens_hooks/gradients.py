"""Per-example gradients of the loss with respect to whole weight matrices, summed as they appear.

Σ_b |∂L_b/∂W| needs every example's gradient by itself, and no gradient needs to be kept. For a linear map
y = W x the gradient of one example is G_bᵀ X_b, with X_b [seq, in] what the map read and G_b [seq, out] the
gradient at its output. A tap on the output sees G_b in the backward pass, multiplies, takes the absolute
value and adds it to a running sum, block of rows by block of rows. So one ordinary backward pass over a
batch gives all examples' gradients of all matrices, with one sum per matrix as the only extra memory.

Weights stay frozen: nothing but the input of the first block concerned requires a gradient. The tap reads x
through autograd's saved tensors, so it sees the recomputed x under gradient checkpointing. It sits on the
module's output, so what the module does inside (fused rows, Conv1D, a LoRA beside the base weight) does not
matter: with an adapter attached the gradient is that of the merged weight W0 + sBA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._modules import attach, first_tensor, hooks_attached, output_tensor, with_output_tensor
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.state import preserve_state
from tamperlens_hooks.stored import stored_parameter

Reduction = Literal["abs", "signed"]

# Entries of one gradient block: it is made, made absolute and added while it sits in the processor's cache.
_BLOCK = 1 << 18


@dataclass(eq=False)
class GradientTape:
    """Sums of per-example gradients, filled by `backward`.

    Attributes:
        sums: parameter name to Σ_b |∂L_b/∂W| (or Σ_b ∂L_b/∂W), shaped like the parameter as stored; fp32,
            fp64 for fp64 models.
        n: examples that went into the sums.
        reduction: "abs" or "signed".
    """

    sums: dict[str, Tensor]
    reduction: str
    n: int = 0
    _lengths: Sequence[int] | None = field(default=None, repr=False)
    _seen: dict[str, int] = field(default_factory=dict, repr=False)
    _faults: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def backward(
        self, losses: Float[Tensor, " batch"], lengths: Sequence[int] | None = None
    ) -> list[tuple[str, int]]:
        """One backward pass over a batch of losses, one per example; each example's gradient is added.

        The examples must not depend on each other (no batch norm, no expert capacity).

        Args:
            losses: [batch], from a forward pass inside the `with` block.
            lengths: number of tokens of each right-padded row; what lies behind is skipped. It has no
                gradient, so that this saves time and changes nothing.

        Returns:
            (parameter, row) of every example whose input or gradient was NaN or infinite; the sums then are
            of no use.

        Raises:
            HookError: no gradient reached one of the maps, or a map was used twice in the forward pass.
        """
        self._lengths, self._seen, self._faults = lengths, {}, {}
        losses.sum().backward()  # type: ignore[no-untyped-call]
        idle = [name for name in self.sums if self._seen.get(name, 0) == 0]
        if idle:
            raise HookError(
                f"no gradient reached {idle[0]}; compute the losses from a forward pass inside the block"
            )
        self.n += len(losses)
        return [
            (name, int(row)) for name, bad in self._faults.items() for row in bad.nonzero().flatten().tolist()
        ]

    def reset(self) -> None:
        """Set the sums to zero."""
        for total in self.sums.values():
            total.zero_()
        self.n = 0

    def _add(self, name: str, transposed: bool, x: Tensor, g: Tensor) -> None:
        """Add the gradients of one map for one batch: x [batch, seq, in], g [batch, seq, out]."""
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] > 1:
            raise HookError(
                f"{name} is used more than once in a forward pass; |gradient| of shared weights is not "
                "supported"
            )
        if x.ndim == 2:  # modules that flatten the batch away give no per-example gradients
            raise HookError(f"{name} was called without a batch axis, so examples cannot be told apart")
        self._faults[name] = _not_finite(x, g)
        rows, columns = (x, g) if transposed else (g, x)
        lengths = self._lengths or [x.shape[1]] * x.shape[0]
        if self.reduction == "signed":
            _add_signed(self.sums[name], rows, columns)
        else:
            _add_absolute(self.sums[name], rows, columns, lengths)


class _Tap(torch.autograd.Function):
    """The identity on y, which in the backward pass hands (x, ∂L/∂y) to a tape."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, see: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.see = see
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            ctx.see(x, grads[0])
        return grads[0], None, None


@on_model
@contextmanager
def accumulate_gradients(
    model: nn.Module,
    anatomy: Anatomy,
    projections: Iterable[Projection] | None = None,
    *,
    reduction: Reduction | str = "abs",
    device: torch.device | str | None = None,
    checkpoint: bool = False,
) -> Iterator[GradientTape]:
    """Sum per-example gradients of weight matrices over the backward passes inside the `with` block.

    ```python
    with accumulate_gradients(model) as tape:
        for batch in batches:
            losses = loss_of_each_example(model.module(**batch, use_cache=False))
            tape.backward(losses)
    tape.sums["model.layers.0.mlp.up_proj.weight"]  # Σ |∂L/∂W|
    ```

    Inside the block parameters do not require gradients and dropout is off; flags, hooks and `.grad` are as
    before afterwards, and no parameter is written.

    Args:
        model: module and anatomy, or one object with both; adapters are seen through (see above).
        anatomy: of the module.
        projections: the maps wanted; all by default. The sum covers the whole parameter of a fused weight.
            Backward stops at the first block that holds one of them.
        reduction: "abs" sums |∂L_b/∂W|, "signed" sums ∂L_b/∂W, which is another quantity.
        device: where the sums live; each with its weight by default.
        checkpoint: recompute each block in the backward pass instead of keeping its activations; the numbers
            are the same. Taken over from the model where it has gradient checkpointing enabled.

    Raises:
        HookError: no projection, an unknown reduction, or a parameter that two modules share.
    """
    wanted = list(anatomy.projections() if projections is None else projections)
    if not wanted:
        raise HookError("no projections to take gradients of; name at least one")
    if reduction not in get_args(Reduction):
        raise HookError(f"reduction is {reduction!r}; it must be one of {', '.join(get_args(Reduction))}")
    modules = {part.module: part for part in wanted}
    refuse_shared(model, modules.values())
    tape = GradientTape({p.parameter: _zeros(model, p, device) for p in modules.values()}, reduction)
    with tapped(model, anatomy, modules, tape, checkpoint=checkpoint):
        yield tape


@contextmanager
def tapped(
    model: nn.Module, anatomy: Anatomy, modules: Mapping[str, Projection], tape: Any, *, checkpoint: bool
) -> Iterator[None]:
    """Inside, `tape._add(parameter, transposed, x, g)` sees the input and output gradient of each map."""
    first = min(part.layer for part in modules.values())
    enabled = any(getattr(part, "gradient_checkpointing", False) is True for part in model.modules())
    handles: list[Any] = []
    with preserve_state(model, grad=False), hooks_attached(handles):
        for path, part in modules.items():
            module = model.get_submodule(path)
            handles.append(module.register_forward_hook(_tap(tape, part), with_kwargs=True))
        start = model.get_submodule(anatomy.blocks[first])
        handles.append(attach(start, True, lambda x: x.detach().requires_grad_(True)))
        again = [model.get_submodule(path) for path in anatomy.blocks[first:]]
        with _recomputed(again) if checkpoint or enabled else nullcontext():
            yield


def _tap(tape: Any, part: Projection) -> Callable[..., Any]:
    see = functools.partial(tape._add, part.parameter, part.transposed)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        y = output_tensor(output)
        if not (torch.is_grad_enabled() and y.requires_grad):
            return None
        x = first_tensor(args, kwargs).detach()
        seen: Tensor = _Tap.apply(y, x, see)  # type: ignore[no-untyped-call]
        return with_output_tensor(output, seen)

    return hook


def _add_absolute(total: Tensor, rows: Tensor, columns: Tensor, lengths: Sequence[int]) -> None:
    """total += Σ_b |rows_bᵀ columns_b| for rows [batch, seq, m], columns [batch, seq, n], total [m, n]."""
    m, n = total.shape
    if rows.device.type != "cpu":
        _add_absolute_whole(total, rows, columns, lengths)
        return
    if m * n <= _BLOCK // 2:  # small matrices: many examples at once
        step = max(1, _BLOCK // (m * n))
        for start in range(0, len(rows), step):
            longest = max(lengths[start : start + step])
            a, b = rows[start : start + step, :longest], columns[start : start + step, :longest]
            total += torch.bmm(a.to(total.dtype).mT, b.to(total.dtype)).abs_().sum(0)
        return
    step = max(1, _BLOCK // n)
    room = torch.empty(min(step, m), n, dtype=total.dtype)
    for a, b, length in zip(rows, columns, lengths, strict=True):
        left, right = a[:length].to(total.dtype).T, b[:length].to(total.dtype)
        for start in range(0, m, step):
            block = torch.mm(left[start : start + step], right, out=room[: min(step, m - start)])
            total[start : start + step] += block.abs_()


def _not_finite(x: Tensor, g: Tensor) -> Tensor:
    """[batch]: whether an example's input or gradient holds NaN or infinity."""
    wide = torch.promote_types(x.dtype, torch.float32)
    # A sum is several times faster than a look at every entry, and finite sums have finite terms.
    doubtful = ~torch.isfinite(x.flatten(1).sum(1, dtype=wide) + g.flatten(1).sum(1, dtype=wide))
    if x.device.type == "cpu" and not doubtful.any():
        return doubtful
    return ~(torch.isfinite(x).flatten(1).all(1) & torch.isfinite(g).flatten(1).all(1))


def _add_absolute_whole(total: Tensor, rows: Tensor, columns: Tensor, lengths: Sequence[int]) -> None:
    """The same on an accelerator: one product an example."""
    for a, b, length in zip(rows, columns, lengths, strict=True):
        left, right = a[:length].T, b[:length]
        total.add_(_product(left, right, total.dtype).abs_().to(total.device))


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right; half-precision inputs with an fp32 result on CUDA (products and sums are fp32 there)."""
    if (
        left.device.type == "cuda"
        and dtype == torch.float32
        and left.dtype in (torch.bfloat16, torch.float16)
    ):
        try:
            return torch.mm(left, right, out_dtype=torch.float32)
        except (TypeError, RuntimeError):  # torch before 2.8
            pass
    return torch.mm(left.to(dtype), right.to(dtype))


def _add_signed(total: Tensor, rows: Tensor, columns: Tensor) -> None:
    left, right = rows.flatten(0, 1).T, columns.flatten(0, 1)
    total.add_(_product(left, right, total.dtype).to(total.device))


def _zeros(model: nn.Module, part: Projection, device: torch.device | str | None) -> Tensor:
    weight = stored_parameter(model, part.parameter)
    if not weight.is_floating_point() or weight.ndim != 2:
        raise HookError(
            f"{part.parameter} is quantised ({weight.dtype}), so it has no entries to take a gradient of; "
            "load the model without quantisation"
        )
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(weight.shape, dtype=dtype, device=device or weight.device)


def refuse_shared(model: nn.Module, parts: Iterable[Projection]) -> None:
    """Raise where two maps are one tensor: sizes of gradients do not add up over them.

    Raises:
        HookError: they are.
    """
    owners: dict[int, str] = {}
    for part in parts:
        weight = stored_parameter(model, part.parameter)
        if id(weight) in owners:
            raise HookError(
                f"{part.parameter} and {owners[id(weight)]} are one tensor; |gradient| of shared weights is "
                "not supported"
            )
        owners[id(weight)] = part.parameter


@contextmanager
def _recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Gradient checkpointing of whole blocks, whatever the model's own setting.

    transformers checkpoints in training mode only, and training mode would switch dropout on.
    """
    before = [(block, block.__dict__.get("forward")) for block in blocks]
    try:
        for block in blocks:
            block.forward = functools.partial(
                recompute, block.forward, use_reentrant=False, preserve_rng_state=False
            )
        yield
    finally:
        for block, own in before:
            if own is None:
                del block.__dict__["forward"]
            else:
                block.forward = own
