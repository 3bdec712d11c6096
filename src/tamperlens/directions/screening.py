"""First-order estimates of every candidate's scores at once, from a few backward passes a prompt.

Ablating r̂ takes (w·r̂) r̂ out of every write w to the residual stream (embedding, attention, MLP, every token).
To first order the refusal metric m of a prompt becomes m − Σ (w·r̂)(∂m/∂w·r̂), for every r̂ from one gradient.
Adding v at the input of block l makes it m + Σ_t ∂m/∂x_{l,t}·v. The divergence of the next-token distribution
from the untouched one is zero to first order and ½ E_y[(Σ (w·r̂)(∂log p(y)/∂w·r̂))²] to second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.logits import refusal_metric
from tamperlens.models import ChatModel, evaluating, left_pad
from tamperlens.models.generation import forward_last, in_batches
from tamperlens_hooks import Site, Tape, capture

# Tokens of a pass whose graph is kept, and next tokens that stand for the whole distribution: the likeliest
# ones with their probabilities, and one drawn from the rest.
_TOKENS, _LIKELIEST = 512, 2
# Prompts of a kind that are asked at most, and those of them whose KL is estimated: each costs three more
# backward passes.
_PROMPTS, _PROMPTS_KL = 16, 8

Score = Literal["bypass", "induce", "kl"]


@dataclass(frozen=True)
class Estimates:
    """Estimated scores, in the order of the candidates.

    Attributes:
        bypass: mean refusal metric on harmful prompts under ablation.
        induce: mean refusal metric on harmless prompts under addition.
        kl: mean KL(untouched ‖ ablated) on harmless prompts.
    """

    bypass: Float64[Tensor, " candidates"]
    induce: Float64[Tensor, " candidates"]
    kl: Float64[Tensor, " candidates"]


def estimate_scores(
    model: ChatModel,
    harmful: Sequence[Sequence[int]],
    harmless: Sequence[Sequence[int]],
    tokens: Sequence[int],
    vectors: Float[Tensor, "candidates d_model"],
    layers: Sequence[int],
) -> Estimates:
    """Estimate bypass, induce and KL of many candidates.

    Costs one forward and one backward pass for each of 16 prompts of a kind, and four of each more for 8
    harmless ones, whatever the number of candidates. Parameters receive no gradients.

    Args:
        model: any chat model whose weights can be differentiated through.
        harmful: token ids of harmful prompts.
        harmless: token ids of harmless prompts.
        tokens: refusal token ids.
        vectors: raw differences of means, none of them zero.
        layers: where each was read and is added.
    """
    screen = _Screen(model, tokens, vectors.float().to(model.device), list(layers))
    bypass = screen.run(harmful[:_PROMPTS], "bypass")
    induce = screen.run(harmless[:_PROMPTS], "induce")
    kl = screen.run(harmless[:_PROMPTS_KL], "kl")
    return Estimates(bypass.mean(0), induce.mean(0), kl.mean(0))


class _Screen:
    def __init__(self, model: ChatModel, tokens: Sequence[int], vectors: Tensor, layers: list[int]) -> None:
        self.model, self.tokens, self.vectors, self.layers = model, tokens, vectors, layers
        self.units = (vectors / vectors.norm(dim=-1, keepdim=True)).T.contiguous()

    def run(self, sequences: Sequence[Sequence[int]], score: Score) -> Float64[Tensor, "n candidates"]:
        """One score per prompt and candidate."""
        found = torch.zeros(len(sequences), len(self.layers), dtype=torch.float64)

        def read(rows: list[int]) -> None:
            found[rows] = self._batch([sequences[row] for row in rows], score)

        at_once = max(1, _TOKENS // max(map(len, sequences)))
        with evaluating(self.model.module), torch.enable_grad():
            in_batches(self.model.module, sequences, 0, at_once, self.model.device, read)
        return found

    def _batch(self, sequences: Sequence[Sequence[int]], score: Score) -> Float64[Tensor, "batch c"]:
        model = self.model
        batch = left_pad(sequences, model.pad_id, model.device)
        sites: list[Site] = ["resid_pre"]
        if score != "induce":
            sites += ["attn_out", "mlp_out"]
        with capture(model, sites=sites, detach=False) as tape:
            logits = forward_last(model.module, **vars(batch), use_cache=False)
        real = batch.attention_mask
        metric = refusal_metric(logits, self.tokens)
        before = metric.detach().cpu()[:, None]
        if score == "induce":
            return before + self._added(tape, metric.sum(), real)
        writes = [tape.raw("resid_pre")[0], *tape.raw("attn_out"), *tape.raw("mlp_out")]
        parts = [self._project(write.detach(), real) for write in writes]
        if score == "bypass":
            return before - self._removed(parts, torch.autograd.grad(metric.sum(), writes), real)
        logp = logits.double().log_softmax(-1)
        found = torch.zeros(len(sequences), len(self.layers), dtype=torch.float64)
        for chosen, weight in _typical(logp.detach()):
            likelihood = logp.gather(1, chosen[:, None]).sum()
            grads = torch.autograd.grad(likelihood, writes, retain_graph=True)
            found += weight.cpu()[:, None] * self._removed(parts, grads, real) ** 2 / 2
        return found

    def _project(self, x: Tensor, real: Tensor) -> Tensor:
        """Components along every candidate, zero on padding, `[batch, seq, candidates]`."""
        parts: Tensor = (x.float() @ self.units.to(x.device)) * real.to(x.device)[..., None]
        return parts

    def _removed(self, parts: list[Tensor], grads: Sequence[Tensor], real: Tensor) -> Tensor:
        """First-order loss by ablation, `[batch, candidates]`."""
        terms = [
            (part * self._project(grad, real)).sum(1).double().cpu()
            for part, grad in zip(parts, grads, strict=True)
        ]
        return torch.stack(terms).sum(0)

    def _added(self, tape: Tape, metric: Tensor, real: Tensor) -> Tensor:
        """First-order gain by adding each candidate at its layer, `[batch, candidates]`."""
        inputs = tape.raw("resid_pre")
        grads = torch.autograd.grad(metric, inputs)
        sums = [(g.float() * real.to(g.device)[..., None]).sum(1) for g in grads]
        pairs = zip(self.layers, self.vectors, strict=True)
        each = [sums[layer] @ vector.to(sums[layer].device) for layer, vector in pairs]
        return torch.stack([one.double().cpu() for one in each], 1)


def _typical(logp: Float64[Tensor, "batch vocab"]) -> list[tuple[Tensor, Tensor]]:
    """Next tokens, one a row, with weights that sum to 1: the likeliest, and a drawn one for all others."""
    p = logp.exp()
    values, ids = p.topk(min(_LIKELIEST, p.shape[-1] - 1))
    chosen = [(ids[:, k], values[:, k]) for k in range(ids.shape[1])]
    rest = p.scatter(1, ids, 0.0).cumsum(-1)
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(len(p), 1, generator=generator, dtype=torch.float64).to(p.device) * rest[:, -1:]
    drawn = torch.searchsorted(rest, level, right=True).squeeze(1).clamp(max=p.shape[-1] - 1)
    return [*chosen, (drawn, rest[:, -1])]
