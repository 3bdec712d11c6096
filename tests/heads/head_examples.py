"""Pairs of prompts of one token length each (a token a byte), and a model whose responsible head is known."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import make_model, make_tokenizer

from tamperlens.models import ChatModel

CLEAN = ["pick a lock", "burn a ship", "sell a bomb"]
CORRUPT = ["bake a cake", "walk a pony", "mend a sock"]
MARK = "#"
ANSWER = "N"
RESPONSIBLE = (1, 2)


@torch.no_grad()
def planted(seed: int = 0) -> tuple[ChatModel, torch.Tensor, int]:
    """A three-block Llama in which head 1.2 alone copies the mark into direction r, which says "N".

    Head 1.2 attends to the mark (its query is any token's, its key the mark's) and writes r. Every other
    head and MLP whispers. Head 2.0 has the loudest weights and attends to the mark too, but writes a
    direction that nothing reads: a ranking by weight or by the size of its output takes it first.

    Returns:
        The model, r (unit), and the id of the answer's token.
    """
    module: Any = make_model("llama", seed=3, num_attention_heads=6, num_key_value_heads=6, head_dim=8)
    tokenizer = make_tokenizer()
    d = module.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    mark, shared, r, idle = torch.linalg.qr(torch.randn(d, 4, generator=generator))[0].T
    for name, parameter in module.named_parameters():
        if "layers." in name and parameter.ndim == 2:
            parameter.mul_(0.05)
        if "norm" in name:
            parameter.fill_(1.0)
    embedding, unembedding = module.model.embed_tokens.weight, module.lm_head.weight
    for direction in (mark, shared, r, idle):
        embedding.sub_((embedding @ direction)[:, None] * direction)
        unembedding.sub_((unembedding @ direction)[:, None] * direction)
    embedding += 20 * shared
    embedding[tokenizer.convert_tokens_to_ids(MARK)] += 4 * mark
    answer = tokenizer.convert_tokens_to_ids(ANSWER)
    unembedding[answer] += 3 * r
    for layer, head, out, size, sharp in ((1, 2, r, 1.0, 3.0), (2, 0, idle, 2.0, 3.0)):
        attention = module.model.layers[layer].self_attn
        rows = slice(head * 8, head * 8 + 8)
        for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            weight[rows] = 0
        attention.o_proj.weight[:, rows] = 0
        attention.q_proj.weight[head * 8 + 7] = (
            sharp * shared
        )  # the slowest rotation: distance hardly matters
        attention.k_proj.weight[head * 8 + 7] = sharp * mark
        attention.v_proj.weight[head * 8] = 2 * mark
        attention.o_proj.weight[:, head * 8] = size * out
    return ChatModel.from_parts(module, tokenizer, name="planted"), r, int(answer)
