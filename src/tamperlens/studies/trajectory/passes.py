"""One forward pass per record: activations at the direction's position and logits along the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import NumericsError
from tamperlens.models import ChatModel, evaluating
from tamperlens.models.generation import generate_tokens, in_batches
from tamperlens.models.prefix import shared_prefix
from tamperlens.models.unembedding import logits_kept
from tamperlens_hooks import capture


@dataclass(frozen=True)
class Activations:
    """Activations and logits of one pass over the fixed prompts.

    Attributes:
        residual: block inputs at the direction's position, float64 on the CPU.
        logits: per prompt, logits of its first answer tokens, fp32 on the CPU.
    """

    residual: Float64[Tensor, "layer n d_model"]
    logits: tuple[Float[Tensor, "tokens vocab"], ...]


class Turns:
    """Prompts followed by the base's own first answer tokens.

    A token does not see what comes after it, so one pass over prompt and answer gives the prompt's own
    activations and logits, and the distributions along the answer.
    """

    def __init__(self, base: ChatModel, prompts: Sequence[str], n_tokens: int, position: int) -> None:
        """See the class.

        Args:
            base: whose greedy answers are followed.
            prompts: user turns.
            n_tokens: answer tokens whose distributions are read.
            position: of the activations, negative from the end of the rendered prompt.
        """
        self.n_tokens = n_tokens
        # One fed token fewer than distributions: the first is that after the prompt itself.
        self.at = position - (n_tokens - 1)
        self.prompts = base.token_ids(list(prompts))
        found = generate_tokens(
            base.module, self.prompts, max_new_tokens=n_tokens, stop_ids=base.stop_ids, pad_id=base.pad_id,
            device=base.device,
        )  # fmt: skip
        self.answers = [answer or [min(base.stop_ids)] for answer in found]
        filler = [base.pad_id] * n_tokens  # behind a short answer's end; nothing there is read
        self.rows = [
            prompt + [*answer[:-1], *filler][: n_tokens - 1]
            for prompt, answer in zip(self.prompts, self.answers, strict=True)
        ]

    def run(self, model: ChatModel) -> Activations:
        """Read a model.

        Raises:
            NumericsError: activations or logits are NaN or infinite.
        """
        residual: list[Tensor] = [torch.empty(0)] * len(self.rows)
        logits: list[Tensor] = [torch.empty(0)] * len(self.rows)

        def read(rows: list[int]) -> None:
            batch = prefix.inputs([self.rows[row] for row in rows])
            with (
                capture(model, sites="resid_pre", positions=[self.at]) as tape,
                logits_kept(model.module, self.n_tokens) as keep,
            ):
                out = model.module(**batch, return_dict=True, **keep).logits[:, -self.n_tokens :]
            kept = tape["resid_pre"][:, :, 0].double().cpu()
            for i, row in enumerate(rows):
                residual[row], logits[row] = kept[:, i], out[i, : len(self.answers[row])].float().cpu()

        with evaluating(model.module):
            prefix = shared_prefix(
                model.module, self.rows, pad_id=model.pad_id, device=model.device,
                keep=max(self.n_tokens, -self.at),
            )  # fmt: skip
            in_batches(model.module, self.rows, 0, "auto", model.device, read)
        stacked = torch.stack(residual, 1)
        if not bool(torch.isfinite(stacked).all()) or any(bool(one.isnan().any()) for one in logits):
            raise NumericsError(f"{model.name}: activations or logits are NaN or infinite")
        return Activations(stacked, tuple(logits))
