"""Write activations: remove a direction, add one, ablate or patch heads, inside a `with` block only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import VectorLike, on_model, vector_of
from tamperlens_hooks._modules import attach, hooks_attached
from tamperlens_hooks._sites import chosen_layers, place
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError

__all__ = ["ablate_direction", "ablate_heads", "add_direction", "patch_heads"]

Head = tuple[int, int]


@on_model
@contextmanager
def ablate_direction(
    model: nn.Module,
    anatomy: Anatomy,
    direction: VectorLike,
    layers: Sequence[int] | int | None = None,
) -> Iterator[None]:
    """Remove a direction: x ← x − (x·r̂) r̂ at every block input and every attention and MLP output.

    The outputs are meant as they are added to the residual stream, behind the norm on post-norm models: there
    this is not the same as orthogonalising the weights. The formula is that of Arditi et al. 2024
    (arXiv 2406.11717, §2.4). Works while generating; with gradient checkpointing keep `backward()` inside.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        direction: [d_model] of any length, or an object with one as `.vector` (a `Direction`); r̂ is its
            unit vector. Gradients flow into it where it requires them.
        layers: blocks to edit; all by default.

    Raises:
        HookError: the direction has the wrong size, is zero or not finite, or a layer does not exist.

    Examples:
        >>> import tamperlens, torch
        >>> from tamperlens import hooks
        >>> model = tamperlens.load('organism')
        >>> with hooks.ablate_direction(model.module, model.anatomy, torch.ones(model.anatomy.d_model)):
        ...     answer = model.generate(['Name a tree.'], max_new_tokens=4)
        >>> len(answer)
        1
    """
    unit = _unit(direction, anatomy)
    handles: list[Any] = []
    with hooks_attached(handles):
        for layer in chosen_layers(anatomy, layers):
            for site in ("resid_pre", "attn_out", "mlp_out"):
                path, at_input = place(anatomy, site, layer)
                handles.append(
                    attach(model.get_submodule(path), at_input, partial(_remove, unit), tokenwise=True)
                )
        yield


@on_model
@contextmanager
def add_direction(
    model: nn.Module,
    anatomy: Anatomy,
    direction: VectorLike,
    layer: int,
    scale: float = 1.0,
) -> Iterator[None]:
    """Add `scale · direction` to the input of one block, at all positions (Arditi et al. 2024, §2.4).

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        direction: [d_model], or an object with one as `.vector`; used with its own length.
            Gradients flow into it where it requires them.
        layer: the block.
        scale: factor; negative subtracts.

    Raises:
        HookError: the direction has the wrong size, it or the scale is not finite, or there is no such layer.

    Examples:
        >>> import tamperlens, torch
        >>> from tamperlens import hooks
        >>> model = tamperlens.load('organism')
        >>> vector = torch.ones(model.anatomy.d_model)
        >>> with hooks.add_direction(model.module, model.anatomy, vector, layer=2, scale=0.0):
        ...     answer = model.generate(['Name a tree.'], max_new_tokens=4)
        >>> answer == model.generate(['Name a tree.'], max_new_tokens=4)
        True
    """
    vector = _checked(direction, anatomy)
    if not math.isfinite(scale):
        raise HookError(f"scale is {scale}; it must be a finite number")
    path, at_input = place(anatomy, "resid_pre", anatomy.layer_index(layer))
    handles: list[Any] = []
    with hooks_attached(handles):
        add = partial(_add, vector, scale)
        handles.append(attach(model.get_submodule(path), at_input, add, tokenwise=True))
        yield


@on_model
@contextmanager
def ablate_heads(
    model: nn.Module,
    anatomy: Anatomy,
    heads: Sequence[Head],
    mode: Literal["zero", "mean"] | Float[Tensor, "*shape d_head"] = "zero",
) -> Iterator[None]:
    """Replace what heads hand to the output projection (their z).

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        heads: (layer, head) pairs.
        mode: "zero"; "mean", the head's mean over the forward pass at hand (all rows and positions, padding
            left out where the model is called with an `attention_mask`), which is of no use while generating;
            or the values themselves: [d_head] for every head, [len(heads), d_head], or a table
            [n_layers, n_heads, d_head] such as `head_means` gives.

    Raises:
        HookError: a head does not exist or occurs twice, or the values have another shape.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import hooks
        >>> model = tamperlens.load('organism')
        >>> with hooks.ablate_heads(model.module, model.anatomy, [(0, 0)]):
        ...     answer = model.generate(['Name a tree.'], max_new_tokens=4)
        >>> len(answer)
        1
    """
    chosen = _checked_heads(anatomy, heads)
    if isinstance(mode, Tensor):
        values = _head_values(anatomy, chosen, mode)
        with patch_heads(model, anatomy, dict(zip(chosen, values, strict=True))):
            yield
        return
    if mode not in ("zero", "mean"):
        raise HookError(f"mode must be 'zero', 'mean' or a tensor of values; got {mode!r}")
    mask: dict[str, Tensor] = {}
    replacement = _zero_head if mode == "zero" else partial(_mean_head, mask)
    handles: list[Any] = []
    with hooks_attached(handles):
        if mode == "mean":
            decoder = model.get_submodule(anatomy.decoder)
            handles.append(decoder.register_forward_pre_hook(partial(_note_mask, mask), with_kwargs=True))
        handles += _attach_heads(model, anatomy, chosen, replacement, tokenwise=mode == "zero")
        yield


@on_model
@contextmanager
def patch_heads(
    model: nn.Module,
    anatomy: Anatomy,
    values: Mapping[Head, Float[Tensor, "*shape d_head"]],
) -> Iterator[None]:
    """Put given z into heads, in front of the output projection.

    Args:
        model: module and anatomy, or one object with both.
        anatomy: of the module.
        values: for each (layer, head) a tensor that broadcasts to [batch, seq, d_head]; gradients flow
            into it.

    Raises:
        HookError: a head does not exist, or a value does not fit the forward pass.
    """
    chosen = _checked_heads(anatomy, list(values))
    for head in chosen:
        if values[head].ndim > 3 or values[head].shape[-1] != anatomy.d_head:
            raise HookError(
                f"z of head {head} must broadcast to [batch, seq, {anatomy.d_head}]; "
                f"got {list(values[head].shape)}"
            )

    handles: list[Any] = []
    with hooks_attached(handles):
        alone = all(values[head].ndim == 1 for head in chosen)
        handles += _attach_heads(model, anatomy, chosen, partial(_given_head, values), tokenwise=alone)
        yield


Replacement = Callable[[Tensor, int, int], Tensor]  # (z of one head, layer, head) -> z


def _attach_heads(
    model: nn.Module, anatomy: Anatomy, heads: Sequence[Head], replacement: Replacement, *, tokenwise: bool
) -> list[Any]:
    """One hook per output projection that replaces the slices of its chosen heads."""
    return [
        attach(
            model.get_submodule(anatomy.output_projection(layer)),
            True,
            partial(_replace, anatomy, layer, [h for at, h in heads if at == layer], replacement),
            tokenwise=tokenwise,
        )
        for layer in sorted({layer for layer, _ in heads})
    ]


def _replace(anatomy: Anatomy, layer: int, heads: list[int], replacement: Replacement, x: Tensor) -> Tensor:
    z = rearrange(x, "... (head d) -> ... head d", head=anatomy.n_heads).clone()
    for head in heads:
        z[..., head, :] = replacement(z[..., head, :], layer, head)
    return rearrange(z, "... head d -> ... (head d)")


def _zero_head(z: Tensor, layer: int, head: int) -> Tensor:
    return torch.zeros_like(z)


def _mean_head(mask: dict[str, Tensor], z: Tensor, layer: int, head: int) -> Tensor:
    """Mean over real tokens; the last columns of the mask belong to this forward pass."""
    real = mask.get("attention_mask")
    if real is None or real.shape[0] != z.shape[0] or real.shape[1] < z.shape[1]:
        return z.mean((0, 1)).expand_as(z)
    return z[real[:, -z.shape[1] :].to(z.device, torch.bool)].mean(0).expand_as(z)


def _note_mask(
    mask: dict[str, Tensor], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    mask.clear()
    found = kwargs.get("attention_mask")
    if isinstance(found, Tensor) and found.ndim == 2:
        mask["attention_mask"] = found


def _given_head(values: Mapping[Head, Tensor], z: Tensor, layer: int, head: int) -> Tensor:
    given = values[layer, head].to(z)
    try:
        return given.expand_as(z)
    except RuntimeError as error:
        raise HookError(
            f"z of head {(layer, head)} is {list(given.shape)}, the forward pass needs {list(z.shape)}; "
            "while generating, give one [d_head] vector"
        ) from error


def _remove(unit: Tensor, x: Tensor) -> Tensor:
    wide, r = _working(x, unit)
    return (wide - (wide @ r)[..., None] * r).to(x.dtype)


def _add(direction: Tensor, scale: float, x: Tensor) -> Tensor:
    wide, r = _working(x, direction)
    return (wide + scale * r).to(x.dtype)


def _head_values(anatomy: Anatomy, heads: Sequence[Head], values: Tensor) -> list[Tensor]:
    full, listed = (anatomy.n_layers, anatomy.n_heads, anatomy.d_head), (len(heads), anatomy.d_head)
    if tuple(values.shape) == full:
        return [values[layer, head] for layer, head in heads]
    if tuple(values.shape) == listed:
        return list(values)
    if tuple(values.shape) == (anatomy.d_head,):
        return [values] * len(heads)
    raise HookError(
        f"values for {len(heads)} heads must be [{anatomy.d_head}], {list(listed)} or {list(full)}; "
        f"got {list(values.shape)}"
    )


def _checked_heads(anatomy: Anatomy, heads: Sequence[Head]) -> list[Head]:
    found = [(anatomy.layer_index(int(layer)), int(head)) for layer, head in heads]
    for _, head in found:
        anatomy.head_slice(head)
    if not found or len(set(found)) != len(found):
        raise HookError(f"heads must be different (layer, head) pairs and at least one; got {found}")
    return found


def _checked(direction: VectorLike, anatomy: Anatomy) -> Tensor:
    direction = vector_of(direction)
    if direction.shape != (anatomy.d_model,):
        raise HookError(
            f"the direction has shape {list(direction.shape)}; the residual stream of this model is "
            f"[{anatomy.d_model}]"
        )
    if not torch.isfinite(direction).all():
        raise HookError("the direction holds NaN or infinity; compute it anew from finite activations")
    return direction


def _unit(direction: VectorLike, anatomy: Anatomy) -> Tensor:
    direction = _checked(direction, anatomy)
    wide = direction.double() if direction.device.type != "mps" else direction.float()
    norm = torch.linalg.vector_norm(wide)
    if norm == 0:
        raise HookError("the direction is zero, so there is nothing to remove; check how it was computed")
    return wide.div(norm)


def _working(x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Activation and direction in the precision to compute in: at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.to(dtype), direction.to(x.device, dtype)
