"""Placing a block's parts by attribute names and shapes; no list of model classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from tamperlens_hooks._modules import base_layer, running
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.errors import AnatomyError

# Attribute names that public decoders use, best known first. Shapes and then numbers confirm each guess.
SEPARATE = {"q": ("q_proj", "wq"), "k": ("k_proj", "wk"), "v": ("v_proj", "wv")}
FUSED_QKV = ("qkv_proj", "c_attn", "query_key_value", "Wqkv")
PER_HEAD_QKV = ("query_key_value",)  # rows run head by head, q k v inside each; elsewhere all q, all k, all v
OUTPUT = ("o_proj", "out_proj", "c_proj", "dense", "wo")
GATE = ("gate_proj", "w1")
UP = ("up_proj", "c_fc", "dense_h_to_4h", "fc1", "fc_in", "w3")
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2")
FUSED_GATE_UP = ("gate_up_proj",)
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
# What stands in attention's place in linear-attention, convolution and state-space blocks: it has no heads.
MIXERS = (*ATTENTION, "linear_attn", "conv", "mamba", "temporal_block")
# A feed-forward part that is no single pair of maps: it routes tokens to experts.
ROUTED = ("mlp", "feed_forward", "block_sparse_moe", "moe", "ffn")

ATTENTION_NORMS = (
    "input_layernorm", "ln_1", "attention_norm", "pre_attention_layernorm", "operator_norm",
    "attention_layernorm", "temporal_pre_norm",
)  # fmt: skip
MLP_NORMS = (
    "pre_feedforward_layernorm", "pre_ff_layernorm", "feedforward_layernorm", "ln_2",
    "post_attention_layernorm", "ffn_norm", "channel_pre_norm",
)  # fmt: skip
ATTENTION_POST_NORMS = ("post_self_attn_layernorm", "post_attention_layernorm", "post_norm1")
MLP_POST_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2")
ATTENTION_DROPOUTS = ("post_attention_dropout", "resid_attn_dropout")
MLP_DROPOUTS = ("post_mlp_dropout", "resid_mlp_dropout")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "embedding_norm")


@dataclass(frozen=True)
class Block:
    """The places inside one block, as full module paths."""

    attention: str
    mlp: str
    output_projection: str | None
    attention_write: str
    mlp_write: str
    attention_norm: str | None
    mlp_norm: str | None
    attention_post_norm: str | None
    mlp_post_norm: str | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    parallel: bool
    maps: tuple[Projection, ...]


def linear_shape(module: nn.Module | None) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear map, adapters and quantised ones included; None for other modules."""
    if module is None:
        return None
    inner = base_layer(module)
    if isinstance(inner, Conv1D):
        return int(inner.nf), int(inner.nx)
    d_in, d_out = getattr(inner, "in_features", None), getattr(inner, "out_features", None)
    return (d_out, d_in) if isinstance(d_in, int) and isinstance(d_out, int) else None


def first(names: Iterable[str], among: Iterable[str]) -> str | None:
    """The first of `names` that occurs in `among`."""
    present = set(among)
    return next((name for name in names if name in present), None)


