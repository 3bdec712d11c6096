"""Several directions put to the causal test: each alone, all together, mixtures, and random controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, undefined
from tamperlens.directions.candidates import BatchSize
from tamperlens.directions.geometry import orthonormal
from tamperlens.directions.scoring import PromptScores, Scorer
from tamperlens.directions.subspaces import Subspace
from tamperlens.directions.tokens import RefusalTokens, token_ids
from tamperlens.models import ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, prompt_texts


@dataclass(frozen=True)
class Effect(Result):
    """What one edit does to the refusal metric (log-odds of a refusal as the answer's first token).

    Attributes:
        name: what was edited, e.g. "direction 0".
        kind: "direction", "whole", "mixture" or "random".
        bypass: mean metric on harmful prompts under ablation.
        induce: mean metric on harmless prompts under addition.
        kl: mean KL(untouched ‖ ablated) on harmless prompts, in nats.
    """

    name: str
    kind: str
    bypass: Estimate
    induce: Estimate
    kl: Estimate


@dataclass(frozen=True)
class SubspaceCheck(Result):
    """A subspace put to the causal test.

    Attributes:
        effects: one per edit; "whole" ablates all directions together.
        baseline_harmful: mean metric on the harmful prompts, nothing changed.
        baseline_harmless: the same on the harmless ones.
        seed: of mixtures and controls.
        method: of the subspace.
        model: name of the model that it was tried on.
    """

    effects: tuple[Effect, ...]
    baseline_harmful: float
    baseline_harmless: float
    seed: int
    method: str
    model: str

    def summary(self) -> str:
        """How many edits were tried, against what."""
        return (
            f"{self.model}: {len(self.effects)} edits of the subspace ({self.method}); refusal log-odds of "
            f"the untouched model {self.baseline_harmful:.2f} on harmful and {self.baseline_harmless:.2f} on "
            "harmless prompts."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per edit and measure: name, kind, measure, value, low, high, n, method, model."""
        return pd.DataFrame(
            [
                {"name": effect.name, "kind": effect.kind, "measure": measure, **estimate.cells()}
                | {"method": self.method, "model": self.model}
                for effect in self.effects
                for measure, estimate in (
                    ("bypass", effect.bypass),
                    ("induce", effect.induce),
                    ("kl", effect.kl),
                )
            ]
        )


def validate_subspace(
    model: ModelLike,
    subspace: Subspace,
    harmful: Prompts,
    harmless: Prompts,
    *,
    refusal_tokens: Sequence[int] | RefusalTokens,
    n_mixtures: int = 3,
    n_random: int = 3,
    seed: int = 0,
    batch_size: BatchSize = "auto",
) -> SubspaceCheck:
    """Ablate and add each direction of a subspace; ablate all of them; the same for mixtures and controls.

    Mixtures have random positive coefficients and the mean length of the directions: in a cone of refusal
    directions they refuse as the directions do. Controls are random subspaces of the same size (all k
    directions ablated together, the first added with the mean length). Use prompts that had no part in
    finding the subspace.

    Args:
        model: the model that the subspace is tried on.
        subspace: of this width.
        harmful: prompts to ablate on.
        harmless: prompts to add on.
        refusal_tokens: of the metric.
        n_mixtures: random mixtures; none for a single direction.
        n_random: random subspaces.
        seed: of both.
        batch_size: rows at once.

    Raises:
        InputError: another width, or no prompts.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    bad, good = prompt_texts(harmful), prompt_texts(harmless)
    if not bad or not good:
        raise InputError("a causal test needs harmful and harmless prompts; one of the two sets is empty")
    tokens = token_ids(model, refusal_tokens)
    scorer = Scorer(model, bad, good, tokens, batch_size)
    generator = torch.Generator().manual_seed(seed)
    length = float(subspace.norms.mean())
    raw = subspace.raw
    edits: list[tuple[str, str, list[Tensor], Tensor]] = [
        (f"direction {i}", "direction", [subspace.basis[i]], raw[i]) for i in range(subspace.k)
    ]
    edits.append(("all directions", "whole", list(subspace.basis), raw.sum(0)))
    for i in range(n_mixtures if subspace.k > 1 else 0):
        weights = torch.randn(subspace.k, generator=generator).abs()
        mixed = weights / weights.norm() @ subspace.basis
        edits.append((f"mixture {i}", "mixture", [mixed], mixed * length))
    for i in range(n_random):
        drawn = torch.randn(subspace.basis.shape, generator=generator)
        control = orthonormal(drawn).float()
        edits.append((f"random {i}", "random", list(control), control[0] * length))
    effects = []
    for name, kind, removed, added in edits:
        found = scorer.by_prompt(
            [v.to(model.device) for v in removed], added.to(model.device), subspace.layer
        )
        effects.append(Effect(name, kind, *estimates(found, seed)))
    base = scorer.baseline
    return SubspaceCheck(tuple(effects), base.harmful, base.harmless, seed, subspace.method, model.name)


def estimates(scores: PromptScores, seed: int = 0) -> tuple[Estimate, Estimate, Estimate]:
    """Means of bypass, induce and KL over prompts with bootstrap intervals; undefined where not finite."""
    bypass, induce, kl = (mean_of(values, seed) for values in (scores.bypass, scores.induce, scores.kl))
    return bypass, induce, kl


def mean_of(values: Float[Tensor, " n"], seed: int = 0) -> Estimate:
    """Mean over prompts with its bootstrap interval."""
    if not bool(torch.isfinite(values).all()):
        return undefined("the edited model's logits are NaN or infinite")
    return bootstrap(values.double().numpy(), seed=seed)
