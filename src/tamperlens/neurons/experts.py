"""SNIP for sparse experts, whose weights are stacks of matrices and belong to no linear module."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.progress import progress_bar
from tamperlens.base.results import Result
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.neurons.examples import Examples, Pairs, batches, example_losses, loss_function
from tamperlens_hooks import unwrap
from tamperlens_hooks.state import preserve_state


@dataclass(frozen=True)
class ExpertScores(Result):
    """SNIP scores of every expert's weights.

    Attributes:
        scores: parameter name to [expert, …, …], shaped like the parameter, fp32.
        reached: parameter name to [expert]: share of the examples that sent a token to that expert and
            whose loss depends on it. Experts that no example reached have score 0 there.
        layers: parameter name to its block.
        definition: formula and loss.
        prompts: name of the prompt set to its sha256.
        n: examples.
        model: its name.
        fingerprint: of the model.
    """

    scores: dict[str, Tensor]
    reached: dict[str, Tensor]
    layers: dict[str, int]
    definition: str
    prompts: dict[str, str]
    n: int
    model: str
    fingerprint: str

    def to_frame(self) -> pd.DataFrame:
        """One row per parameter and expert: layer, parameter, expert, score (sum of its weights), reached."""
        rows = [
            {"layer": self.layers[name], "parameter": name, "expert": expert,
             "score": float(one.double().sum()), "reached": float(self.reached[name][expert])}
            for name, stack in self.scores.items()
            for expert, one in enumerate(stack)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """The expert that matters most, and how many no example reached."""
        table = self.to_frame()
        top = table.iloc[int(table["score"].to_numpy().argmax())]
        idle = int((table.groupby(["layer", "expert"])["reached"].max() == 0).sum())
        return (
            f"Expert {top['expert']} of block {top['layer']} scores highest ({top['score']:.3g} summed over "
            f"its {top['parameter'].rpartition('.')[2]}); {idle} experts were reached by none of {self.n} "
            "examples."
        )


def expert_parameters(model: ChatModel) -> dict[str, int]:
    """Names of the stacked expert weights [expert, …, …] and the block of each; empty for a dense model."""
    base = unwrap(model.module)
    return {
        f"{path}.{name}": layer
        for layer, path in enumerate(model.anatomy.mlp)
        for name, parameter in base.get_submodule(path).named_parameters()
        if parameter.ndim == 3
    }


def expert_snip(
    model: ModelLike, data: Pairs, *, loss: str = "response_mean", batch_size: int = 4, progress: bool = False
) -> ExpertScores:
    """Score the weights of every expert by how much the loss would feel their removal, to first order.

    S = |W| ⊙ (1/N) Σ_x |∂L_x/∂W|, as in `snip`, with one gradient an example: an expert that an example does
    not reach gets none from it, and N counts all examples. The routing is that of the intact model; what a
    removed weight would change in it is not counted. Cost: one forward pass a batch, one backward pass an
    example, and three copies of the experts' weights in fp32.

    Args:
        model: a model with sparse experts, without adapters on them.
        data: prompts with responses.
        loss: as in `snip`.
        batch_size: rows of one forward pass; does not change the scores beyond rounding.
        progress: show a bar.

    Raises:
        InputError: the model has no experts, or data that cannot be used.
        NumericsError: NaN or infinite gradients.
    """
    model = as_chat_model(model)
    examples, loss_of = Examples.of(model, data), loss_function(loss)
    layers = expert_parameters(model)
    if not layers:
        raise InputError(f"{model.name} has no sparse experts; use neurons.snip")
    base = unwrap(model.module)
    weights: dict[str, nn.Parameter] = {name: base.get_parameter(name) for name in layers}
    wide = {name: torch.promote_types(w.dtype, torch.float32) for name, w in weights.items()}
    sums = {name: torch.zeros(w.shape, dtype=wide[name], device=w.device) for name, w in weights.items()}
    reached = {name: torch.zeros(len(w), device=w.device) for name, w in weights.items()}
    with preserve_state(model.module, grad=True), progress_bar(len(examples), "experts", progress) as advance:
        for parameter in model.module.parameters():
            parameter.requires_grad_(False)
        for parameter in weights.values():
            parameter.requires_grad_(True)
        for batch in batches(examples, batch_size, model.pad_id, model.device):
            losses = example_losses(model, batch, loss_of)
            for row in range(len(losses)):
                found = torch.autograd.grad(losses[row], list(weights.values()), retain_graph=True)
                for name, gradient in zip(weights, found, strict=True):
                    size = gradient.to(wide[name]).abs()
                    if not bool(torch.isfinite(size).all()):
                        raise NumericsError(
                            f"{name}: the gradient of row {batch.rows[row]} of {examples.name!r} is NaN or "
                            "infinite; load the model in float32 or bfloat16, or drop that row"
                        )
                    sums[name] += size
                    reached[name] += (size.flatten(1).amax(1) > 0).float()
            advance(len(losses))
    n = len(examples)
    scores = {
        name: (total / n * weights[name].detach().abs().to(total.dtype)).float().cpu()
        for name, total in sums.items()
    }
    return ExpertScores(
        scores, {name: share.cpu() / n for name, share in reached.items()}, layers,
        f"|W| ⊙ mean over examples of |dL/dW|, L = {loss}, intact model",
        {examples.name: examples.sha256}, n, model.name, model.fingerprint,
    )  # fmt: skip
