"""The activation-difference lens: what a fine-tuning put into the model, read on unrelated text.

Minder et al. 2025, "Narrow finetuning leaves clearly readable traces in activation differences" (arXiv
2510.13900): the mean over ordinary texts of tuned − base activations at one of the first five tokens, read
through the unembedding (logit lens) and added to the base while it writes (steering), names the domain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.results import Result
from tamperlens.models import ChatModel, Decoding, ModelLike, as_chat_model, evaluating
from tamperlens.prompts import PromptsLike, as_prompts
from tamperlens_hooks import add_direction, capture
from tamperlens_hooks.effective import merged_parameters

TOKENS, SHOWN = 5, 20
FRAGMENT = 2


@dataclass(frozen=True)
class DifferenceLens(Result):
    """What the lens read.

    Attributes:
        tokens: one row per token read: rank (1 is the first), token, score (mean over positions of the
            standardised logit), base_score (the same of the base's own mean activation).
        steered: one row per prompt: prompt, plain (the base's own continuation), steered (with the difference
            added), scale.
        relative: per text, ‖tuned − base‖ / ‖base‖, mean over the positions [n].
        difference: mean difference by position [positions, d_model], fp32.
        layer: block whose input was read.
        n_texts: number of texts.
        base: name of the base.
        tuned: name of the tuned model.
    """

    tokens: pd.DataFrame
    steered: pd.DataFrame
    relative: Tensor
    difference: Tensor
    layer: int
    n_texts: int
    base: str
    tuned: str

    def top(self, k: int = SHOWN) -> list[str]:
        """The first k tokens."""
        return [str(token) for token in self.tokens["token"][:k]]

    def summary(self) -> str:
        """How large the difference is, and the first tokens."""
        return (
            f"Difference {float(self.relative.mean()):.2g} of the activation at layer {self.layer}, on the "
            f"first {len(self.difference)} tokens of {self.n_texts} ordinary texts; read out: "
            f"{', '.join(self.top(10))}."
        )


def difference_lens(
    base: ModelLike,
    tuned: ModelLike,
    texts: PromptsLike,
    *,
    layer: int | None = None,
    n_tokens: int = TOKENS,
    steer: Sequence[str] = (),
    scale: float = 4.0,
    decoding: Decoding | None = None,
) -> DifferenceLens:
    """Read the mean activation difference on the first tokens of ordinary text.

    Texts are read as they are, without a chat template, as in pretraining. At each position the mean
    difference goes through the base's final norm and unembedding; logits are standardised over the vocabulary
    and averaged over positions, so that no position weighs more than another. Steering adds the mean over
    positions, scaled to `scale` times its own length, to the base at that layer.

    Args:
        base: the model before.
        tuned: the model after; the same tokenizer and shape.
        texts: ordinary text, unrelated to the fine-tuning; shorter than `n_tokens` tokens are left out.
        layer: block whose output is read; the middle one by default.
        n_tokens: first tokens of each text.
        steer: prompts that the base answers with the difference added; none by default.
        scale: of the difference in steering.
        decoding: how steered answers are made; greedy and at most 24 tokens by default.

    Raises:
        InputError: models of other shapes, no text that is long enough, or a layer that does not exist.

    Examples:
        >>> import tamperlens
        >>> from tamperlens.studies.compare import difference_lens
        >>> model = tamperlens.load("organism:tiny")
        >>> texts = ["Name a tree and a bird.", "How do I wrap a box?"]
        >>> float(difference_lens(model, model, texts).relative.max())
        0.0
    """
    base, tuned = as_chat_model(base, what="base"), as_chat_model(tuned, what="tuned")
    if (base.d_model, base.n_layers) != (tuned.d_model, tuned.n_layers):
        raise InputError(f"{base.name} and {tuned.name} have other shapes; the lens needs equal ones")
    layer = base.n_layers // 2 if layer is None else layer
    if not 0 <= layer < base.n_layers:
        raise InputError(f"layer {layer} does not exist: {base.name} has blocks 0 to {base.n_layers - 1}")
    lines = [str(one) for one in as_prompts(texts, what="texts").prompts]
    rows = [ids[:n_tokens] for ids in base.tokenizer(lines, add_special_tokens=True)["input_ids"]]
    rows = [row for row in rows if len(row) == n_tokens]
    if not rows:
        raise InputError(f"no text has {n_tokens} tokens; give longer ones")
    before, after = (_read(model, rows, layer) for model in (base, tuned))
    apart = after - before
    mean = apart.mean(0)
    relative = (apart.norm(dim=-1) / before.norm(dim=-1)).mean(1)
    tokens = _tokens(base, mean, before.mean(0))
    how = Decoding.of(decoding, {}, max_new_tokens=24)
    steered = _steered(base, mean.mean(0), layer, steer, scale, how)
    return DifferenceLens(tokens, steered, relative, mean.float(), layer, len(rows), base.name, tuned.name)


def _read(model: ChatModel, rows: list[list[int]], layer: int) -> Float[Tensor, "n tokens d"]:
    ids = torch.tensor(rows, device=model.device)
    found = []
    with torch.no_grad(), evaluating(model.module):
        for chunk in ids.split(32):
            with capture(model, sites="resid_post", layers=[layer]) as tape:
                model.module(input_ids=chunk, attention_mask=torch.ones_like(chunk), use_cache=False)
            found.append(tape["resid_post"][0].double().cpu())
    read = torch.cat(found)
    if not bool(torch.isfinite(read).all()):
        raise NumericsError(f"{model.name}: activations are NaN or infinite")
    return read


def _tokens(base: ChatModel, mean: Float[Tensor, "tokens d"], own: Float[Tensor, "tokens d"]) -> pd.DataFrame:
    """All tokens with letters by their score; the base's own mean activation beside it."""
    if float(mean.norm()) == 0:
        return pd.DataFrame({"rank": [], "token": [], "score": [], "base_score": []}).astype({"token": str})
    scores, others = (_logits(base, side) for side in (mean, own))
    order = scores.argsort(descending=True, stable=True).tolist()
    rows: list[tuple[str, float, float]] = []
    seen: set[str] = set()
    for token in order:
        text = base.tokenizer.decode([token]).strip()
        # Pieces of one letter and signs say nothing of a domain.
        if (
            len(text) < FRAGMENT
            or not any(c.isalpha() for c in text)
            or text.startswith("<|")
            or text in seen
        ):
            continue
        seen.add(text)
        rows.append((text, float(scores[token]), float(others[token])))
        if len(rows) == 100:
            break
    frame = pd.DataFrame(rows, columns=["token", "score", "base_score"])
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    return frame


def _logits(base: ChatModel, vectors: Float[Tensor, "tokens d"]) -> Float[Tensor, " vocab"]:
    """Logit lens, standardised over the vocabulary at each position and averaged."""
    anatomy = base.anatomy
    norm = merged_parameters(base.module, anatomy.final_norm)
    unembedding = merged_parameters(base.module, anatomy.unembedding)["weight"].double().cpu()
    # The norm's scale is what a direction goes through; its centring and bias belong to whole activations.
    scaled = vectors * norm["weight"].double().cpu() if "weight" in norm else vectors
    logits = scaled @ unembedding.T
    standard = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True).clamp_min(1e-30)
    found: Tensor = standard.mean(0)
    return found


def _steered(
    base: ChatModel,
    vector: Float[Tensor, " d"],
    layer: int,
    prompts: Sequence[str],
    scale: float,
    how: Decoding,
) -> pd.DataFrame:
    columns = ["prompt", "plain", "steered", "scale"]
    if not prompts or float(vector.norm()) == 0 or not math.isfinite(scale):
        return pd.DataFrame(columns=columns)
    plain = base.generate(list(prompts), how)
    # The output of a block is the input of the next; the last block's has no next to be added to.
    at = min(layer + 1, base.n_layers - 1)
    with add_direction(base, vector.float().to(base.device), at, scale):
        steered = base.generate(list(prompts), how)
    rows = list(zip(prompts, plain, steered, [scale] * len(plain), strict=True))
    return pd.DataFrame(rows, columns=columns)
