"""Where each part sits in a decoder, found by structure and checked by numbers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._checks import check
from tamperlens_hooks._modules import base_layer, module_and_anatomy, on_model, unwrap
from tamperlens_hooks._parts import Anatomy, Projection
from tamperlens_hooks._structure import (
    ATTENTION,
    FINAL_NORMS,
    Block,
    find_attention,
    find_mlp,
    first,
    is_norm,
    place_block,
    refuse_experts,
)
from tamperlens_hooks.dora import adapter_delta
from tamperlens_hooks.errors import AnatomyError, HookError, UnsupportedModelError
from tamperlens_hooks.quantised import decoded

__all__ = [
    "Anatomy",
    "Projection",
    "check",
    "describe",
    "effective_weight",
    "head_output_weight",
    "logical_bias",
    "logical_weight",
    "module_and_anatomy",
    "stored_parameter",
    "unwrap",
]


def describe(model: nn.Module) -> Anatomy:
    """Place every part of a causal language model by attribute names and shapes, without running it.

    Args:
        model: a transformers decoder; PEFT, DataParallel and torch.compile wrappers are looked through, and a
            model with an adapter attached gives the same anatomy as without.

    Raises:
        UnsupportedModelError: a recognised kind that is not supported yet (sparse experts, encoder-decoder).
        AnatomyError: a part could not be placed; the message names the module.
    """
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
    refuse_experts(model, family, list_path)
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
    start = blocks[0]
    return Anatomy(
        family=family,
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=start.n_heads,
        n_kv_heads=start.n_kv_heads,
        d_head=start.d_head,
        d_mlp=start.d_mlp,
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


def stored_parameter(model: nn.Module, name: str) -> nn.Parameter:
    """The parameter that is called `name` in the model without adapters.

    Args:
        model: wrapped or not; with an adapter attached the original weight sits in `base_layer`.
        name: such as `Projection.parameter`.

    Raises:
        HookError: no such parameter.
    """
    path, _, leaf = name.rpartition(".")
    try:
        found = getattr(base_layer(unwrap(model).get_submodule(path)), leaf)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Parameter):
        raise HookError(f"the model has no parameter {name!r}; was the anatomy made for another model?")
    return found


def logical_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
    """A projection's own weight W in logical orientation: `y = W x (+ bias)`, whatever the storage.

    GPT-2's Conv1D is transposed, fused weights are cut or gathered. Slices are views of the parameter,
    interleaved rows and decoded 4-bit weights of bitsandbytes are a copy. Adapters do not count; see
    `effective_weight`.

    Raises:
        HookError: the weight is packed in another way, so that it has no entries to show.
    """
    weight: Tensor = stored_parameter(model, projection.parameter)
    if hasattr(weight, "quant_state"):
        layer = base_layer(unwrap(model).get_submodule(projection.parameter.rpartition(".")[0]))
        weight = decoded(layer, projection.parameter)
    if not weight.is_floating_point() or weight.ndim != 2:
        raise HookError(
            f"{projection.parameter} is quantised ({weight.dtype}); load the model without quantisation"
        )
    found = weight[projection.index]
    return found.T if projection.transposed else found


def logical_bias(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out"] | None:
    """A projection's own bias, or None where its module has none."""
    layer = base_layer(unwrap(model).get_submodule(projection.module))
    bias: Tensor | None = getattr(layer, "bias", None)
    if bias is None:
        return None
    return bias[list(projection.rows) if isinstance(projection.rows, tuple) else projection.rows]


def effective_weight(model: nn.Module, projection: Projection) -> Float[Tensor, "d_out d_in"]:
    """The weight with the active adapters' updates added: what the model computes with, without merging.

    Returns:
        A new tensor; equal to `logical_weight` where no adapter is attached, active and unmerged.

    Raises:
        HookError: quantised weight, or an adapter whose update is not a matrix that can be added.
    """
    weight = logical_weight(model, projection)
    layer: Any = unwrap(model).get_submodule(projection.module)
    if layer is base_layer(layer):
        return weight.clone()
    if not hasattr(layer, "get_delta_weight"):
        raise HookError(
            f"{projection.module} carries a {type(layer).__name__} whose update cannot be added to W"
        )
    if getattr(layer, "disable_adapters", False):
        return weight.clone()
    total = weight.clone()
    merged = set(getattr(layer, "merged_adapters", ()))
    for name in layer.active_adapters:
        if name in merged or name not in getattr(layer, "lora_A", {name: None}):
            continue
        delta = adapter_delta(layer, name, projection.module)[projection.index]
        total = total + (delta.T if projection.transposed else delta).to(total.dtype)
    return total


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
    whole: list[str] = [name for name, part in lists if find_attention(part[0]) and find_mlp(part[0])]
    if len(whole) > 1:
        raise AnatomyError(
            f"could not tell which of {', '.join(whole)} are the blocks of {type(model).__name__}"
        )
    if whole:
        return whole[0]
    for name, part in lists:  # the list that looks most like blocks names the part that is missing
        if find_attention(part[0]) or any(hasattr(part[0], candidate) for candidate in ATTENTION):
            refuse_experts(model, family, name)
            place_block(part[0], f"{name}.0", 0, _embedding(model)[2], getattr(model, "config", None))
    raise AnatomyError(
        f"could not place the blocks of {type(model).__name__} ({family}): no ModuleList among "
        f"{', '.join(name for name, _ in model.named_children())} holds an attention and an MLP module each"
    )


def _refuse_uneven(blocks: list[Block], paths: tuple[str, ...]) -> None:
    for block, path in zip(blocks, paths, strict=True):
        for size in ("n_heads", "n_kv_heads", "d_head", "d_mlp", "parallel"):
            mine, others = getattr(block, size), getattr(blocks[0], size)
            if mine != others:
                raise UnsupportedModelError(
                    f"not supported yet: blocks of different build ({path} has {size} {mine}, "
                    f"{paths[0]} {others})"
                )


@on_model
@torch.no_grad()
def head_output_weight(
    model: nn.Module, anatomy: Anatomy, layer: int, head: int
) -> Float[Tensor, "d_model d_head"]:
    """Columns of the output projection that read one head's z: head output = W_O[:, h] z_h.

    Active adapters are included.
    """
    projection = anatomy.projection("o", layer)
    return effective_weight(model, projection)[:, anatomy.head_slice(head)]
