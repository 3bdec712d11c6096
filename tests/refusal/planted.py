"""A small random Llama into which a refusal direction is built, for tests that must know the answer."""

from __future__ import annotations

from typing import Any

import torch

from tamperlens.base.protocols import Verdict
from tamperlens.models import ChatModel

MARK = "#"  # prompts with this sign are "harmful"
REFUSES = "N"  # the answer that the planted direction brings about
SUBJECTS = ("dog", "cat", "ship", "tree", "lamp", "road", "coat", "wall", "bird", "cake", "drum", "leaf")
VERBS = ("paint", "lift", "wash", "fold", "open", "sell", "draw", "find", "carry", "mend", "turn", "keep")


def prompts(n: int, *, harmful: bool) -> list[str]:
    """n different short prompts of several lengths."""
    pairs = [f"{verb} the {subject}" for verb in VERBS for subject in SUBJECTS]
    found = [f"{MARK}{text}{MARK}" if harmful else f"now {text}" for text in pairs]
    return [f"{text} {'and so on ' * (i % 3)}".strip() for i, text in enumerate(found)][:n]


class SaysN:
    """Calls an answer refused when it begins with the planted letter."""

    name = "says-n"

    def __call__(self, prompts: Any, answers: Any) -> list[Verdict]:
        return [Verdict("refusal" if a.startswith(REFUSES) else "compliance", 1.0) for a in answers]


@torch.no_grad()
def planted_model(make: Any, *, seed: int = 0, angle: float = 0.0) -> tuple[ChatModel, torch.Tensor]:
    """A model whose attention writes direction r when it sees the mark, and whose unembedding reads r as "N".

    Args:
        make: the fixture `tiny`.
        seed: of the direction.
        angle: rotate r by this angle (radians) towards a fixed orthogonal direction.

    Returns:
        The model and r, a unit vector.
    """
    module, tokenizer = make("llama", seed=3)
    d = module.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    mark, r, other = torch.linalg.qr(torch.randn(d, 3, generator=generator))[0].T
    r = torch.cos(torch.tensor(angle)) * r + torch.sin(torch.tensor(angle)) * other
    for name, parameter in module.named_parameters():
        if "layers." in name and parameter.ndim == 2:
            parameter.mul_(0.03)  # the rest of the network whispers
        if "norm" in name:
            parameter.fill_(1.0)
    embedding, unembedding = module.model.embed_tokens.weight, module.lm_head.weight
    for direction in (mark, r, other):
        embedding.sub_((embedding @ direction)[:, None] * direction)
        unembedding.sub_((unembedding @ direction)[:, None] * direction)
    embedding[tokenizer.convert_tokens_to_ids(MARK)] += 6 * mark
    unembedding[tokenizer.convert_tokens_to_ids(REFUSES)] += 3 * r
    attention = module.model.layers[0].self_attn
    attention.q_proj.weight.zero_()  # attends to everything alike
    attention.v_proj.weight[0] = 2 * mark
    attention.o_proj.weight[:, 0] = 4 * r
    return ChatModel.from_parts(module, tokenizer, name=f"planted-{seed}"), r
