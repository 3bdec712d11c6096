"""The nouns of the anatomy: one logical linear map, and a decoder's map of places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks.errors import HookError


@dataclass(frozen=True)
class Projection:
    """One logical linear map of a block, and where its weight lives.

    Attributes:
        name: "q", "k", "v", "o", "gate", "up" or "down". GPT-2 and GPT-NeoX have no gate: up is `c_fc` or
            `dense_h_to_4h`, down is the MLP's `c_proj` or `dense_4h_to_h`.
        parameter: the weight's name in `named_parameters()` of the unwrapped model without adapters.
        module: dotted path of the linear module; with an adapter attached, of the adapter layer around it.
        layer: index of the block.
        transposed: the parameter is stored [in, out] (GPT-2's Conv1D).
        rows: which outputs of the module are this map's (all, a third of a fused weight, interleaved rows).
        d_in: number of inputs.
        d_out: number of outputs of this map.
    """

    name: str
    parameter: str
    module: str
    layer: int
    transposed: bool
    rows: slice | tuple[int, ...] = field(hash=False)
    d_in: int
    d_out: int

    @property
    def index(self) -> tuple[Any, Any]:
        """What to index the parameter with, as stored, to get this map's entries."""
        rows = list(self.rows) if isinstance(self.rows, tuple) else self.rows
        return (slice(None), rows) if self.transposed else (rows, slice(None))

    @property
    def bias_parameter(self) -> str:
        """Name of the bias beside the weight, where the module has one."""
        return f"{self.module}.bias"


@dataclass(frozen=True)
class Anatomy:
    """Where each part sits in a decoder. Paths resolve on the unwrapped model, with or without an adapter.

    Attributes:
        family: the text model's `model_type`, such as "llama".
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: query heads of a block.
        n_kv_heads: key/value heads of a block; head h reads key/value head `h // (n_heads // n_kv_heads)`.
        d_head: width of a head; `n_heads * d_head` need not be `d_model`.
        d_mlp: hidden width of the MLP.
        d_vocab: rows of the unembedding, unused ones included.
        blocks: module path of each block.
        attention: of each block's attention module.
        mlp: of each block's MLP module.
        output_projections: of each attention's output projection; its input is the heads' z side by side.
        attention_writes: of the module whose output is added to the residual stream for the attention: the
            attention itself, the norm after it (Gemma 2 and 3, OLMo-2), or the dropout after it.
        mlp_writes: likewise for the MLP.
        attention_norms: of the norm in front of the attention, None where there is none (OLMo-2).
        mlp_norms: of the norm in front of the MLP, None where there is none.
        attention_post_norms: of the norm between the attention and the residual stream, else None.
        mlp_post_norms: likewise for the MLP.
        decoder: of the module that runs embedding, blocks and final norm, without the unembedding.
        embedding: of the token embedding.
        final_norm: of the norm behind the last block.
        unembedding: of the map from the final norm to logits.
        post_norm: a norm sits between attention or MLP and the residual stream: head outputs then do not add
            up to the residual write, and orthogonalising weights is not ablating activations.
        parallel: attention and MLP both read the block's input (GPT-NeoX `use_parallel_residual`).
        maps: every projection, block by block.
    """

    family: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    blocks: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    output_projections: tuple[str, ...]
    attention_writes: tuple[str, ...]
    mlp_writes: tuple[str, ...]
    attention_norms: tuple[str | None, ...]
    mlp_norms: tuple[str | None, ...]
    attention_post_norms: tuple[str | None, ...]
    mlp_post_norms: tuple[str | None, ...]
    decoder: str
    embedding: str
    final_norm: str
    unembedding: str
    post_norm: bool
    parallel: bool
    maps: tuple[Projection, ...] = field(repr=False)

    def projections(self, layer: int | None = None) -> list[Projection]:
        """The linear maps of one block, or of all: q, k, v, o, (gate,) up, down.

        Raises:
            HookError: no such layer.
        """
        if layer is None:
            return list(self.maps)
        return [part for part in self.maps if part.layer == self.layer_index(layer)]

    def projection(self, name: str, layer: int) -> Projection:
        """The map called `name` ("q", "k", "v", "o", "gate", "up", "down") of one block.

        Raises:
            HookError: the block has no such map.
        """
        for part in self.projections(layer):
            if part.name == name:
                return part
        known = ", ".join(part.name for part in self.projections(layer))
        raise HookError(f"{self.blocks[layer]} ({self.family}) has no projection {name!r}; it has {known}")

    def head_slice(self, head: int) -> slice:
        """Where head `head` sits in the output projection's input.

        Raises:
            HookError: no such head.
        """
        if not 0 <= head < self.n_heads:
            raise HookError(f"head {head} is out of range: {self.family} has heads 0 to {self.n_heads - 1}")
        return slice(head * self.d_head, (head + 1) * self.d_head)

    def layer_index(self, layer: int) -> int:
        """The layer itself when it exists.

        Raises:
            HookError: it does not.
        """
        if not 0 <= layer < self.n_layers:
            raise HookError(f"layer {layer} is out of range: the model has layers 0 to {self.n_layers - 1}")
        return layer

    def logical_weight(self, model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
        """The map's weight in logical orientation, `y = W x`; see `anatomy.logical_weight`."""
        from tamperlens_hooks.anatomy import logical_weight

        return logical_weight(model, projection)

    def logical_bias(self, model: nn.Module, projection: Projection) -> Float[Tensor, "d_out"] | None:
        """The map's bias, or None; see `tamperlens_hooks.anatomy.logical_bias`."""
        from tamperlens_hooks.anatomy import logical_bias

        return logical_bias(model, projection)
