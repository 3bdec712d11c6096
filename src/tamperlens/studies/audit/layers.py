"""How the refusal direction of the attacked model compares with the base's, at every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import NumericsError
from tamperlens.directions.nulls import halves, resamples, unturned_cosine
from tamperlens.models import ChatModel
from tamperlens_hooks import read_positions

DRAWS = 500
BATCH = 32
# A difference of means this small against the means themselves is rounding.
ZERO = 1e-6
NUMBERS = ("cosine", "low", "high", "null", "null_low", "null_high", "unturned")


def activations(model: ChatModel, prompts: Sequence[str], position: int) -> Float[Tensor, "layer n d_model"]:
    """Block inputs of each prompt at one token position, every layer, fp32 on the CPU, in order.

    Raises:
        NumericsError: an activation is NaN or infinite.
    """
    lengths = [len(ids) for ids in model.token_ids(list(prompts))]
    order = sorted(range(len(prompts)), key=lambda row: lengths[row])  # little padding
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    encoded = (model.encode([prompts[row] for row in chunk]) for chunk in chunks)
    read = read_positions(model, encoded, positions=[position], site="resid_pre")[:, 0].float()
    found = torch.empty_like(read)
    found[order] = read
    if not bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{model.name}: activations are NaN or infinite; load the model in float32 or bfloat16"
        )
    return found.transpose(0, 1)


def cosine_table(
    base: tuple[Float[Tensor, "layer n d_model"], Float[Tensor, "layer m d_model"]],
    other: tuple[Float[Tensor, "layer n d_model"], Float[Tensor, "layer m d_model"]],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Cosine between the two models' directions at each layer, with intervals and two bands.

    The interval resamples prompts with replacement, the same ones for both models, so that what the two share
    cancels; it is widened to hold the estimate where resampling pulls the cosine down. `unturned` is
    the least cosine that the same prompts give while nothing turns on average (`directions.nulls`): below it,
    the model has changed. The null compares the directions of two random halves of the base's own prompts, at
    half the size: within it, other prompts would have given this direction as well.

    Args:
        base: (harmful, harmless) activations of the base model.
        other: the same prompts in the same order, another model.
        seed: of both resamplings.
        draws: of each.

    Returns:
        One row per layer: layer, cosine, low, high, null, null_low, null_high, unturned, n; NaN where the two
        means do not differ (a template token at block 0 does not see the prompt).
    """
    generator = torch.Generator().manual_seed(seed)
    counts = base[0].shape[1], base[1].shape[1]
    resampled = tuple(resamples(n, draws, generator) for n in counts)
    parts = tuple(halves(n, draws, generator) for n in counts)
    rows = []
    for layer in range(len(base[0])):
        mine = base[0][layer].double(), base[1][layer].double()
        theirs = other[0][layer].double(), other[1][layer].double()
        scale = ZERO * max(float(x.mean(0).norm()) for x in (*mine, *theirs))
        one, two = mine[0].mean(0) - mine[1].mean(0), theirs[0].mean(0) - theirs[1].mean(0)
        row: dict[str, float] = {"layer": layer, "n": min(counts)}
        if float(one.norm()) <= scale or float(two.norm()) <= scale:
            rows.append(row | dict.fromkeys(NUMBERS, math.nan) | {"n": 0})
            continue
        value = float(_cosines(one[None], two[None])[0])
        a, b = (resampled[0] @ side[0] - resampled[1] @ side[1] for side in (mine, theirs))
        again = _cosines(a, b)
        null = _cosines(
            parts[0][0] @ mine[0] - parts[1][0] @ mine[1], parts[0][1] @ mine[0] - parts[1][1] @ mine[1]
        )
        low, high = (float(again.quantile(q)) for q in (0.025, 0.975))
        row |= {"cosine": value, "low": min(low, value), "high": max(high, value)}
        row |= {"null": float(null.mean()), "unturned": unturned_cosine(one, two, a, b, min(counts))}
        row |= {f"null_{name}": float(null.quantile(q)) for name, q in (("low", 0.025), ("high", 0.975))}
        rows.append(row)
    return pd.DataFrame(rows)


def _cosines(a: Float64[Tensor, "draws d"], b: Float64[Tensor, "draws d"]) -> Float64[Tensor, " draws"]:
    cosines: Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return cosines
