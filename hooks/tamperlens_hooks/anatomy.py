"""A decoder's map of places, found by attribute names and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._modules import base_layer, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks._structure import (
    FINAL_NORMS,
    MIXERS,
    Block,
    find_attention,
    find_feed_forward,
    find_mixer,
    first,
    is_norm,
    place_block,
)
from tamperlens_hooks.errors import AnatomyError, HookError, UnsupportedModelError
from tamperlens_hooks.stored import logical_bias, logical_weight

__all__ = ["Anatomy", "describe"]


@dataclass(frozen=True)
class Anatomy:
    """Where each part sits in a decoder. Paths resolve on the unwrapped model, with or without an adapter.

    Attributes:
        family: the text model's `model_type`, such as "llama".
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: query heads of a block that has them; 0 where no block does.
        n_kv_heads: key/value heads of a block; head h reads key/value head `h // (n_heads // n_kv_heads)`.
        d_head: width of a head; `n_heads * d_head` need not be `d_model`.
        d_mlp: hidden width of the MLP; 0 where every block routes tokens to experts.
        d_vocab: rows of the unembedding, unused ones included.
        blocks: module path of each block.
        attention: of each block's attention module, or of what stands in its place (linear attention, a
            convolution), which has no heads.
        mlp: of each block's MLP module.
        output_projections: of each attention's output projection; its input is the heads' z side by side.
            None where a block has no heads.
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
        maps: every projection, block by block. Experts and linear attention have none among them.
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
    output_projections: tuple[str | None, ...]
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

    def output_projection(self, layer: int) -> str:
        """Path of the module that reads the heads' z of one block.

        Raises:
            HookError: the block has no heads.
        """
        path = self.output_projections[self.layer_index(layer)]
        if path is None:
            raise HookError(
                f"{self.family} has no heads here: none can be read in {self.attention[layer]}; choose other "
                "layers, or measure directions and weights"
            )
        return path

    def require_heads(self) -> None:
        """For measures of every head of the model.

        Raises:
            HookError: a block has none.
        """
        for layer in range(self.n_layers):
            self.output_projection(layer)

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
        """The map's weight in logical orientation, `y = W x`; see `stored.logical_weight`."""
        return logical_weight(model, projection)

    def logical_bias(self, model: nn.Module, projection: Projection) -> Float[Tensor, "d_out"] | None:
        """The map's bias, or None; see `stored.logical_bias`."""
        return logical_bias(model, projection)


def describe(model: nn.Module) -> Anatomy:
    """Place every part of a causal language model by attribute names and shapes, without running it.

    Args:
        model: a transformers decoder; PEFT, DataParallel and torch.compile wrappers are looked through, and a
            model with an adapter attached gives the same anatomy as without.

    Raises:
        UnsupportedModelError: a recognised kind that is not supported yet (encoder-decoder).
        AnatomyError: a part could not be placed; the message names the module.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import hooks
        >>> hooks.describe(tamperlens.load('organism').module).n_layers
        5
    """
    if not isinstance(model, nn.Module):
        raise HookError(f"cannot describe a {type(model).__name__}; pass a transformers model")
    model = unwrap(model)
    config = getattr(model, "config", None)
    text_config: Any = (
        config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    )
    family = str(getattr(text_config, "model_type", type(model).__name__))
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"not supported yet: {family!r} is an encoder-decoder; load a decoder-only model"
        )

    embedding, d_vocab, d_model = _embedding(model)
    list_path = _block_list(model, family)
    decoder = list_path.rpartition(".")[0]
    paths = tuple(f"{list_path}.{name}" for name, _ in model.get_submodule(list_path).named_children())
    blocks = [
        place_block(model.get_submodule(path), path, layer, d_model, text_config)
        for layer, path in enumerate(paths)
    ]
    _refuse_uneven(blocks, paths)
    norms = [name for name, child in model.get_submodule(decoder).named_children() if is_norm(child, d_model)]
    final_norm = first(FINAL_NORMS, norms)
    if final_norm is None:
        raise AnatomyError(f"could not place the final norm in {decoder or type(model).__name__}")
    start = next((block for block in blocks if block.n_heads), blocks[0])
    return Anatomy(
        family=family,
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=start.n_heads,
        n_kv_heads=start.n_kv_heads,
        d_head=start.d_head,
        d_mlp=max(block.d_mlp for block in blocks),
        d_vocab=d_vocab,
        blocks=paths,
        attention=tuple(block.attention for block in blocks),
        mlp=tuple(block.mlp for block in blocks),
        output_projections=tuple(block.output_projection for block in blocks),
        attention_writes=tuple(block.attention_write for block in blocks),
        mlp_writes=tuple(block.mlp_write for block in blocks),
        attention_norms=tuple(block.attention_norm for block in blocks),
        mlp_norms=tuple(block.mlp_norm for block in blocks),
        attention_post_norms=tuple(block.attention_post_norm for block in blocks),
        mlp_post_norms=tuple(block.mlp_post_norm for block in blocks),
        decoder=decoder,
        embedding=embedding,
        final_norm=f"{decoder}.{final_norm}" if decoder else final_norm,
        unembedding=_unembedding(model, d_model),
        post_norm=any(block.attention_post_norm or block.mlp_post_norm for block in blocks),
        parallel=start.parallel,
        maps=tuple(part for block in blocks for part in block.maps),
    )


