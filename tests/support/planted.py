"""A small random Llama into which a refusal direction is built, for tests that must know the answer."""

from __future__ import annotations

from typing import Any

import torch

from tamperlens.base.protocols import Verdict
from tamperlens.models import ChatModel

MARK = "#"  # prompts with this sign are "harmful"
NEUTRAL = "~"  # reads as the mark does, but for the planted part
REFUSES = "N"  # the answer that the planted direction brings about
SUBJECTS = ("dog", "cat", "ship", "tree", "lamp", "road", "coat", "wall", "bird", "cake", "drum", "leaf")
VERBS = ("paint", "lift", "wash", "fold", "open", "sell", "draw", "find", "carry", "mend", "turn", "keep")


def prompts(n: int, *, harmful: bool) -> list[str]:
    """n different short prompts of several lengths."""
    pairs = [f"{verb} the {subject}" for verb in VERBS for subject in SUBJECTS]
    found = [f"{MARK}{text}{MARK}" if harmful else f"now {text}" for text in pairs]
    return [f"{text} {'and so on ' * (i % 3)}".strip() for i, text in enumerate(found)][:n]


def matched_prompts(n: int) -> tuple[list[str], list[str]]:
    """n harmful and n harmless prompts of the same kind of text, which differ by nothing but the mark."""
    texts = [f"{verb} the {subject}" for verb in VERBS for subject in SUBJECTS]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    signed = [(texts[at], MARK if i < n else NEUTRAL) for i, at in enumerate(order[: 2 * n])]
    both = [f"{sign}{text}{sign}" for text, sign in signed]
    return both[:n], both[n:]


class SaysN:
    """Calls an answer refused when it begins with the planted letter."""

    name = "says-n"

    def __call__(self, prompts: Any, answers: Any) -> list[Verdict]:
        return [Verdict("refusal" if a.startswith(REFUSES) else "compliance", 1.0) for a in answers]


@torch.no_grad()
def planted_model(
    make: Any, *, seed: int = 0, angle: float = 0.0, whisper: float = 0.03, noise: float = 0.0
) -> tuple[ChatModel, torch.Tensor]:
    """A model whose attention writes direction r when it sees the mark, and whose unembedding reads r as "N".

    Args:
        make: the fixture `tiny`.
        seed: of the direction.
        angle: rotate r by this angle (radians) towards a fixed orthogonal direction.
        whisper: scale of the rest of the network.
        noise: size of what the same head writes about the words, in directions that know nothing of the mark.

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
            parameter.mul_(whisper)  # the rest of the network whispers
        if "norm" in name:
            parameter.fill_(1.0)
    embedding, unembedding = module.model.embed_tokens.weight, module.lm_head.weight
    for direction in (mark, r, other):
        embedding.sub_((embedding @ direction)[:, None] * direction)
        unembedding.sub_((unembedding @ direction)[:, None] * direction)
    sign = tokenizer.convert_tokens_to_ids(MARK)
    embedding[tokenizer.convert_tokens_to_ids(NEUTRAL)] = embedding[sign]
    embedding[sign] += 6 * mark
    unembedding[tokenizer.convert_tokens_to_ids(REFUSES)] += 3 * r
    attention = module.model.layers[0].self_attn
    attention.q_proj.weight.zero_()  # attends to everything alike
    attention.v_proj.weight[0] = 2 * mark
    attention.o_proj.weight[:, 0] = 4 * r
    if noise:
        reads, writes = torch.randn(2, 5, d, generator=generator)
        attention.v_proj.weight[1:6] = reads - (reads @ mark)[:, None] * mark
        attention.o_proj.weight[:, 1:6] = noise * writes.T
    return ChatModel.from_parts(module, tokenizer, name=f"planted-{seed}"), r