def linears(module: nn.Module) -> dict[str, tuple[int, int]]:
    """The linear maps among a module's children: name -> (outputs, inputs)."""
    shapes = {name: linear_shape(child) for name, child in running(module).named_children()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def is_norm(module: nn.Module, d_model: int) -> bool:
    """A module whose weight is one vector as wide as the residual stream, or a norm without a weight."""
    inner = base_layer(module)
    weight = getattr(inner, "weight", None)
    if weight is None:
        return "norm" in type(inner).__name__.lower() and not any(True for _ in inner.parameters())
    return weight is not None and weight.ndim == 1 and weight.shape[0] == d_model


def find_attention(block: nn.Module) -> str | None:
    """Name of the child that has an output projection and query, key and value maps."""
    fits = [
        name
        for name, child in running(block).named_children()
        if first(OUTPUT, linears(child)) and (first(FUSED_QKV, linears(child)) or _separate(linears(child)))
    ]
    return first(ATTENTION, fits) or (fits[0] if fits else None)


def find_mlp(block: nn.Module) -> str | None:
    """Name of the child that has an up map and a down map back to the residual stream."""
    for name, child in running(block).named_children():
        maps = linears(child)
        if first(DOWN, maps) and (first(UP, maps) or first(FUSED_GATE_UP, maps)) and name not in ATTENTION:
            return name
    return None


def find_mixer(block: nn.Module) -> str | None:
    """Name of the child that mixes tokens: an attention, or what stands in its place."""
    children = dict(running(block).named_children())
    return find_attention(block) or first(MIXERS, children)


def find_feed_forward(block: nn.Module) -> str | None:
    """Name of the child that works on each token alone: an MLP, or one that routes to experts."""
    children = dict(running(block).named_children())
    routed = [name for name in ROUTED if name in children and has_experts(children[name])]
    return find_mlp(block) or first(ROUTED, routed)


def has_experts(module: nn.Module) -> bool:
    """Whether it holds weights of several experts: a module of that name, or a list of them."""
    return any(name.rpartition(".")[2] in ("experts", "input_linear") for name, _ in module.named_modules())


def place_block(block: nn.Module, path: str, layer: int, d_model: int, config: Any) -> Block:
    """Place every part of one block.

    Raises:
        AnatomyError: a part has no known place or an impossible shape; the message names it.
    """
    children = dict(running(block).named_children())
    attention_name, mlp_name = find_mixer(block), find_feed_forward(block)
    for part, name in (("attention", attention_name), ("MLP", mlp_name)):
        if name is None:
            raise AnatomyError(
                f"could not place the {part} of {path} ({type(block).__name__}: {', '.join(children)}); "
                "tamperlens reads decoders whose blocks hold one attention and one MLP module"
            )
    assert attention_name is not None
    assert mlp_name is not None
    attention, mlp = children[attention_name], children[mlp_name]
    attention_path, mlp_path = f"{path}.{attention_name}", f"{path}.{mlp_name}"

    maps: list[Projection] = []
    n_heads = n_kv_heads = d_head = d_mlp = 0
    if find_attention(block):
        maps, n_heads, n_kv_heads, d_head = _attention_maps(attention, attention_path, layer, d_model, config)
    mlp_maps: list[Projection] = []
    if find_mlp(block):
        mlp_maps, d_mlp = _mlp_maps(mlp, mlp_path, layer, d_model)

    norms = [name for name, child in children.items() if is_norm(child, d_model)]
    mlp_post = first(MLP_POST_NORMS, norms)
    # "post_attention_layernorm" is Llama's norm in front of the MLP, and Gemma 2's norm behind the attention
    attention_post = first(ATTENTION_POST_NORMS[: None if mlp_post else 1], norms)
    attention_norm = first(ATTENTION_NORMS, norms)
    mlp_norm = first([name for name in MLP_NORMS if name != attention_post], norms)
    unplaced = set(norms) - {mlp_post, attention_post, attention_norm, mlp_norm}
    if unplaced:
        raise AnatomyError(f"could not place the norm {path}.{sorted(unplaced)[0]} ({type(block).__name__})")

    parallel = bool(getattr(block, "use_parallel_residual", mlp_norm is None and mlp_post is None))
    if parallel and mlp_norm is None and mlp_post is None:
        mlp_norm = attention_norm  # one norm in front of both (Phi, GPT-J, Cohere)
    attention_write = first(ATTENTION_DROPOUTS, children) or attention_post or attention_name
    mlp_write = first(MLP_DROPOUTS, children) or mlp_post or mlp_name

    def full(name: str | None) -> str | None:
        return None if name is None else f"{path}.{name}"

    return Block(
        attention=attention_path,
        mlp=mlp_path,
        output_projection=next((part.module for part in maps if part.name == "o"), None),
        attention_write=f"{path}.{attention_write}",
        mlp_write=f"{path}.{mlp_write}",
        attention_norm=full(attention_norm),
        mlp_norm=full(mlp_norm),
        attention_post_norm=full(attention_post),
        mlp_post_norm=full(mlp_post),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        d_mlp=d_mlp,
        parallel=parallel,
        maps=(*maps, *mlp_maps),
    )


def _separate(maps: Iterable[str]) -> dict[str, str] | None:
    names = {part: first(options, maps) for part, options in SEPARATE.items()}
    found = {part: name for part, name in names.items() if name is not None}
    return found if len(found) == 3 else None


def _attention_maps(
    attention: nn.Module, path: str, layer: int, d_model: int, config: Any
) -> tuple[list[Projection], int, int, int]:
    """The q, k, v, o maps with heads, key/value heads and head width, which follow from the shapes."""
    shapes = linears(attention)
    output = first(OUTPUT, shapes)
    assert output is not None  # find_attention saw it
    d_out, d_z = shapes[output]
    d_head = getattr(attention, "head_dim", None) or getattr(attention, "head_size", None)
    if d_head is None:
        d_head = d_z // int(config.num_attention_heads)
    d_head = int(d_head)
    if d_out != d_model or d_z % d_head:
        raise AnatomyError(
            f"could not place the heads of {path}.{output}: it maps {d_z} to {d_out}, "
            f"heads are {d_head} wide and the residual stream {d_model}"
        )
    n_heads = d_z // d_head
    separate, fused = _separate(shapes), first(FUSED_QKV, shapes)
    if separate is not None:
        names = separate
        rows: dict[str, slice | tuple[int, ...]] = {
            part: slice(0, shapes[name][0]) for part, name in names.items()
        }
        d_kv = shapes[names["k"]][0]
        d_q = shapes[names["q"]][0]
        if d_q == 2 * d_z:  # each head's query, then the gate of its output (Qwen3-Next)
            rows["q"] = tuple(head * 2 * d_head + i for head in range(n_heads) for i in range(d_head))
        fits = d_q in (d_z, 2 * d_z) and shapes[names["v"]][0] == d_kv
    else:
        assert fused is not None
        names = dict.fromkeys("qkv", fused)
        total = shapes[fused][0]
        d_kv = (total - d_z) // 2
        fits = d_z + 2 * d_kv == total
        if fused in PER_HEAD_QKV:
            fits = fits and d_kv == d_z
            rows = {part: _per_head_rows(i, n_heads, d_head) for i, part in enumerate("qkv")}
        else:
            rows = {"q": slice(0, d_z), "k": slice(d_z, d_z + d_kv), "v": slice(d_z + d_kv, total)}
    n_kv_heads = d_kv // d_head
    if not fits or d_kv % d_head or n_kv_heads == 0 or n_heads % n_kv_heads:
        sizes = ", ".join(f"{name} {shapes[name][0]}" for name in dict.fromkeys(names.values()))
        raise AnatomyError(
            f"could not place queries, keys and values of {path}: outputs {sizes}, heads {d_head} wide"
        )
    maps = [_projection(part, attention, f"{path}.{names[part]}", layer, rows[part]) for part in "qkv"]
    maps.append(_projection("o", attention, f"{path}.{output}", layer, slice(0, d_model)))
    return maps, n_heads, n_kv_heads, d_head


def _per_head_rows(part: int, n_heads: int, d_head: int) -> tuple[int, ...]:
    """Rows of q (0), k (1) or v (2) where rows run head by head: q, k, v of head 0, then of head 1, ..."""
    return tuple(head * 3 * d_head + part * d_head + i for head in range(n_heads) for i in range(d_head))


def _mlp_maps(mlp: nn.Module, path: str, layer: int, d_model: int) -> tuple[list[Projection], int]:
    """The (gate,) up and down maps and the hidden width."""
    shapes = linears(mlp)
    down, fused, gate, up = (first(options, shapes) for options in (DOWN, FUSED_GATE_UP, GATE, UP))
    assert down is not None  # find_mlp saw it
    d_out, d_mlp = shapes[down]
    places: dict[str, tuple[str, slice]]
    if fused is not None:
        places = {"gate": (fused, slice(0, d_mlp)), "up": (fused, slice(d_mlp, 2 * d_mlp))}
        fits = shapes[fused] == (2 * d_mlp, d_model)
    else:
        places = {
            part: (name, slice(0, d_mlp)) for part, name in (("gate", gate), ("up", up)) if name is not None
        }
        fits = all(shapes[name] == (d_mlp, d_model) for name, _ in places.values())
    if not fits or d_out != d_model:
        raise AnatomyError(
            f"could not place the MLP maps of {path}: "
            + ", ".join(f"{name} [{out}, {inn}]" for name, (out, inn) in shapes.items())
            + f" for a residual stream of {d_model}"
        )
    maps = [_projection(part, mlp, f"{path}.{name}", layer, rows) for part, (name, rows) in places.items()]
    return [*maps, _projection("down", mlp, f"{path}.{down}", layer, slice(0, d_model))], d_mlp


def _projection(
    name: str, parent: nn.Module, module: str, layer: int, rows: slice | tuple[int, ...]
) -> Projection:
    child = parent.get_submodule(module.rpartition(".")[2])
    shape = linear_shape(child)
    assert shape is not None
    return Projection(
        name=name,
        parameter=f"{module}.weight",
        module=module,
        layer=layer,
        transposed=isinstance(base_layer(child), Conv1D),
        rows=rows,
        d_in=shape[1],
        d_out=len(rows) if isinstance(rows, tuple) else rows.stop - rows.start,
    )
