"""What `transformer_lens.patching` and `transformer_lens.tools.analysis` found, as a table of heads."""

from __future__ import annotations

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError

_HEAD = re.compile(r"L(\d+)H(\d+)$")


def head_table(
    result: Any, n_layers: int, n_heads: int, baseline: float = 0.0
) -> tuple[Float[Tensor, "layer head"], str, str]:
    """(scores, method, convention) of a result of TransformerLens.

    Args:
        result: an `AttributionResult` (nodes of attention heads, summed over positions), a
            `DirectLogitAttribution` with unit "head" (averaged over what is not the component), or a
            table of `patching` over layers and heads, [layer, head].
        n_layers: of the model.
        n_heads: of the model.
        baseline: of a patching table: the metric of the corrupt run, which is subtracted from every entry.

    Raises:
        InputError: nothing in it belongs to heads of this model.
    """
    scores = torch.zeros(n_layers, n_heads, dtype=torch.float64)
    if hasattr(result, "node_scores"):
        nodes = [(node, value) for node, value in result.node_scores.items() if node.kind == "attn_head_out"]
        _check({(node.layer, node.head) for node, _ in nodes}, n_layers, n_heads)
        for node, value in nodes:
            scores[node.layer, node.head] += float(value)
        return scores, "gradient (TransformerLens)", (
            "(z_clean − z_corrupt) · ∂metric/∂z at the corrupt run, all positions; positive raises it."
        )  # fmt: skip
    if hasattr(result, "labels") and hasattr(result, "attribution"):
        values = result.attribution.detach().double().cpu().flatten(1).mean(1)
        named = [(_HEAD.match(label), value) for label, value in zip(result.labels, values, strict=True)]
        found = {(int(at[1]), int(at[2])): float(value) for at, value in named if at}
        _check(set(found), n_layers, n_heads)
        for (layer, head), value in found.items():
            scores[layer, head] = value
        return (
            scores,
            "direct (TransformerLens)",
            ("Head output · unembedding direction, the final norm's scale held fixed; positive raises it."),
        )
    table = torch.as_tensor(result).detach().double().cpu()
    if tuple(table.shape) != (n_layers, n_heads):
        raise InputError(
            f"a table of patching must be [{n_layers}, {n_heads}] (layer, head) for this model; got "
            f"{list(table.shape)}; choose an _all_pos function, or sum over positions"
        )
    return (
        table - baseline,
        "patch (TransformerLens)",
        (f"metric(corrupt run with the head's clean activation) − {baseline:g}, all positions."),
    )


def _check(found: set[tuple[int, int]], n_layers: int, n_heads: int) -> None:
    wanted = {(layer, head) for layer in range(n_layers) for head in range(n_heads)}
    if found != wanted:
        raise InputError(
            f"the result holds {len(found)} heads and the model {len(wanted)}; make it of this model, with "
            'unit="head" for direct_logit_attribution'
        )
