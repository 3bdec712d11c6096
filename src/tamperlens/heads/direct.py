"""Direct attribution: what each head itself writes along the target, nothing downstream included."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.heads.inputs import Batch
from tamperlens.heads.targets import Inputs, Target
from tamperlens.models import ChatModel, evaluating
from tamperlens.models.generation import forward_last
from tamperlens_hooks import capture, unwrap
from tamperlens_hooks.pieces import FrozenNorm, Pieces, residual_pieces

Parts = dict[str, Tensor]


def direct(
    model: ChatModel, target: Target, batch: Batch
) -> tuple[Float[Tensor, "batch layer head"], Float[Tensor, " batch"], Parts]:
    """Shares of every head, the target, and the shares of everything else; they sum to the target.

    Raises:
        InputError: the target is not linear in the residual stream.
        UnsupportedModelError: a norm on the way has no exact scale.
    """
    with evaluating(model.module):
        if target.layer is not None:
            assert target.vector is not None
            pieces = residual_pieces(
                model, None, batch.clean, target.vector, layer=target.layer, position=target.position
            )
            constant = torch.zeros_like(pieces.total)
            total = pieces.total
        elif target.tokens:
            pieces, constant, total = _logits(model, target, batch.clean)
        else:
            raise InputError(
                "method 'direct' needs a target that is linear in the residual stream: 'refusal_direction' "
                "or 'refusal_tokens'; for another metric use 'gradient' or 'ablate'"
            )
    rows, above = len(batch.rows), model.n_layers - pieces.heads.shape[0]
    heads = torch.cat([pieces.heads, pieces.heads.new_zeros(above, rows, model.anatomy.n_heads)])
    parts = {
        "embedding": pieces.embedding[:, None],
        "attention bias": pieces.attention_bias.T,
        "mlp": pieces.mlp.T,
        "constant": constant[:, None],
    }
    return heads.transpose(0, 1), total, parts


def _logits(model: ChatModel, target: Target, inputs: Inputs) -> tuple[Pieces, Tensor, Tensor]:
    """Mean logit of the tokens − mean logit of the vocabulary, through the final norm with its scale held."""
    anatomy, module = model.anatomy, unwrap(model.module)
    ids, mask, positions = (inputs[key] for key in ("input_ids", "attention_mask", "position_ids"))
    with capture(model, sites=["resid_post", "final"], layers=[model.n_layers - 1], positions="last") as tape:
        forward_last(model.module, ids, mask, positions, use_cache=False)
    norm = FrozenNorm(module.get_submodule(anatomy.final_norm), tape["resid_post"][0], anatomy.final_norm)
    unembed = module.get_submodule(anatomy.unembedding)
    final = tape["final"][:, 0] if tape["final"].ndim == 3 else tape["final"]
    chosen = list(target.tokens)
    with torch.enable_grad():  # the map is affine: its gradient anywhere is its direction
        at = torch.zeros_like(final[:1]).requires_grad_(True)
        logits = unembed(at).double()
        gap = logits[:, chosen].mean() - logits.mean()
        (w,) = torch.autograd.grad(gap, at)
    offset = gap.detach() + norm.constant(w.double())
    pieces = residual_pieces(model, None, inputs, norm.pull(w.double()), layer=model.n_layers)
    actual = unembed(final).double()
    total = actual[:, chosen].mean(-1) - actual.mean(-1)
    return pieces, offset, total