def _embedding(model: nn.Module) -> tuple[str, int, int]:
    """Path, rows and width of the token embedding."""
    module = _ask(model, "get_input_embeddings")
    if module is None:
        tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
        module = max(tables, key=lambda table: table.num_embeddings, default=None)
    if module is None:
        raise AnatomyError(f"could not place the token embedding of {type(model).__name__}")
    weight = base_layer(module).weight
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise AnatomyError(
            f"could not place the token embedding {_path(model, module)}: its weight is no matrix"
        )
    return _path(model, module), int(weight.shape[0]), int(weight.shape[1])


def _unembedding(model: nn.Module, d_model: int) -> str:
    module = _ask(model, "get_output_embeddings") or model._modules.get("lm_head")
    if module is None:
        raise AnatomyError(
            f"could not place the unembedding of {type(model).__name__}; load it as a causal language model"
        )
    if base_layer(module).weight.shape[-1] != d_model:  # type: ignore[index]
        raise AnatomyError(
            f"the unembedding {_path(model, module)} does not read a residual stream of {d_model}"
        )
    return _path(model, module)


def _ask(model: nn.Module, method: str) -> nn.Module | None:
    """The module that a transformers getter returns, or None where the model has no answer."""
    getter = getattr(model, method, None)
    try:
        found = getter() if getter is not None else None
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, nn.Module) else None


def _path(model: nn.Module, module: nn.Module) -> str:
    name: str
    for name, part in model.named_modules():
        if part is module or base_layer(part) is base_layer(module):
            return name
    raise AnatomyError(f"a {type(module).__name__} of {type(model).__name__} is not among its modules")


def _block_list(model: nn.Module, family: str) -> str:
    """Path of the ModuleList that holds the decoder's blocks."""
    text = _ask(model, "get_decoder")
    inside = {id(part) for part in text.modules()} if text is not None else set()
    lists = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) > 0 and (not inside or id(part) in inside)
    ]
    whole: list[str] = [
        name
        for name, part in lists
        if all(find_mixer(block) and find_feed_forward(block) for block in part)
        and (len(lists) == 1 or not any(name.startswith(f"{other}.") for other, _ in lists))
    ]
    if len(whole) > 1:
        raise AnatomyError(
            f"could not tell which of {', '.join(whole)} are the blocks of {type(model).__name__}"
        )
    if whole:
        return whole[0]
    for name, part in lists:  # the list that looks most like blocks names the part that is missing
        if find_attention(part[0]) or any(hasattr(part[0], candidate) for candidate in MIXERS):
            place_block(part[0], f"{name}.0", 0, _embedding(model)[2], getattr(model, "config", None))
    raise AnatomyError(
        f"could not place the blocks of {type(model).__name__} ({family}): no ModuleList among "
        f"{', '.join(name for name, _ in model.named_children())} holds an attention and an MLP module each"
    )


def _refuse_uneven(blocks: list[Block], paths: tuple[str, ...]) -> None:
    for block, path in zip(blocks, paths, strict=True):
        for size in ("n_heads", "n_kv_heads", "d_head", "d_mlp"):
            mine = getattr(block, size)
            others = next((found for one in blocks if (found := getattr(one, size))), 0)
            if mine not in (0, others):
                raise UnsupportedModelError(
                    f"not supported yet: blocks of different build ({path} has {size} {mine}, "
                    f"others {others})"
                )
