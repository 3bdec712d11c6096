"""What each part of a model adds to the residual stream, read along chosen directions, exactly."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import module_and_anatomy
from tamperlens_hooks._modules import device_of, output_tensor
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.capture import capture
from tamperlens_hooks.effective import effective_bias, merged_weight
from tamperlens_hooks.errors import UnsupportedModelError
from tamperlens_hooks.state import evaluating
from tamperlens_hooks.stored import logical

__all__ = ["FrozenNorm", "Pieces", "residual_pieces"]

PROBE = 64.0


@dataclass(frozen=True)
class Pieces:
    """Parts of x · r at one position, x the residual stream at the input of block `layer` (or the output of
    the last block for `layer = n_layers`). They sum to it exactly, up to rounding.

    Attributes:
        heads: [layers below, batch, n_heads], each head's z through its columns of the output projection and,
            on post-norm models, the norm behind it with its scale held fixed.
        attention_bias: [layers below, batch], biases of output projections and of norms behind them.
        mlp: [layers below, batch], what the MLPs add, biases included.
        embedding: [batch], the first block's input.
        total: [batch], x · r itself.
    """

    heads: Float[Tensor, "layer batch head"]
    attention_bias: Float[Tensor, "layer batch"]
    mlp: Float[Tensor, "layer batch"]
    embedding: Float[Tensor, " batch"]
    total: Float[Tensor, " batch"]


class FrozenNorm:
    """A norm as the affine map it is for one input: x ↦ scale · gain ⊙ (x − mean) + bias, scale held fixed.

    Found by probing the module, so that Gemma's 1 + w and biases need no cases; it works for RMS norms and
    layer norms, and says so where a norm is something else.
    """

    def __init__(self, norm: nn.Module, x: Float[Tensor, "batch d"], path: str) -> None:
        """Args:
            norm: the module.
            x: its inputs, one row per example; the scale of each row is held.
            path: what to call it in an error.

        Raises:
            UnsupportedModelError: the norm is not such a map.
        """
        signs = torch.ones_like(x[:1])
        signs[:, 1::2] = -1
        self.bias = _wide(output_tensor(norm(torch.zeros_like(x[:1]))))
        self.gain = (_wide(output_tensor(norm(PROBE * signs))) - self.bias) * _wide(signs)
        flat = _wide(output_tensor(norm(PROBE * torch.ones_like(signs)))) - self.bias
        self.centred = bool(flat.abs().max() < 1e-3 * self.gain.abs().max())
        wide = self._centre(_wide(x)) * self.gain
        y = _wide(output_tensor(norm(x))) - self.bias
        self.scale = (y * wide).sum(-1, keepdim=True) / wide.square().sum(-1, keepdim=True).clamp_min(1e-300)
        error = (self.scale * wide - y).abs().max() / y.abs().max().clamp_min(1e-300)
        if not error < (1e-4 if x.dtype in (torch.float32, torch.float64) else 5e-2):
            raise UnsupportedModelError(
                f"not supported: {path} ({type(norm).__name__}) is no scale times a vector, so that head "
                "outputs have no exact share of what it lets through; use method='ablate' or 'gradient'"
            )

    def pull(self, r: Float[Tensor, "... d"]) -> Float[Tensor, "batch d"]:
        """The direction w with N(x)·r − bias·r = x·w at these inputs, one row per example."""
        rows = self.scale * self.gain * _wide(r)
        return rows - rows.mean(-1, keepdim=True) if self.centred else rows

    def constant(self, r: Float[Tensor, "... d"]) -> Float[Tensor, " batch"]:
        """bias · r: what the norm adds whatever it reads."""
        return (self.bias * _wide(r)).sum(-1).expand(self.scale.shape[0])

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x


def residual_pieces(
    model: Any,
    anatomy: Anatomy | None,
    batch: dict[str, Tensor],
    direction: Float[Tensor, "... d_model"],
    *,
    layer: int,
    position: int = -1,
) -> Pieces:
    """Split x · r into what heads, biases, MLPs and the embedding contribute, in one forward pass.

    Args:
        model: a module, or an object with `.module` and `.anatomy`.
        anatomy: of the module; None takes the object's.
        batch: `input_ids`, `attention_mask`, `position_ids`, left-padded.
        direction: r, [d_model] or one row per example [batch, d_model].
        layer: x is the input of this block; `n_layers` is the output of the last one.
        position: token, counted from the end.

    Raises:
        UnsupportedModelError: a norm behind an attention that is no scale times a vector.
    """
    module, anatomy = module_and_anatomy(model, anatomy)
    below = list(range(layer))
    sites: tuple[Any, ...] = ("head_z", "attn_out", "mlp_out", "resid_pre")
    with evaluating(module):
        with capture(module, anatomy, sites, positions=[position]) as tape:
            embeddings = device_of(module.get_submodule(anatomy.embedding), batch["input_ids"].device)
            decoder = module.get_submodule(anatomy.decoder)
            inner: dict[str, Tensor] = {}
            handles = [
                module.get_submodule(path).register_forward_pre_hook(_Keep(inner, path, position))
                for path in anatomy.attention_post_norms
                if path is not None
            ]
            handles.append(module.get_submodule(anatomy.final_norm).register_forward_pre_hook(
                _Keep(inner, "final", position)
            ))  # fmt: skip
            try:
                known = inspect.signature(decoder.forward).parameters
                decoder(**{k: v.to(embeddings) for k, v in batch.items() if k in known}, use_cache=False)
            finally:
                for handle in handles:
                    handle.remove()
        r = _wide(direction).to(tape["resid_pre"].device)
        heads, biases = [], []
        for at in below:
            share, constant = _attention(module, anatomy, at, tape["head_z"][at, :, 0], inner, r)
            heads.append(share)
            biases.append(constant)
        mlp = (_wide(tape["mlp_out"][:layer, :, 0]) * r).sum(-1)
        stream = tape["resid_pre"]
        end = stream[layer, :, 0] if layer < anatomy.n_layers else inner["final"]
        rows = stream.shape[1]
        none = r.new_zeros(0, rows)
        return Pieces(
            torch.stack(heads) if heads else r.new_zeros(0, rows, anatomy.n_heads),
            torch.stack(biases) if biases else none,
            mlp,
            (_wide(stream[0, :, 0]) * r).sum(-1),
            (_wide(end) * r).sum(-1),
        )


def _attention(
    module: nn.Module, anatomy: Anatomy, layer: int, z: Tensor, inner: dict[str, Tensor], r: Tensor
) -> tuple[Tensor, Tensor]:
    """([batch, head], [batch]): heads along r, and the constant beside them."""
    projection = anatomy.projection("o", layer)
    path = anatomy.attention_post_norms[layer]
    constant = r.new_zeros(z.shape[0])
    if path is not None:
        norm = FrozenNorm(module.get_submodule(path), inner[path], path)
        constant, r = constant + norm.constant(r), norm.pull(r)
    bias = effective_bias(module, projection)
    if bias is not None:
        constant = constant + (_wide(bias) * r).sum(-1)
    whole = logical(_wide(merged_weight(module, projection)), projection)
    weight = rearrange(whole, "out (head d) -> out head d", head=anatomy.n_heads)
    shared = r if r.ndim == 2 else r.expand(z.shape[0], -1)
    pulled = torch.einsum("bd,dhk->bhk", shared, weight)
    return (pulled * _wide(z)).sum(-1), constant


class _Keep:
    """Stores what a module reads at one position."""

    def __init__(self, store: dict[str, Tensor], path: str, position: int) -> None:
        self.store, self.path, self.position = store, path, position

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.store[self.path] = args[0][:, self.position].detach()


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.device.type != "mps" else x.float()
