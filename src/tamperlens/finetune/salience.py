"""Which harmless examples lie closest to harmful ones: the choice behind the `benign-salient` attack."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, PromptsLike, as_prompts, batch_pairs
from tamperlens_hooks.capture import capture


def salience(
    model: ModelLike, data: PromptsLike, harmful: PromptsLike, *, nearest: int = 1, batch_size: int = 16
) -> Float[Tensor, " n"]:
    """How close each example is to harmful ones, by representation matching (He et al. 2024, 2404.01099).

    The representation of an example is the residual stream behind the final norm at the last token of prompt
    and answer; the score is the mean cosine to its `nearest` harmful examples, as in the authors' code
    (princeton-nlp/benign-data-breaks-safety, `avg_n` 1). Their gradient matching is
    `tamperlens.screen(data, model, by="gradient")`.

    Args:
        model: the model that will be fine-tuned; it is only read.
        data: harmless prompts with responses.
        harmful: harmful prompts with compliant responses.
        nearest: number of harmful examples averaged over.
        batch_size: examples per forward pass.

    Raises:
        InputError: a set is empty or has no responses, or `nearest` exceeds the harmful examples.
    """
    model = as_chat_model(model)
    data, harmful = as_prompts(data, what="data"), as_prompts(harmful, what="harmful")
    if not 1 <= nearest <= len(harmful):
        raise InputError(f"nearest={nearest} must lie between 1 and the {len(harmful)} harmful examples")
    ours, theirs = (_representations(model, one, batch_size) for one in (data, harmful))
    return (ours @ theirs.T).topk(nearest, dim=1).values.mean(1)


@torch.no_grad()
def _representations(model: ChatModel, data: PromptSet, batch_size: int) -> Float[Tensor, "n d"]:
    """Unit vectors in fp32 on the CPU."""
    turns = model.encode_pairs(data)
    # Turns of one length together: the batch is padded to its longest.
    order = sorted(range(len(turns)), key=lambda row: len(turns[row]))
    found: list[Tensor] = [torch.empty(0)] * len(turns)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = {
            k: v.to(model.device) for k, v in batch_pairs([turns[r] for r in rows], model.pad_id).items()
        }
        with capture(model, ["final"]) as tape:
            model.module(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
            )
        last = batch["attention_mask"].sum(1) - 1
        states = tape["final"][torch.arange(len(rows), device=last.device), last]
        for row, state in zip(rows, torch.nn.functional.normalize(states.float(), dim=1).cpu(), strict=True):
            found[row] = state
    return torch.stack(found)
