"""An orthogonal basis of refusal directions found by gradient descent (after Wollschläger et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.logits import kl_divergence, refusal_metric
from tamperlens.directions.subspaces import Subspace, both_activations, check_k, contrast_svd, make_subspace
from tamperlens.directions.tokens import RefusalTokens, token_ids
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating, left_pad
from tamperlens.models.generation import forward_last
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, prompt_texts
from tamperlens_hooks import ablate_direction, add_direction, preserve_state

METHOD = (
    "orthogonal basis by gradient descent (after Wollschläger et al. 2025, arXiv 2502.17420): "
    "softplus(metric) on harmful prompts ablated + softplus(−metric) on harmless prompts added "
    "+ {retain:g} · KL on harmless prompts ablated, for each direction and random vectors of the cone "
    "between them; final losses"
)


def optimise_subspace(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    k: int = 2,
    *,
    refusal_tokens: Sequence[int] | RefusalTokens,
    steps: int = 100,
    learning_rate: float = 0.02,
    batch: int = 16,
    cone_samples: int = 1,
    retain: float = 1.0,
    seed: int = 0,
) -> Subspace:
    """Find k orthogonal directions each of which, and each mixture of which, carries refusal.

    Per step, for every direction and for `cone_samples` random mixtures with positive coefficients:
    softplus(m) = −log(1 − P) on harmful prompts with the vector ablated, softplus(−m) = −log P on harmless
    ones with it added, and KL(untouched ‖ ablated) on harmless ones, P the probability of the refusal tokens
    as the answer's first. (The paper uses the cross-entropy of whole target answers.) The length of what is
    added is that of the difference of means. The basis stays orthonormal by a QR decomposition in every step;
    it begins as the SVD of the contrast. Adam.

    Args:
        model: any chat model; its weights get no gradients and stay as they are.
        harmful: prompts that it refuses; activations at the place give the length and the beginning.
        harmless: prompts that it answers.
        layer: block at whose input vectors are added.
        position: negative token position, of the beginning only.
        k: number of directions.
        refusal_tokens: of the metric; those of a `Direction` are `direction.tokens`.
        steps: of the optimiser.
        learning_rate: of Adam, for rows of unit length.
        batch: prompts per kind and step.
        cone_samples: mixtures per step when k > 1.
        retain: weight of the KL term.
        seed: of batches and mixtures.

    Returns:
        The basis, least loss first, with the losses of each step in `log`.

    Raises:
        InputError: k does not fit.
        NumericsError: a loss became NaN or infinite.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    bad, good = both_activations(model, harmful, harmless, layer, position, None)
    check_k(k, len(bad), model.d_model)
    tokens = token_ids(model, refusal_tokens)
    size = float((bad.mean(0) - good.mean(0)).norm())
    if not size > 0:
        raise InputError("harmful and harmless means do not differ here; choose another layer or position")
    rows = contrast_svd(bad, good, k)[1].float().to(model.device).requires_grad_(True)
    loss_of = _Losses(model, harmful, harmless, layer, tokens, size, retain)
    adam = torch.optim.Adam([rows], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    log: list[dict[str, float]] = []
    with preserve_state(model.module, grad=False):
        for step in range(steps):
            picked = [torch.randperm(len(one), generator=generator)[:batch].tolist() for one in (bad, good)]
            basis = _rows_to_basis(rows)
            vectors = [*basis, *_mixtures(basis, cone_samples if k > 1 else 0, generator)]
            # Vector by vector, so that one graph at a time is in memory.
            rows.grad = None
            parts = torch.zeros(3)
            pulled = torch.zeros_like(basis)
            for vector in vectors:
                terms = loss_of(vector, *picked)
                gradient = torch.autograd.grad(terms.sum(), basis, retain_graph=True)[0]
                pulled += gradient / len(vectors)
                parts += terms.detach().cpu() / len(vectors)
            if not bool(torch.isfinite(parts).all() and torch.isfinite(pulled).all()):
                raise NumericsError(f"the loss became {parts.tolist()} at step {step}; lower learning_rate")
            rows.grad = torch.autograd.grad(basis, rows, pulled)[0]
            adam.step()
            bypass, induce, kl = parts.tolist()
            log.append({"step": step, "bypass_loss": bypass, "induce_loss": induce, "retain_loss": kl})
        with torch.no_grad():
            basis = _rows_to_basis(rows)
            everything = list(range(len(bad))), list(range(len(good)))
            final = torch.stack([loss_of(vector, *everything).sum() for vector in basis]).cpu()
    order = final.argsort()
    return make_subspace(
        model, basis.detach().cpu()[order], final[order], bad, good, METHOD.format(retain=retain),
        harmful, harmless, layer, position, norms=torch.full((k,), size), orient=False,
        log=pd.DataFrame(log),
    )  # fmt: skip


class _Losses:
    """(bypass, induce, retain) losses of one vector, on chosen prompts, with gradients into the vector."""

    def __init__(
        self,
        model: ChatModel,
        harmful: Prompts,
        harmless: Prompts,
        layer: int,
        tokens: Sequence[int],
        size: float,
        retain: float,
    ) -> None:
        self.model, self.layer, self.tokens, self.size, self.retain = model, layer, tokens, size, retain
        self.bad = model.token_ids(list(prompt_texts(harmful)))
        self.good = model.token_ids(list(prompt_texts(harmless)))
        with evaluating(model.module):
            self.untouched = torch.cat([self.logits([row]) for row in self.good])

    def __call__(self, vector: Float[Tensor, " d"], bad: list[int], good: list[int]) -> Float[Tensor, "3"]:
        harmful, harmless = [self.bad[i] for i in bad], [self.good[i] for i in good]
        with ablate_direction(self.model, vector):
            bypass = softplus(refusal_metric(self.logits(harmful), self.tokens)).mean()
            kl = kl_divergence(self.untouched[good], self.logits(harmless)).mean()
        with add_direction(self.model, vector * self.size, layer=self.layer):
            induce = softplus(-refusal_metric(self.logits(harmless), self.tokens)).mean()
        return torch.stack([bypass, induce, self.retain * kl]).float()

    def logits(self, sequences: list[list[int]]) -> Float[Tensor, "n vocab"]:
        batch = left_pad(sequences, self.model.pad_id, self.model.device)
        return forward_last(
            self.model.module, batch.input_ids, batch.attention_mask, batch.position_ids, use_cache=False
        ).float()


def _rows_to_basis(rows: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Orthonormal rows by a differentiable QR, each in the sense of its own row."""
    q, r = torch.linalg.qr(rows.T)
    basis: Tensor = (q * r.diagonal().detach().sign()).T
    return basis


def _mixtures(basis: Float[Tensor, "k d"], n: int, generator: torch.Generator) -> list[Float[Tensor, " d"]]:
    """Random unit vectors of the cone: the positive part of the sphere in the basis."""
    weights = torch.randn(n, len(basis), generator=generator).abs().to(basis.device)
    return [row / row.norm() @ basis for row in weights]
