"""Edges between parts: what each sender adds to what each receiver reads, to first order (EAP-IG)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError, UnsupportedModelError
from tamperlens.base.results import Result
from tamperlens.heads.inputs import Batch, Prompts, batched, make_rows
from tamperlens.heads.scores import HeadScores
from tamperlens.heads.targets import HasIds, Target, TargetLike, resolve_target
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating
from tamperlens_hooks import capture, head_output_weight, unwrap
from tamperlens_hooks._modules import attach
from tamperlens_hooks.head_gradients import embeddings_replaced
from tamperlens_hooks.state import preserve_state

LOGITS = "logits"


@dataclass(frozen=True)
class EdgeScores(Result):
    """A first-order score for every edge between parts of a model.

    Attributes:
        scores: [sender, receiver], the mean over pairs; 0 where the receiver does not lie behind the sender.
        senders: "embedding", "mlp 0", …, and heads as "0.0", "0.1", ….
        receivers: "attention 0", "mlp 0", …, "logits": the norm in front of each part.
        target: what was measured.
        n: number of pairs.
        model: its name.
        fingerprint: of the model.
        n_heads: heads of a block.
        prompts: name of each prompt set to its hash.
    """

    scores: Float[Tensor, "sender receiver"]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    target: str
    n: int
    model: str
    fingerprint: str
    n_heads: int
    prompts: dict[str, str]

    def to_frame(self) -> pd.DataFrame:
        """One row per edge: sender, receiver, score."""
        return pd.DataFrame(
            [
                {"sender": one, "receiver": two, "score": float(self.scores[i, j])}
                for i, one in enumerate(self.senders)
                for j, two in enumerate(self.receivers)
            ]
        )

    def summary(self) -> str:
        """The strongest edges."""
        frame = self.to_frame()
        best = frame.loc[frame["score"].abs().nlargest(3).index].to_dict("records")
        words = ", ".join(f"{one['sender']} → {one['receiver']} {one['score']:.3g}" for one in best)
        return f"{self.model}, {self.target} by EAP-IG (n={self.n}): strongest edges {words}."

    def through(self, model: ModelLike) -> HeadScores:
        """Each head's edges to later blocks summed: what it does other than by its own path to the logits.

        Args:
            model: the model that was scored.
        """
        inner = [i for i, name in enumerate(self.receivers) if name != LOGITS]
        own = [i for i, name in enumerate(self.senders) if "." in name]
        table = self.scores[own][:, inner].sum(1).reshape(-1, self.n_heads)
        return HeadScores.from_values(
            model, table, method="edges", target=self.target, prompts=self.prompts,
            convention="Sum of EAP-IG scores of a head's edges to later blocks; positive raises the target.",
        )  # fmt: skip


def edges(
    model: ModelLike,
    prompts: Prompts,
    *,
    corrupt: Prompts,
    target: TargetLike = "refusal_tokens",
    refusal_tokens: Sequence[int] | HasIds | None = None,
    steps: int = 5,
    batch_size: int = 16,
) -> EdgeScores:
    """Edge attribution patching with integrated gradients (Hanna et al. 2024, arXiv 2403.17806, eq. 3).

    score(s → r) = Σ over positions of (write of s, clean − corrupt) · mean over `steps` embeddings from
    corrupt to clean of ∂ target / ∂ (input of r), the input of r alone and not the stream behind it. A
    positive score means that the edge raises the target.

    Args:
        model: hooks are attached and detached.
        prompts: the clean side.
        corrupt: a partner of the same token length for each prompt; see `heads.align`.
        target: "refusal_tokens", or a differentiable function of the last position's logits.
        refusal_tokens: ids, or what `find_refusal_tokens` returned.
        steps: points of the path; one is the gradient at the clean prompt (EAP).
        batch_size: pairs at once.

    Raises:
        InputError: a target that is not read from the logits, or pairs that do not align.
        UnsupportedModelError: norms behind the attention, through which a head has no write of its own.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import heads, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(4), prompts.packaged('harmless')
        >>> clean, corrupt = heads.align(model, harmful, harmless)
        >>> found = heads.edges(model, clean, corrupt=corrupt, refusal_tokens=[70], steps=1)
        >>> tuple(found.scores.shape)                     # embedding, 5 MLPs and 20 heads to 11 receivers
        (26, 11)
    """
    model = as_chat_model(model)
    rows = make_rows(model, prompts, corrupt)
    anatomy = model.anatomy
    anatomy.require_heads()
    if anatomy.post_norm:
        raise UnsupportedModelError(
            f"{model.name} has norms behind its attention; heads have no write of their own there. Use "
            "heads.attribute(method='path')"
        )
    goal = resolve_target(model, target, refusal_tokens=refusal_tokens)
    if goal.layer is not None:
        raise InputError(
            "edges need a target that is read from the logits: 'refusal_tokens' or a function of them"
        )
    names, places = _receivers(model)
    total: Any = 0.0
    for batch in batched(model, rows, batch_size):
        slopes = _slopes(model, goal, batch, list(places), steps)
        total = total + _contract(model, _writes(model, batch), slopes)
    senders = ["embedding", *(f"mlp {i}" for i in range(anatomy.n_layers))]
    senders += [f"{i}.{h}" for i in range(anatomy.n_layers) for h in range(anatomy.n_heads)]
    behind = torch.tensor(
        [[_behind(one, two, anatomy.parallel) for two in names] for one in senders], dtype=torch.float64
    )
    return EdgeScores(
        (total * behind / len(rows)).float(), tuple(senders), tuple(names), goal.words, len(rows), model.name,
        model.fingerprint, anatomy.n_heads, rows.names,
    )  # fmt: skip


def _receivers(model: ChatModel) -> tuple[list[str], list[str]]:
    """Names, and paths of the modules whose input they read; one norm for both parts is one receiver."""
    anatomy = model.anatomy
    found: dict[str, str] = {}
    for layer in range(anatomy.n_layers):
        for name, norm, part in (
            ("attention", anatomy.attention_norms[layer], anatomy.attention[layer]),
            ("mlp", anatomy.mlp_norms[layer], anatomy.mlp[layer]),
        ):
            found.setdefault(norm or part, f"{name} {layer}")
    found[anatomy.final_norm] = LOGITS
    return list(found.values()), list(found)


def _slopes(
    model: ChatModel, target: Target, batch: Batch, places: list[str], steps: int
) -> Float[Tensor, "receiver batch seq d_model"]:
    """Mean gradient of the target on what each receiver alone reads, along the path of embeddings."""
    assert batch.corrupt is not None
    table = unwrap(model.module).get_submodule(model.anatomy.embedding)
    with evaluating(model.module):
        start, end = (table(inputs["input_ids"]) for inputs in (batch.corrupt, batch.clean))
    total: Any = 0.0
    for k in range(1, steps + 1):
        handle = embeddings_replaced(model, partial(_instead, start + k / steps * (end - start)))
        try:
            with preserve_state(model.module, grad=False), _added(model, places, start) as leaves:
                value = target.read(model, batch.clean)
                found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        finally:
            handle.remove()
        total = total + torch.stack([torch.zeros_like(start) if g is None else g for g in found])
    mean: Tensor = total / steps
    return mean.double()


@contextmanager
def _added(model: ChatModel, places: list[str], like: Tensor) -> Iterator[list[Tensor]]:
    """Inside, each receiver reads its input plus a zero of its own, whose gradient is that of the input."""
    leaves = [torch.zeros_like(like).requires_grad_(True) for _ in places]
    module = unwrap(model.module)
    handles = [
        attach(module.get_submodule(path), True, partial(_plus, leaf))
        for path, leaf in zip(places, leaves, strict=True)
    ]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def _writes(model: ChatModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Clean − corrupt: embedding [batch, seq, d], MLPs [layer, …], z [layer, batch, seq, head, d_head]."""
    seen = []
    for inputs in (batch.clean, batch.corrupt):
        assert inputs is not None
        with evaluating(model.module), capture(model, sites=["resid_pre", "mlp_out", "head_z"]) as tape:
            model.module(**{key: inputs[key] for key in ("input_ids", "attention_mask", "position_ids")})
        seen.append([tape["resid_pre"][0], tape["mlp_out"], tape["head_z"]])
    embedding, mlps, z = (one.double() - two.double() for one, two in zip(*seen, strict=True))
    return embedding, mlps, z


def _contract(model: ChatModel, writes: tuple[Tensor, Tensor, Tensor], slopes: Tensor) -> Tensor:
    """[sender, receiver], summed over the batch and positions."""
    embedding, mlps, z = writes
    rows = [torch.einsum("bsd,rbsd->r", embedding, slopes)[None], torch.einsum("lbsd,rbsd->lr", mlps, slopes)]
    for layer in range(model.n_layers):
        for head in range(model.anatomy.n_heads):
            weight = head_output_weight(model, layer, head).double()
            rows.append(torch.einsum("bsk,dk,rbsd->r", z[layer, :, :, head], weight, slopes)[None])
    return torch.cat(rows).cpu()


def _behind(sender: str, receiver: str, parallel: bool) -> bool:
    """Whether a receiver reads what a sender writes."""
    if sender == "embedding" or receiver == LOGITS:
        return True
    part, block = receiver.split()
    if sender.startswith("mlp"):
        return int(block) > int(sender.split()[1])
    own = int(sender.split(".")[0])
    return int(block) > own or (int(block) == own and part == "mlp" and not parallel)


def _plus(leaf: Tensor, x: Tensor) -> Tensor:
    return x + leaf


def _instead(value: Tensor, output: Tensor) -> Tensor:
    return value
