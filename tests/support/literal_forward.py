"""Forward passes of four families written out from their definitions: raw weights, no transformers modules.

Each takes `at(site, layer, x) -> x`, called at every named place, so that a test can read or edit there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

At = Callable[[str, int, Tensor], Tensor]


def leave(site: str, layer: int, x: Tensor) -> Tensor:
    return x


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x: Tensor, theta: float, width: int) -> Tensor:
    """RoPE on the first `width` numbers of each head; x is [batch, head, seq, d_head]."""
    half = width // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) * 2 / width)
    angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    a, b, rest = x[..., :half], x[..., half:width], x[..., width:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float | None = None, window: int | None = None
) -> Tensor:
    """Causal attention, [batch, head, seq, d_head] -> z [batch, seq, head, d_head]; k, v repeated for GQA."""
    groups = q.shape[1] // k.shape[1]
    z = torch.zeros_like(q)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // groups].transpose(-1, -2) * scale
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        i, j = torch.arange(q.shape[2])[:, None], torch.arange(q.shape[2])[None]
        seen = (j <= i) & (j > i - window) if window is not None else j <= i
        z[:, head] = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, head // groups]
    return z.transpose(1, 2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def gpt2(model: Any, ids: Tensor, at: At = leave) -> Tensor:
    w, c = dict(model.named_parameters()), model.config
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: ids.shape[1]]
    for layer in range(c.n_layer):
        p = f"transformer.h.{layer}."
        x = at("resid_pre", layer, x)
        h = layer_norm(x, w[p + "ln_1.weight"], w[p + "ln_1.bias"], c.layer_norm_epsilon)
        qkv = h @ w[p + "attn.c_attn.weight"] + w[p + "attn.c_attn.bias"]  # Conv1D: [in, out]
        q, k, v = (split_heads(part, c.n_head) for part in qkv.split(c.n_embd, dim=-1))
        z = at("head_z", layer, attend(q, k, v, q.shape[-1] ** -0.5))
        out = z.flatten(-2) @ w[p + "attn.c_proj.weight"] + w[p + "attn.c_proj.bias"]
        x = x + at("attn_out", layer, out)
        h = layer_norm(x, w[p + "ln_2.weight"], w[p + "ln_2.bias"], c.layer_norm_epsilon)
        h = gelu(h @ w[p + "mlp.c_fc.weight"] + w[p + "mlp.c_fc.bias"], approximate="tanh")
        x = x + at("mlp_out", layer, h @ w[p + "mlp.c_proj.weight"] + w[p + "mlp.c_proj.bias"])
        x = at("resid_post", layer, x)
    w_ln, b_ln = w["transformer.ln_f.weight"], w["transformer.ln_f.bias"]
    x = at("final", -1, layer_norm(x, w_ln, b_ln, c.layer_norm_epsilon))
    return x @ model.lm_head.weight.T


def gpt_neox(model: Any, ids: Tensor, at: At = leave) -> Tensor:
    w, c = dict(model.named_parameters()), model.config
    heads, d_head = c.num_attention_heads, c.hidden_size // c.num_attention_heads
    x = w["gpt_neox.embed_in.weight"][ids]
    for layer in range(c.num_hidden_layers):
        p = f"gpt_neox.layers.{layer}."
        x = at("resid_pre", layer, x)
        first = layer_norm(
            x, w[p + "input_layernorm.weight"], w[p + "input_layernorm.bias"], c.layer_norm_eps
        )
        qkv = linear(
            first, w[p + "attention.query_key_value.weight"], w[p + "attention.query_key_value.bias"]
        )
        qkv = qkv.reshape(*ids.shape, heads, 3, d_head)  # head by head, q k v inside each
        q, k, v = (qkv[..., part, :].transpose(1, 2) for part in range(3))
        rotary = c.rope_parameters
        width = int(d_head * rotary.get("partial_rotary_factor", 1.0))
        q, k = rotate(q, rotary["rope_theta"], width), rotate(k, rotary["rope_theta"], width)
        z = at("head_z", layer, attend(q, k, v, d_head**-0.5))
        attention = linear(z.flatten(-2), w[p + "attention.dense.weight"], w[p + "attention.dense.bias"])
        attention = at("attn_out", layer, attention)
        source = x if c.use_parallel_residual else x + attention
        norm = p + "post_attention_layernorm"
        h = layer_norm(source, w[norm + ".weight"], w[norm + ".bias"], c.layer_norm_eps)
        h = gelu(linear(h, w[p + "mlp.dense_h_to_4h.weight"], w[p + "mlp.dense_h_to_4h.bias"]))
        mlp = linear(h, w[p + "mlp.dense_4h_to_h.weight"], w[p + "mlp.dense_4h_to_h.bias"])
        x = at("resid_post", layer, x + attention + at("mlp_out", layer, mlp))
    norm = "gpt_neox.final_layer_norm"
    x = at("final", -1, layer_norm(x, w[norm + ".weight"], w[norm + ".bias"], c.layer_norm_eps))
    return x @ model.lm_head.weight.T


def llama(model: Any, ids: Tensor, at: At = leave) -> Tensor:
    w, c = dict(model.named_parameters()), model.config
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(c.num_hidden_layers):
        p = f"model.layers.{layer}."
        x = at("resid_pre", layer, x)
        h = rms_norm(x, w[p + "input_layernorm.weight"], c.rms_norm_eps)
        q = split_heads(h @ w[p + "self_attn.q_proj.weight"].T, c.num_attention_heads)
        k = split_heads(h @ w[p + "self_attn.k_proj.weight"].T, c.num_key_value_heads)
        v = split_heads(h @ w[p + "self_attn.v_proj.weight"].T, c.num_key_value_heads)
        theta = c.rope_parameters["rope_theta"]
        z = attend(rotate(q, theta, c.head_dim), rotate(k, theta, c.head_dim), v, c.head_dim**-0.5)
        z = at("head_z", layer, z)
        x = x + at("attn_out", layer, z.flatten(-2) @ w[p + "self_attn.o_proj.weight"].T)
        h = rms_norm(x, w[p + "post_attention_layernorm.weight"], c.rms_norm_eps)
        h = silu(h @ w[p + "mlp.gate_proj.weight"].T) * (h @ w[p + "mlp.up_proj.weight"].T)
        x = x + at("mlp_out", layer, h @ w[p + "mlp.down_proj.weight"].T)
        x = at("resid_post", layer, x)
    return at("final", -1, rms_norm(x, w["model.norm.weight"], c.rms_norm_eps)) @ model.lm_head.weight.T


def gemma2(model: Any, ids: Tensor, at: At = leave) -> Tensor:
    w, c = dict(model.named_parameters()), model.config

    def norm(x: Tensor, name: str) -> Tensor:
        return rms_norm(x, 1 + w[name + ".weight"], c.rms_norm_eps)

    x = w["model.embed_tokens.weight"][ids] * c.hidden_size**0.5
    for layer in range(c.num_hidden_layers):
        p = f"model.layers.{layer}."
        x = at("resid_pre", layer, x)
        h = norm(x, p + "input_layernorm")
        q = split_heads(h @ w[p + "self_attn.q_proj.weight"].T, c.num_attention_heads)
        k = split_heads(h @ w[p + "self_attn.k_proj.weight"].T, c.num_key_value_heads)
        v = split_heads(h @ w[p + "self_attn.v_proj.weight"].T, c.num_key_value_heads)
        theta = c.rope_parameters["rope_theta"]
        window = c.sliding_window if c.layer_types[layer] == "sliding_attention" else None
        q, k = rotate(q, theta, c.head_dim), rotate(k, theta, c.head_dim)
        z = attend(q, k, v, c.query_pre_attn_scalar**-0.5, c.attn_logit_softcapping, window)
        z = at("head_z", layer, z)
        out = norm(z.flatten(-2) @ w[p + "self_attn.o_proj.weight"].T, p + "post_attention_layernorm")
        x = x + at("attn_out", layer, out)
        h = norm(x, p + "pre_feedforward_layernorm")
        gate = gelu(h @ w[p + "mlp.gate_proj.weight"].T, approximate="tanh")
        out = (gate * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        x = x + at("mlp_out", layer, norm(out, p + "post_feedforward_layernorm"))
        x = at("resid_post", layer, x)
    logits = at("final", -1, norm(x, "model.norm")) @ model.lm_head.weight.T
    return c.final_logit_softcapping * torch.tanh(logits / c.final_logit_softcapping)


LITERAL: dict[str, Callable[..., Tensor]] = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "gpt_neox_sequential": gpt_neox,
    "llama": llama,
    "gemma2": gemma2,
}
